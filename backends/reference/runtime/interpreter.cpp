// The interpreter's loop. Each thread keeps one run of memory for registers and local memory, which grows to the
// largest kernel that it has met, so that a warm thread allocates nothing.
#include "backends/reference/runtime/interpreter.h"

#include "backends/reference/runtime/decoder.h"

#include <fmt/format.h>

#include <new>

namespace freeport::reference {
namespace {

struct Scratch {
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte *memory) const { ::operator delete[](memory, kAlignment); }
  };
  std::unique_ptr<std::byte[], Free> memory;
  size_t bytes = 0;
  std::vector<std::byte *> addresses;

  void reserve(size_t needed) {
    if (needed <= bytes)
      return;
    memory.reset(static_cast<std::byte *>(::operator new[](needed, kAlignment)));
    bytes = needed;
  }
};

void fill(const Constant &constant, std::byte *registers) {
  std::byte *to = registers + constant.offset;
  for (uint32_t i = 0; i < constant.count; ++i, to += constant.data.size())
    memcpy(to, constant.data.data(), constant.data.size());
}

} // namespace

Result<Interpreter> Interpreter::create(std::span<const std::byte> content, uint32_t version) {
  FP_ASSIGN_OR_RETURN(std::vector<Program> programs, decode(content, version));
  return Interpreter(std::move(programs));
}

Result<const Program *> Interpreter::find(std::string_view name) const {
  for (const Program &program : programs_)
    if (program.name == name)
      return &program;
  return Status(Code::kNotFound, fmt::format("reference bytecode: expects a kernel called '{}', got none", name));
}

void Interpreter::run(const Program &program, void *const *bindings, const int64_t *scalars, const int64_t (&grid)[3],
                      int64_t first, int64_t last) {
  thread_local Scratch scratch;
  size_t register_bytes = static_cast<size_t>(program.register_bytes + 63) / 64 * 64;
  scratch.reserve(register_bytes + static_cast<size_t>(program.local_bytes) + 64);
  scratch.addresses.resize(program.memories.size());
  for (size_t i = 0; i < program.memories.size(); ++i)
    scratch.addresses[i] = i < program.arguments
                               ? static_cast<std::byte *>(bindings[i])
                               : scratch.memory.get() + register_bytes + program.memories[i].local_offset;
  Frame frame{&program, scratch.memory.get(), scratch.addresses.data(), {0, 0, 0}, 0};
  memset(frame.registers, 0, register_bytes);
  for (const Constant &constant : program.constants)
    fill(constant, frame.registers);
  for (size_t i = 0; i < program.scalar_offsets.size(); ++i)
    *frame.at<int64_t>(program.scalar_offsets[i]) = scalars[i];
  for (int64_t place = first; place < last; ++place) {
    frame.place[0] = place % grid[0];
    frame.place[1] = place / grid[0] % grid[1];
    frame.place[2] = place / grid[0] / grid[1];
    frame.next = 0;
    while (frame.next < program.steps.size()) {
      const Step &step = program.steps[frame.next++];
      step.run(step, frame);
    }
  }
}

} // namespace freeport::reference
