// Runs reference bytecode: the meaning of the kernel dialect, with no compiler at run time. Slow and obviously right.
#pragma once

#include "backends/reference/runtime/program.h"
#include "runtime/host_device.h"

#include <memory>
#include <new>
#include <span>
#include <string_view>

namespace freeport::reference {

/// What a program needs while it runs: its registers, its local memory and where its memories are. One run at a time.
class Scratch {
public:
  /// Grows to what `program` needs; with room for it already, allocates nothing.
  void reserve(const Program &program);

private:
  friend class Interpreter;
  static constexpr std::align_val_t kAlignment{64};
  struct Free {
    void operator()(std::byte *memory) const { ::operator delete[](memory, kAlignment); }
  };
  std::unique_ptr<std::byte[], Free> memory_;
  size_t bytes_ = 0;
  std::vector<Extent> memories_;
};

/// Decoded kernels. Immutable, so that any number of threads may run them.
class Interpreter {
public:
  /// Checks all of `content`, which need not outlive the interpreter; kCorrupt or kUnsupported says what is wrong.
  static Result<Interpreter> create(std::span<const std::byte> content, uint32_t version);

  /// The kernel called `name`, or kNotFound.
  Result<const Program *> find(std::string_view name) const;

  /// Runs programs first .. last-1 of the grid in linear order, x fastest. `dispatch` has Program::arguments bindings,
  /// aligned or not, and a scalar for each of Program::scalar_offsets. What lies outside a binding's memory reads as
  /// zero and is not written. Each program ends after `steps` instructions at the latest.
  static void run(const Program &program, const HostDispatch &dispatch, int64_t first, int64_t last, Scratch &scratch,
                  uint64_t steps = UINT64_MAX);

private:
  explicit Interpreter(std::vector<Program> programs) : programs_(std::move(programs)) {}
  std::vector<Program> programs_;
};

} // namespace freeport::reference
