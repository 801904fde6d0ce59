// Arbitrary bytes as reference bytecode. Each function that decodes runs on small buffers, each in a heap block of its
// own, so that the address sanitizer sees the first byte beyond.
#include "backends/reference/runtime/decoder.h"
#include "backends/reference/runtime/interpreter.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>

namespace {

using namespace freeport;
using namespace freeport::reference;

constexpr size_t kFunctions = 16, kArguments = 64;
constexpr int64_t kRegisterBytes = 64 << 10; // what fits is fast enough to run hundreds of times a second
constexpr uint64_t kSteps = 200;

/// Argument `number` has so many bytes from an odd address on, all of one value; every third is only read.
constexpr size_t bytes_of(size_t number) { return number % 4 == 3 ? 0 : (size_t(16384) >> 3 * (number % 4)) + 1; }
constexpr uint8_t value_of(size_t number) { return static_cast<uint8_t>(number % 5 ? number : 0x3C); }
constexpr bool is_read_only(size_t number) { return number % 3 == 2; }

void run(const Program &program) {
  if (program.arguments > kArguments || program.register_bytes > kRegisterBytes)
    return;
  std::vector<std::unique_ptr<uint8_t[]>> memories;
  std::vector<void *> bindings;
  std::vector<uint64_t> readable, writable;
  std::vector<int64_t> scalars;
  for (size_t i = 0; i < program.arguments; ++i) {
    memories.emplace_back(new uint8_t[bytes_of(i) + 1]);
    std::fill_n(memories.back().get(), bytes_of(i) + 1, value_of(i));
    bindings.push_back(memories.back().get() + 1);
    readable.push_back(bytes_of(i));
    writable.push_back(is_read_only(i) ? 0 : bytes_of(i));
  }
  for (size_t i = 0; i < program.scalar_offsets.size(); ++i)
    scalars.push_back(i % 4 == 3 ? INT64_MAX / static_cast<int64_t>(i) : static_cast<int64_t>(i) - 1);
  HostDispatch dispatch{bindings.data(), readable.data(), writable.data(), scalars.data(), {2, 1, 2}};
  static Scratch scratch;
  Interpreter::run(program, dispatch, 1, 3, scratch, kSteps);
  for (size_t i = 0; i < program.arguments; ++i) {
    const uint8_t *first = memories[i].get();
    auto untouched = [&](uint8_t each) { return each == value_of(i); };
    if (first[0] != value_of(i) || (is_read_only(i) && !std::all_of(first, first + 1 + bytes_of(i), untouched)))
      std::abort();
  }
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto programs = decode(std::as_bytes(std::span(data, size)), 1);
  if (!programs.ok()) {
    if (programs.status().message().empty())
      std::abort();
    return 0;
  }
  for (size_t i = 0; i < std::min(programs->size(), kFunctions); ++i)
    run(programs.value()[i]);
  return 0;
}
