// Puts a launch.barrier before every dispatch that touches memory which a dispatch since the last barrier writes, or
// that writes memory which one of them reads. Arena memory is compared by offset, everything else by name.
#include "dialects/launch/Launch.h"

#include "llvm/ADT/DenseSet.h"
#include "llvm/Support/Debug.h"

#define DEBUG_TYPE "freeport-launch-insert-barriers"

using namespace mlir;

namespace freeport::launch {
namespace {

/// What identifies a run of memory: two slots of the arena never overlap, and a slot's buffers share their offset.
Attribute identity(Value buffer) {
  Operation *op = buffer.getDefiningOp();
  if (auto arena = dyn_cast<ArenaOp>(op))
    return arena.getOffset();
  if (auto weights = dyn_cast<WeightsOp>(op))
    return weights.getParameterAttr();
  if (auto state = dyn_cast<StateMemoryOp>(op))
    return state.getStateAttr();
  if (auto input = dyn_cast<InputOp>(op))
    return input.getNameAttr();
  return cast<OutputOp>(op).getNameAttr();
}

struct InsertBarriers : PassWrapper<InsertBarriers, OperationPass<ModuleOp>> {
  MLIR_DEFINE_EXPLICIT_INTERNAL_INLINE_TYPE_ID(InsertBarriers)
  StringRef getArgument() const override { return DEBUG_TYPE; }
  StringRef getDescription() const override { return "Order dispatches that must not overlap"; }

  LogicalResult order(VariantOp variant) {
    DenseSet<Attribute> read, written;
    for (auto dispatch : llvm::make_early_inc_range(variant.getBody().getOps<DispatchOp>())) {
      auto writes = [&](int64_t number) { return llvm::is_contained(dispatch.getWrites(), number); };
      if (llvm::any_of(dispatch.getBuffers(), [](Value buffer) { return isa<AllocateOp>(buffer.getDefiningOp()); }))
        return dispatch.emitOpError("expects planned memory; run freeport-launch-plan-arena first");
      bool conflict = false;
      for (auto [number, buffer] : llvm::enumerate(dispatch.getBuffers())) {
        Attribute memory = identity(buffer);
        conflict |= written.contains(memory) || (writes(number) && read.contains(memory));
      }
      if (conflict) {
        LLVM_DEBUG(llvm::dbgs() << "barrier before @" << dispatch.getKernel() << "\n");
        OpBuilder(dispatch).create<BarrierOp>(dispatch.getLoc());
        read.clear();
        written.clear();
      }
      for (auto [number, buffer] : llvm::enumerate(dispatch.getBuffers()))
        (writes(number) ? written : read).insert(identity(buffer));
    }
    return success();
  }

  void runOnOperation() override {
    WalkResult walk = getOperation().walk(
        [&](VariantOp variant) { return failed(order(variant)) ? WalkResult::interrupt() : WalkResult::advance(); });
    if (walk.wasInterrupted())
      signalPassFailure();
  }
};

} // namespace

std::unique_ptr<Pass> createInsertBarriersPass() { return std::make_unique<InsertBarriers>(); }

} // namespace freeport::launch
