// Compiles a kernel with any backend and runs it through that backend's device: how backends are compared, bit for bit.
#pragma once

#include "compiler/offload/Backend.h"

#include <array>
#include <vector>

namespace freeport {

enum RanAt { kNowhere = 0, kHere, kInRunner };

/// Runs the kernel.func `kernelName` of `module` (which is left as it is) over `grid`, compiled for a profile of the
/// backend. `buffers` are its memory arguments, in order, and hold what the kernel left in them afterwards. Where it
/// ran: nowhere where this machine has no such device, or one that rejects the profile, and where the machine behind
/// FREEPORT_DISPATCH_RUNNER (a command that starts freeport-dispatch-runner, such as one of an emulator) says the same;
/// standard error says why, once. The error says which stage failed.
llvm::Expected<RanAt> runKernel(const Backend &backend, llvm::StringRef profile, mlir::ModuleOp module,
                                llvm::StringRef kernelName, std::vector<std::vector<char>> &buffers,
                                llvm::ArrayRef<int64_t> scalars, std::array<int64_t, 3> grid);

} // namespace freeport
