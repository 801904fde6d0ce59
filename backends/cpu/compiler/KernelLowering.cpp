// The emitter of KernelLowering.h.
#include "backends/cpu/compiler/KernelLowering.h"

using namespace mlir;

namespace freeport::cpu {

Value Machine::i64(int64_t value) { return create<arith::ConstantIntOp>(value, 64); }
Value Machine::i32(int64_t value) { return create<arith::ConstantIntOp>(value, 32); }
Value Machine::toI64(Value index) { return create<arith::IndexCastOp>(builder.getI64Type(), index); }

static bool isFloat(Value value) { return isa<FloatType>(getElementTypeOrSelf(value.getType())); }
Value Machine::add(Value a, Value b) {
  if (isFloat(a))
    return create<arith::AddFOp>(a, b);
  return create<arith::AddIOp>(a, b);
}
Value Machine::multiply(Value a, Value b) {
  if (isFloat(a))
    return create<arith::MulFOp>(a, b);
  return create<arith::MulIOp>(a, b);
}

Value Machine::splat(Value scalar, int64_t count) {
  return create<vector::BroadcastOp>(lanes(count, scalar.getType()), scalar);
}
Value Machine::splatConstant(VectorType type, int64_t value) {
  return create<arith::ConstantOp>(
      DenseElementsAttr::get(type, IntegerAttr::get(type.getElementType(), value).getValue()));
}
Value Machine::zero(Type type) { return create<arith::ConstantOp>(builder.getZeroAttr(type)); }

Value Machine::address(Value pointer, Value bytes) {
  return create<LLVM::GEPOp>(pointer.getType(), builder.getI8Type(), pointer, ArrayRef<LLVM::GEPArg>{bytes});
}
Value Machine::address(Value pointer, int64_t bytes) {
  if (bytes == 0)
    return pointer;
  return create<LLVM::GEPOp>(pointer.getType(), builder.getI8Type(), pointer,
                             ArrayRef<LLVM::GEPArg>{static_cast<int32_t>(bytes)});
}
Value Machine::element(Value pointer, Type type, Value index) {
  return create<LLVM::GEPOp>(pointer.getType(), type, pointer, ArrayRef<LLVM::GEPArg>{toI64(index)});
}

static unsigned alignmentOf(Type type) {
  Type element = getElementTypeOrSelf(type);
  return element.isIntOrFloat() ? element.getIntOrFloatBitWidth() / 8 : 8;
}
Value Machine::load(Type type, Value pointer) { return create<LLVM::LoadOp>(type, pointer, alignmentOf(type)); }
void Machine::store(Value value, Value pointer) { create<LLVM::StoreOp>(value, pointer, alignmentOf(value.getType())); }

Value Machine::stack(int64_t bytes) {
  OpBuilder::InsertionGuard guard(builder);
  Region *body = builder.getInsertionBlock()->getParent();
  while (!isa<FunctionOpInterface>(body->getParentOp()))
    body = body->getParentOp()->getParentRegion();
  builder.setInsertionPointToStart(&body->front());
  return create<LLVM::AllocaOp>(LLVM::LLVMPointerType::get(builder.getContext()), builder.getI8Type(), i64(bytes), 64);
}

Value Machine::shuffle(Value a, Value b, ArrayRef<int64_t> mask) { return create<vector::ShuffleOp>(a, b, mask); }
Value Machine::slice(Value vector, int64_t first, int64_t count) {
  return shuffle(vector, vector, llvm::to_vector(llvm::seq(first, first + count)));
}
Value Machine::concatenate(ArrayRef<Value> vectors) {
  if (vectors.size() == 1)
    return vectors[0];
  Value a = concatenate(vectors.take_front(vectors.size() / 2)),
        b = concatenate(vectors.drop_front(vectors.size() / 2));
  return shuffle(a, b, llvm::to_vector(llvm::seq<int64_t>(0, 2 * cast<VectorType>(a.getType()).getNumElements())));
}
Value Machine::bitcast(Value value, Type type) { return create<LLVM::BitcastOp>(type, value); }
Value Machine::widen(Value value) {
  if (getElementTypeOrSelf(value.getType()).isF32())
    return value;
  Type type = f32();
  if (auto vector = dyn_cast<VectorType>(value.getType()))
    type = vector.clone(type);
  return create<arith::ExtFOp>(type, value);
}
Value Machine::intrinsic(StringRef name, Type result, ValueRange operands) {
  return create<LLVM::CallIntrinsicOp>(result, builder.getStringAttr(name), operands,
                                       LLVM::FastmathFlagsAttr::get(builder.getContext(), {}))
      .getResults();
}

SmallVector<Value> Machine::choose(Value condition, Branch yes, Branch no) {
  auto op = create<scf::IfOp>(
      condition, [&](OpBuilder &, Location) { create<scf::YieldOp>(yes()); },
      [&](OpBuilder &, Location) { create<scf::YieldOp>(no()); });
  return SmallVector<Value>(op.getResults());
}

Value Machine::globalAddress(StringRef name, int64_t initial) {
  auto module = builder.getInsertionBlock()->getParentOp()->getParentOfType<ModuleOp>();
  if (!module.lookupSymbol(name)) {
    OpBuilder::InsertionGuard guard(builder);
    builder.setInsertionPointToStart(module.getBody());
    create<LLVM::GlobalOp>(builder.getI64Type(), /*isConstant=*/false, LLVM::Linkage::Weak, name,
                           builder.getI64IntegerAttr(initial));
  }
  return create<LLVM::AddressOfOp>(LLVM::LLVMPointerType::get(builder.getContext()), name);
}

SmallVector<Value> Machine::loop(Value first, Value last, int64_t step, ValueRange initial, LoopBody body) {
  auto op = create<scf::ForOp>(first, last, i64(step), initial);
  OpBuilder::InsertionGuard guard(builder);
  if (initial.empty())
    builder.setInsertionPoint(op.getBody()->getTerminator());
  else
    builder.setInsertionPointToEnd(op.getBody());
  SmallVector<Value> next = body(op.getInductionVar(), op.getRegionIterArgs());
  if (!initial.empty())
    create<scf::YieldOp>(next);
  return SmallVector<Value>(op.getResults());
}

} // namespace freeport::cpu
