// The whole path from graph to launch, on one screen, and the compile of a checkpoint around it.
#pragma once

#include "compiler/offload/Backend.h"

namespace freeport {

/// graph -> kernel: kernels and a program over scratch memory without places. In `fast` numerics kernels may use
/// `math`.
void buildKernelStage(mlir::OpPassManager &passes, const TargetDescription &target, bool fast = false);
/// kernel -> launch: places in the arena, barriers.
void buildLaunchStage(mlir::OpPassManager &passes);

} // namespace freeport
