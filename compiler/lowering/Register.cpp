// One place names the dialects and the passes; each dialect and backend brings its own.
#include "compiler/lowering/Register.h"

#include "compiler/offload/Backend.h"
#include "dialects/kernel/Kernel.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Transforms/Passes.h"

namespace freeport {

void registerDialects(mlir::DialectRegistry &registry) {
  registry.insert<kernel::KernelDialect, mlir::arith::ArithDialect, mlir::func::FuncDialect, mlir::scf::SCFDialect,
                  mlir::vector::VectorDialect>();
}

void registerPasses() {
  mlir::registerTransformsPasses();
  registerBackendPasses();
}

} // namespace freeport
