// math.exp, which `fast` numerics leaves to the target, becomes the portable definition: for targets that have no exp
// of their own.
#include "dialects/kernel/Emit.h"

using namespace mlir;

namespace freeport::kernel {

void expandMath(Operation *root) {
  root->walk([](math::ExpOp op) {
    OpBuilder builder(op);
    op.replaceAllUsesWith(Emit(builder, op.getLoc()).portableExp(op.getOperand()));
    op.erase();
  });
}

namespace {

struct ExpandMath : PassWrapper<ExpandMath, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(ExpandMath)
  StringRef getArgument() const override { return "freeport-kernel-expand-math"; }
  StringRef getDescription() const override { return "Replace math.exp by the portable definition"; }
  void runOnOperation() override { expandMath(getOperation()); }
};

} // namespace

std::unique_ptr<Pass> createExpandMathPass() { return std::make_unique<ExpandMath>(); }

} // namespace freeport::kernel
