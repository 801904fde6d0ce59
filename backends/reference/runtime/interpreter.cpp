// The interpreter's loop. Registers and local memory of a program are one run of the caller's scratch memory.
#include "backends/reference/runtime/interpreter.h"

#include "backends/reference/runtime/decoder.h"

#include <fmt/format.h>

#include <algorithm>

namespace freeport::reference {
namespace {

size_t register_bytes_of(const Program &program) { return static_cast<size_t>(program.register_bytes + 63) / 64 * 64; }

int64_t signed_size(uint64_t bytes) { return static_cast<int64_t>(std::min<uint64_t>(bytes, INT64_MAX)); }

void fill(const Constant &constant, std::byte *registers) {
  std::byte *to = registers + constant.offset;
  for (uint32_t i = 0; i < constant.count; ++i, to += constant.data.size())
    memcpy(to, constant.data.data(), constant.data.size());
}

} // namespace

void Scratch::reserve(const Program &program) {
  if (memories_.size() < program.memories.size())
    memories_.resize(program.memories.size());
  const size_t needed = register_bytes_of(program) + static_cast<size_t>(program.local_bytes) + 64;
  if (needed <= bytes_)
    return;
  memory_.reset(static_cast<std::byte *>(::operator new[](needed, kAlignment)));
  bytes_ = needed;
}

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

void Interpreter::run(const Program &program, const HostDispatch &dispatch, int64_t first, int64_t last,
                      Scratch &scratch, uint64_t steps) {
  scratch.reserve(program);
  size_t register_bytes = register_bytes_of(program);
  for (size_t i = 0; i < program.memories.size(); ++i) {
    const Memory &memory = program.memories[i];
    int64_t bytes = memory.elements * element_bytes(memory.element);
    scratch.memories_[i] = i < program.arguments
                               ? Extent{static_cast<std::byte *>(dispatch.bindings[i]),
                                        signed_size(dispatch.readable[i]), signed_size(dispatch.writable[i])}
                               : Extent{scratch.memory_.get() + register_bytes + memory.local_offset, bytes, bytes};
  }
  Frame frame{&program, scratch.memory_.get(), scratch.memories_.data(), {0, 0, 0}, 0};
  memset(frame.registers, 0, register_bytes);
  for (const Constant &constant : program.constants)
    fill(constant, frame.registers);
  for (size_t i = 0; i < program.scalar_offsets.size(); ++i)
    *frame.at<int64_t>(program.scalar_offsets[i]) = dispatch.scalars[i];
  const int64_t(&grid)[3] = dispatch.grid;
  for (int64_t place = first; place < last; ++place) {
    frame.place[0] = place % grid[0];
    frame.place[1] = place / grid[0] % grid[1];
    frame.place[2] = place / grid[0] / grid[1];
    frame.next = 0;
    for (uint64_t left = steps; left && frame.next < program.steps.size(); --left) {
      const Step &step = program.steps[frame.next++];
      step.run(step, frame);
    }
  }
}

} // namespace freeport::reference
