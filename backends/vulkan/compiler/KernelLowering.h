// One kernel on its way to one invocation for each lane: what each of its values and memories became. KernelToLanes.cpp
// drives; Arithmetic.cpp, Accesses.cpp and Lanes.cpp lower the ops of one kind each, ParallelSpans.cpp loops over
// spans.
#pragma once

#include "backends/vulkan/compiler/Machine.h"

#include "mlir/Dialect/Vector/IR/VectorOps.h"

namespace freeport::vulkan {

/// Scratch words that ops which exchange lanes use.
constexpr int64_t kScratchWords = 2 * kernel::kQuantum;

inline int64_t widthOf(mlir::Type element) { return element.isIndex() ? 32 : element.getIntOrFloatBitWidth(); }
inline bool isSmallInteger(mlir::Type element) {
  return element.isInteger() && widthOf(element) < 32 && !element.isInteger(1);
}

class KernelLowering {
public:
  KernelLowering(kernel::FuncOp function, mlir::ModuleOp target, const Profile &profile)
      : function(function), target(target), builder(target.getContext()),
        m(target, builder, function.getLoc(), profile) {}

  mlir::LogicalResult run();

private:
  mlir::LogicalResult layOut();
  void lowerBlock(mlir::Block &block);
  void lower(mlir::Operation &op);
  void lowerFor(mlir::scf::ForOp op);
  void lowerIf(mlir::scf::IfOp op);
  /// Waves of 32 invocations that do a program together: more than one where rows are few and the kernel allows it.
  int64_t parallelWaves();
  int64_t parallelSpanWords();
  bool lowerParallelSpans(mlir::scf::ForOp op);
  void lowerConstant(mlir::arith::ConstantOp op);
  bool lowerShape(mlir::Operation &op);
  bool lowerArithmetic(mlir::Operation &op);
  bool lowerMemory(mlir::Operation &op);
  bool lowerLanes(mlir::Operation &op);

  llvm::SmallVector<mlir::Value> &values(mlir::Value value) { return known[value]; }
  mlir::Value scalar(mlir::Value value) { return known[value].front(); }
  void set(mlir::Value result, mlir::Value value) { known[result] = {value}; }
  /// What a loop carries into its first iteration.
  llvm::SmallVector<mlir::Value> startOf(mlir::Value initial);
  unsigned countOf(mlir::Type type) {
    auto vector = mlir::dyn_cast<mlir::VectorType>(type);
    return vector ? vector.getNumElements() / kernel::kQuantum : 1;
  }

  // Integers are kept sign-extended in 32 bits, an f16 as its bits.
  mlir::Type heldAs(mlir::Type type) {
    mlir::Type element = mlir::getElementTypeOrSelf(type);
    return element.isF32() || element.isInteger(1) ? element : m.i32Type();
  }
  mlir::Value normalise(mlir::Value value, mlir::Type element) {
    return isSmallInteger(element) ? m.signExtend(value, widthOf(element)) : value;
  }
  mlir::Value asUnsigned(mlir::Value value, mlir::Type element) {
    return isSmallInteger(element) ? m.bitAnd(value, m.i32((int64_t(1) << widthOf(element)) - 1)) : value;
  }
  mlir::Value integer(mlir::Operation &op, mlir::Type element, llvm::ArrayRef<mlir::Value> operands);
  mlir::Value floating(mlir::Operation &op, llvm::ArrayRef<mlir::Value> operands);
  mlir::Value convert(mlir::Operation &op, mlir::Type from, mlir::Type to, mlir::Value value);
  mlir::Value compareFloats(mlir::arith::CmpFPredicate predicate, mlir::Value a, mlir::Value b);

  mlir::Value loadElement(mlir::Value buffer, mlir::Value index, mlir::Value mask = {});
  void storeElement(mlir::Value value, mlir::Value buffer, mlir::Value index);
  mlir::Value byteOf(mlir::Value buffer, mlir::Value index);
  mlir::Value loadRaw(const Memory &memory, mlir::Type element, mlir::Value bytes);

  // Lanes meet in shared memory, or in their subgroup.
  bool sharesLanes(mlir::Operation *op) {
    return m.profile.subgroup != kernel::kQuantum &&
           mlir::isa<kernel::ReduceOp, kernel::ArgmaxOp, kernel::ScanOp, kernel::BroadcastOp>(op);
  }
  mlir::Value scratchAt(mlir::Value word) { return m.shiftLeft(word, m.i32(2)); }
  void publish(llvm::ArrayRef<mlir::Value> words);
  mlir::Value published(int64_t slot, mlir::Value lane);
  mlir::Value shuffle(mlir::Value value, int64_t distance);
  using Combine =
      llvm::function_ref<llvm::SmallVector<mlir::Value>(llvm::ArrayRef<mlir::Value>, llvm::ArrayRef<mlir::Value>)>;
  llvm::SmallVector<mlir::Value> tree(llvm::ArrayRef<mlir::Value> lanes, Combine combine);
  mlir::Value combine(kernel::ReduceKind kind, mlir::Value a, mlir::Value b);

  kernel::FuncOp function;
  mlir::ModuleOp target;
  mlir::OpBuilder builder;
  Machine m;
  llvm::DenseMap<mlir::Value, llvm::SmallVector<mlir::Value>> known;
  llvm::DenseMap<mlir::Value, Memory> memories;
  llvm::DenseMap<mlir::Value, PackedWeights> weights;
  llvm::DenseMap<mlir::Value, kernel::StageOp> virtualStages;
  Memory scratch, spanSums, matrices;
  int64_t waves = 1;
  llvm::DenseSet<mlir::Operation *> barriers;
  bool supported = true;
};

} // namespace freeport::vulkan
