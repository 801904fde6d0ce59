// The whole path from graph to launch, on one screen, and the compile of a checkpoint around it.
#pragma once

#include "compiler/offload/Backend.h"

#include "mlir/IR/OwningOpRef.h"
#include "llvm/ADT/STLFunctionalExtras.h"

namespace freeport {

/// A backend and the profiles of it that a package is to hold.
struct Target {
  const Backend *backend;
  std::vector<std::string> profiles;
};

/// Compiles the kernels of `launch` for all profiles of all targets; the backends' names and what they made. The
/// kernels' module gets `attributes`. Profiles compile in parallel. `progress` is told what is being done, by one
/// thread at a time but not always the caller's, and returns false to cancel.
llvm::Expected<std::vector<std::pair<std::string, Executable>>>
compileKernels(mlir::ModuleOp launch, llvm::ArrayRef<Target> targets, llvm::ArrayRef<mlir::NamedAttribute> attributes,
               llvm::function_ref<bool(const char *)> progress);

/// graph -> kernel: kernels and a program over scratch memory without places. In `fast` numerics kernels may use
/// `math`.
void buildKernelStage(mlir::OpPassManager &passes, const TargetDescription &target, bool fast = false);
/// kernel -> launch: places in the arena, barriers.
void buildLaunchStage(mlir::OpPassManager &passes);

} // namespace freeport
