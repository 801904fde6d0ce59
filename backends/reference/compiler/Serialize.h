// From the kernel dialect to bytecode. The one walk that answers both what the backend supports and what it emits.
#pragma once

#include "dialects/kernel/Kernel.h"

#include "mlir/IR/BuiltinOps.h"
#include "llvm/Support/Error.h"

#include <vector>

namespace freeport::reference {

/// The bytecode of all kernels of `module`, or an error that names the op or type for which there is none. The same
/// module gives the same bytes.
llvm::Expected<std::vector<char>> serializeModule(mlir::ModuleOp module);

/// Success, or the reason why `function` has no bytecode.
llvm::Error checkFunction(kernel::FuncOp function);

} // namespace freeport::reference
