// Passes do not fail on IR that verifies, and never crash: where one does, that is our bug, and the user gets what we
// need to repeat it.
#pragma once

#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/OwningOpRef.h"
#include "mlir/Pass/PassManager.h"
#include "llvm/Support/Error.h"

namespace freeport {

/// While one of them lives, llvm::CrashRecoveryContext catches crashes, on any thread; behind the last one the process
/// has its own handlers of signals again.
class CrashRecovery {
public:
  CrashRecovery();
  ~CrashRecovery();
  CrashRecovery(const CrashRecovery &) = delete;
  CrashRecovery &operator=(const CrashRecovery &) = delete;
};

/// Runs the passes that `build` adds on `module`, on this thread. If one fails or crashes, the error names a file of
/// the system's temporary folder that `freeport-opt --run-reproducer` repeats it from; a crash leaves `module` empty.
llvm::Error runPasses(mlir::OwningOpRef<mlir::ModuleOp> &module, llvm::function_ref<void(mlir::OpPassManager &)> build);

} // namespace freeport
