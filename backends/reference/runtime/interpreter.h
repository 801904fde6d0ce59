// Runs reference bytecode: the meaning of the kernel dialect, with no compiler at run time. Slow and obviously right.
#pragma once

#include "backends/reference/runtime/program.h"
#include "runtime/host_device.h"

#include <memory>
#include <span>
#include <string_view>

namespace freeport::reference {

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
  static void run(const Program &program, const HostDispatch &dispatch, int64_t first, int64_t last,
                  uint64_t steps = UINT64_MAX);

private:
  explicit Interpreter(std::vector<Program> programs) : programs_(std::move(programs)) {}
  std::vector<Program> programs_;
};

} // namespace freeport::reference
