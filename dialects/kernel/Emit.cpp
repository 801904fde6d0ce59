// The portable definitions, once, for every op that needs them. Constants stand as bits where a decimal would hide a
// rounding.
#include "dialects/kernel/Emit.h"

using namespace mlir;

namespace freeport::kernel {

static bool isFloat(Value value) { return isa<FloatType>(getElementTypeOrSelf(value.getType())); }
static Type like(Value value, Type element) {
  if (auto vector = dyn_cast<VectorType>(value.getType()))
    return vector.clone(element);
  return element;
}

Value Emit::index(int64_t value) { return builder.create<arith::ConstantIndexOp>(location, value); }
Value Emit::i32(int64_t value) { return builder.create<arith::ConstantIntOp>(location, value, 32); }
Value Emit::f32(float value) {
  return builder.create<arith::ConstantFloatOp>(location, APFloat(value), builder.getF32Type());
}
Value Emit::f32Bits(uint32_t bits) {
  return builder.create<arith::ConstantFloatOp>(location, APFloat(APFloat::IEEEsingle(), APInt(32, bits)),
                                                builder.getF32Type());
}

Value Emit::lanes(Value scalar) {
  if (isa<VectorType>(scalar.getType()))
    return scalar;
  auto type = VectorType::get({kQuantum}, scalar.getType());
  if (auto constant = scalar.getDefiningOp<arith::ConstantOp>())
    return builder.create<arith::ConstantOp>(location, DenseElementsAttr::get(type, constant.getValue()));
  return builder.create<vector::BroadcastOp>(location, type, scalar);
}

void Emit::match(Value &a, Value &b) {
  if (isa<VectorType>(a.getType()))
    b = lanes(b);
  else if (isa<VectorType>(b.getType()))
    a = lanes(a);
}

Value Emit::add(Value a, Value b) {
  match(a, b);
  if (isFloat(a))
    return builder.create<arith::AddFOp>(location, a, b);
  return builder.create<arith::AddIOp>(location, a, b);
}
Value Emit::sub(Value a, Value b) {
  match(a, b);
  if (isFloat(a))
    return builder.create<arith::SubFOp>(location, a, b);
  return builder.create<arith::SubIOp>(location, a, b);
}
Value Emit::mul(Value a, Value b) {
  match(a, b);
  if (isFloat(a))
    return builder.create<arith::MulFOp>(location, a, b);
  return builder.create<arith::MulIOp>(location, a, b);
}
Value Emit::div(Value a, Value b) {
  match(a, b);
  if (isFloat(a))
    return builder.create<arith::DivFOp>(location, a, b);
  return builder.create<arith::DivSIOp>(location, a, b);
}
Value Emit::ceilDiv(Value a, Value b) { return div(add(a, sub(b, index(1))), b); }
Value Emit::max(Value a, Value b) { return select(less(b, a), a, b); }
Value Emit::min(Value a, Value b) { return select(less(a, b), a, b); }
Value Emit::less(Value a, Value b) {
  match(a, b);
  if (isFloat(a))
    return builder.create<arith::CmpFOp>(location, arith::CmpFPredicate::OLT, a, b);
  return builder.create<arith::CmpIOp>(location, arith::CmpIPredicate::slt, a, b);
}
Value Emit::equal(Value a, Value b) {
  match(a, b);
  if (isFloat(a))
    return builder.create<arith::CmpFOp>(location, arith::CmpFPredicate::OEQ, a, b);
  return builder.create<arith::CmpIOp>(location, arith::CmpIPredicate::eq, a, b);
}
Value Emit::differs(Value a, Value b) {
  match(a, b);
  return builder.create<arith::CmpIOp>(location, arith::CmpIPredicate::ne, a, b);
}
Value Emit::either(Value a, Value b) {
  match(a, b);
  return builder.create<arith::OrIOp>(location, a, b);
}
Value Emit::both(Value a, Value b) {
  match(a, b);
  return builder.create<arith::AndIOp>(location, a, b);
}
Value Emit::select(Value condition, Value a, Value b) {
  match(a, b);
  if (isa<VectorType>(condition.getType())) {
    a = lanes(a);
    b = lanes(b);
  }
  return builder.create<arith::SelectOp>(location, condition, a, b);
}

Value Emit::toIndex(Value value) { return builder.create<arith::IndexCastOp>(location, builder.getIndexType(), value); }
Value Emit::toI32(Value value) {
  Type i32Type = builder.getI32Type();
  if (value.getType().isIndex())
    return builder.create<arith::IndexCastOp>(location, i32Type, value);
  return builder.create<arith::FPToSIOp>(location, like(value, i32Type), value);
}
Value Emit::toF32(Value value) {
  Type element = getElementTypeOrSelf(value.getType());
  if (element.isF32())
    return value;
  if (element.isF16())
    return builder.create<arith::ExtFOp>(location, like(value, builder.getF32Type()), value);
  return builder.create<arith::SIToFPOp>(location, like(value, builder.getF32Type()), value);
}
Value Emit::toElement(Value value, Type element) {
  if (element.isF32())
    return value;
  value = min(max(value, f32(-65504.0f)), f32(65504.0f));
  return builder.create<arith::TruncFOp>(location, like(value, element), value);
}
Value Emit::bitcast(Value value, Type element) {
  return builder.create<arith::BitcastOp>(location, like(value, element), value);
}

Value Emit::programId(Dimension dimension) {
  return builder.create<ProgramIdOp>(location, builder.getIndexType(), dimension);
}
Value Emit::laneId() { return builder.create<LaneIdOp>(location, VectorType::get({kQuantum}, builder.getI32Type())); }
static Type elementOf(Value buffer) { return cast<BufferType>(buffer.getType()).getElementType(); }
Value Emit::load(Value buffer, Value base) { return builder.create<LoadOp>(location, elementOf(buffer), buffer, base); }
Value Emit::loadLanes(Value buffer, Value base, Value mask) {
  return builder.create<LoadLanesOp>(location, VectorType::get({kQuantum}, elementOf(buffer)), buffer, base, mask);
}
Value Emit::gather(Value buffer, Value base, Value offsets, Value mask) {
  return builder.create<GatherOp>(location, VectorType::get({kQuantum}, elementOf(buffer)), buffer, base, offsets,
                                  mask);
}
void Emit::store(Value value, Value buffer, Value base) { builder.create<StoreOp>(location, value, buffer, base); }
void Emit::storeLanes(Value value, Value buffer, Value base, Value mask) {
  builder.create<StoreLanesOp>(location, value, buffer, base, mask);
}
void Emit::scatter(Value value, Value buffer, Value base, Value offsets, Value mask) {
  builder.create<ScatterOp>(location, value, buffer, base, offsets, mask);
}
Value Emit::local(int64_t elements) {
  return builder.create<LocalOp>(location, BufferType::get(builder.getContext(), builder.getF32Type()), elements);
}
Value Emit::reduce(ReduceKind kind, Value value) {
  return builder.create<ReduceOp>(location, getElementTypeOrSelf(value.getType()), kind, value);
}
Value Emit::broadcast(Value value, Value lane) {
  return builder.create<BroadcastOp>(location, getElementTypeOrSelf(value.getType()), value, lane);
}

Value Emit::mask(Value group, int64_t width) {
  if (width % kQuantum == 0)
    return {};
  Value element = add(laneId(), toI32(mul(group, index(kQuantum))));
  return less(element, i32(width));
}

SmallVector<Value> Emit::loop(Value lower, Value upper, ValueRange initial, LoopBody body) {
  auto op = builder.create<scf::ForOp>(location, lower, upper, index(1), initial);
  OpBuilder::InsertionGuard guard(builder);
  if (initial.empty())
    builder.setInsertionPoint(op.getBody()->getTerminator());
  else
    builder.setInsertionPointToEnd(op.getBody());
  SmallVector<Value> next = body(op.getInductionVar(), op.getRegionIterArgs());
  if (!initial.empty())
    builder.create<scf::YieldOp>(location, next);
  return SmallVector<Value>(op.getResults());
}
void Emit::loop(Value lower, Value upper, function_ref<void(Value)> body) {
  loop(lower, upper, {}, [&](Value i, ValueRange) -> SmallVector<Value> {
    body(i);
    return {};
  });
}
SmallVector<Value> Emit::branch(Value condition, TypeRange types, Branch then, Branch otherwise) {
  auto op = builder.create<scf::IfOp>(location, types, condition, /*withElseRegion=*/true);
  OpBuilder::InsertionGuard guard(builder);
  for (auto [region, emit] : {std::pair{&op.getThenRegion(), then}, std::pair{&op.getElseRegion(), otherwise}}) {
    Block &block = region->front();
    if (types.empty())
      builder.setInsertionPoint(block.getTerminator());
    else
      builder.setInsertionPointToEnd(&block);
    SmallVector<Value> values = emit();
    if (!types.empty())
      builder.create<scf::YieldOp>(location, values);
  }
  return SmallVector<Value>(op.getResults());
}
void Emit::when(Value condition, function_ref<void()> then) {
  auto op = builder.create<scf::IfOp>(location, condition, /*withElseRegion=*/false);
  OpBuilder::InsertionGuard guard(builder);
  builder.setInsertionPoint(op.thenBlock()->getTerminator());
  then();
}

Value Emit::flush(Value x) {
  Value magnitude = both(bitcast(x, builder.getI32Type()), i32(0x7FFFFFFF));
  return select(less(magnitude, i32(0x26800000)), f32(0), x); // 2^-50
}

Value Emit::round(Value x) {
  Value shift = f32(12582912.0f); // 1.5 * 2^23
  return sub(add(x, shift), shift);
}

Value Emit::exp(Value x) {
  x = min(max(x, f32(-87.0f)), f32(87.0f));
  if (nativeExp)
    return builder.create<math::ExpOp>(location, x);
  return portableExp(x);
}

Value Emit::portableExp(Value x) {
  Value n = round(mul(x, f32Bits(0x3FB8AA3B)));  // log2(e)
  Value r = sub(x, mul(n, f32Bits(0x3F318000))); // log(2), high part
  r = sub(r, mul(n, f32Bits(0xB95E8083)));       // log(2), low part
  Value p = f32Bits(0x39506967);
  for (uint32_t bits : {0x3AB743CEu, 0x3C088908u, 0x3D2AA9C1u, 0x3E2AAAAAu, 0x3F000000u, 0x3F800000u, 0x3F800000u})
    p = add(mul(p, r), f32Bits(bits));
  Value exponent =
      builder.create<arith::ShLIOp>(location, toI32(n), isa<VectorType>(n.getType()) ? lanes(i32(23)) : i32(23));
  return bitcast(add(bitcast(p, builder.getI32Type()), exponent), builder.getF32Type());
}

Value Emit::sigmoid(Value x) { return div(f32(1), add(f32(1), exp(negate(x)))); }
Value Emit::silu(Value x) { return div(x, add(f32(1), exp(negate(x)))); }
Value Emit::glu(Value gate, Value up) { return mul(flush(silu(gate)), flush(up)); }
Value Emit::sqrt(Value x) { return builder.create<SqrtOp>(location, x.getType(), x); }

std::pair<Value, Value> Emit::sineCosine(Value angle) {
  // pi/2 in pieces of 7 bits: n has at most 17 bits, so that every product and every difference below is exact.
  Value n = round(mul(angle, f32(0.636619772367581343f)));
  Value r = angle;
  double rest = 1.57079632679489661923;
  for (int piece = 0; piece < 6; ++piece) {
    double part = rest;
    if (piece < 5) {
      int exponent;
      double mantissa = std::frexp(rest, &exponent);
      part = std::ldexp(std::trunc(std::ldexp(mantissa, 7)), exponent - 7);
    }
    r = sub(r, mul(n, f32(static_cast<float>(part))));
    rest -= part;
  }
  Value z = mul(r, r);
  // Minimax polynomials on [-pi/4, pi/4] (Cephes, sinf.c).
  Value sine = add(mul(f32(-1.9515295891e-4f), z), f32(8.3321608736e-3f));
  sine = add(mul(sine, z), f32(-1.6666654611e-1f));
  sine = add(mul(mul(sine, z), r), r);
  Value cosine = add(mul(f32(2.443315711809948e-5f), z), f32(-1.388731625493765e-3f));
  cosine = add(mul(cosine, z), f32(4.166664568298827e-2f));
  cosine = mul(mul(cosine, z), z);
  cosine = add(sub(cosine, mul(z, f32(0.5f))), f32(1));
  Value quadrant = toI32(n);
  Value odd = equal(both(quadrant, i32(1)), i32(1));
  Value sineValue = select(odd, cosine, sine), cosineValue = select(odd, sine, cosine);
  Value sineNegative = equal(both(quadrant, i32(2)), i32(2));
  Value cosineNegative = equal(both(add(quadrant, i32(1)), i32(2)), i32(2));
  return {select(sineNegative, negate(sineValue), sineValue), select(cosineNegative, negate(cosineValue), cosineValue)};
}

Value Emit::spanDots(Value weights, Value entry, ValueRange blocks, Value activations, ValueRange records) {
  auto type = VectorType::get({int64_t(blocks.size()), int64_t(records.size()), kQuantum}, builder.getF32Type());
  Value zero = builder.create<arith::ConstantOp>(location, builder.getZeroAttr(type));
  Value spans = index(cast<WeightsType>(weights.getType()).getSpans());
  return loop(index(0), spans, {zero}, [&](Value span, ValueRange sums) {
    Value dot = builder.create<SpanDotOp>(location, type, weights, entry, blocks, span, activations, records);
    return SmallVector<Value>{add(sums[0], dot)};
  })[0];
}

Value Emit::lanesOf(Value dots, int64_t block, int64_t record) {
  return builder.create<vector::ExtractOp>(location, dots, ArrayRef<int64_t>{block, record});
}

Value Emit::greatestMagnitude(Value lanes) {
  Value magnitude = bitcast(both(bitcast(lanes, builder.getI32Type()), i32(0x7FFFFFFF)), builder.getF32Type());
  return reduce(ReduceKind::max, magnitude);
}

std::pair<Value, Value> Emit::quantizeQ8(Value value) {
  Value scale = toElement(div(greatestMagnitude(value), f32(127)), builder.getF16Type());
  Value step = toF32(scale);
  // A scale of 0 means values below 2^-18, which 1 divides to 0 as well.
  step = select(equal(step, f32(0)), f32(1), step);
  Value codes = toI32(round(min(max(div(value, step), f32(-127)), f32(127))));
  return {builder.create<arith::TruncIOp>(location, like(codes, builder.getI8Type()), codes), scale};
}

void Emit::storeGroup(Value value, Value activations, Value token, Value group) {
  if (!cast<ActivationsType>(activations.getType()).isQuantized()) {
    builder.create<StoreGroupOp>(location, flush(value), Value(), Value(), activations, token, group);
    return;
  }
  Value scale = max(mul(greatestMagnitude(value), f32Bits(0x3C010204)), f32Bits(0x19800000)); // 1/127; 2^-76
  Value quantized = round(mul(value, div(f32(1), scale)));
  quantized = toI32(min(max(quantized, f32(-127)), f32(127)));
  Value sum = reduce(ReduceKind::add, quantized);
  Value bytes = builder.create<arith::TruncIOp>(location, VectorType::get({kQuantum}, builder.getI8Type()), quantized);
  builder.create<StoreGroupOp>(location, bytes, scale, sum, activations, token, group);
}

} // namespace freeport::kernel
