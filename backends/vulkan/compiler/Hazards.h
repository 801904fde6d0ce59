// Where the 32 invocations of a program must wait for each other. A kernel's ops take effect one after the other for
// all lanes; invocations run on their own, so that a barrier must stand between two accesses to the same memory, one of
// them a write, unless each lane meets only its own elements.
#pragma once

#include "dialects/kernel/Kernel.h"

#include "llvm/ADT/DenseSet.h"

namespace freeport::vulkan {

/// The ops of `function` in front of which a barrier must stand. `sharesLanes` says which ops exchange values through
/// scratch memory of their own (they hold a barrier themselves); `isVirtual` which `kernel.local`s are not memory.
llvm::DenseSet<mlir::Operation *> findBarriers(kernel::FuncOp function,
                                               llvm::function_ref<bool(mlir::Operation *)> sharesLanes,
                                               llvm::function_ref<bool(mlir::Value)> isVirtual);

} // namespace freeport::vulkan
