// rope, and the reading of heads.
#include "dialects/graph/ops/Heads.h"

using namespace mlir;
using freeport::kernel::Emit;

namespace freeport::graph {

void emitRmsNorm(Emit &e, int64_t size, APFloat epsilon, Value weight, function_ref<Value(Value group)> element,
                 function_ref<void(Value group, Value lanes)> write) {
  Value groups = e.index(blocksOf(size));
  Value squares = e.loop(e.index(0), groups, {e.zeroLanes()}, [&](Value group, ValueRange sums) {
    Value x = element(group);
    return SmallVector<Value>{e.add(sums[0], e.mul(x, x))};
  })[0];
  Value mean = e.div(e.reduce(kernel::ReduceKind::add, squares), e.f32(static_cast<float>(size)));
  Value inverse = e.div(e.f32(1), e.sqrt(e.add(mean, e.f32Bits(epsilon.bitcastToAPInt().getZExtValue()))));
  e.loop(e.index(0), groups, [&](Value group) {
    Value factor = e.loadLanes(weight, e.mul(group, e.index(32)), e.mask(group, size));
    write(group, e.mul(e.mul(element(group), inverse), factor));
  });
}

//===----------------------------------------------------------------------===//
// rope
//===----------------------------------------------------------------------===//

LogicalResult RopeOp::verify() {
  int64_t heads = getHeads();
  if (heads < 1 || width(getInput()) % heads) // rope_c1
    return emitOpError("expects a width that is a multiple of ") << heads << " heads, got " << width(getInput());
  ParameterOp frequencies = lookupParameter(*this, getFrequenciesAttr());
  if (!frequencies || frequencies.getShape().size() != 1)
    return emitOpError("expects the name of a graph.parameter of rank 1 for its frequencies");
  int64_t head = width(getInput()) / heads, last = getOffset() + 2 * frequencies.getShape()[0];
  if (int64_t(getOffset()) < 0 || last > head) // rope_c2
    return emitOpError("expects rotated elements inside a head of ")
           << head << ", got " << getOffset() << " to " << last;
  if (width(getResult()) != width(getInput())) // rope_c3
    return emitOpError("expects a result of width ") << width(getInput()) << ", got " << width(getResult());
  return success();
}

LogicalResult RopeOp::lower(LoweringContext &context) {
  if (isPartOfAttention(*this))
    return success();
  Heads heads(context, *this, getInput());
  int64_t count = getHeads(), size = width(getInput()) / count;
  View out = context.allocateRows(getResult(), heads.view().rows);
  SmallVector<Type> types = {context.i32Buffer(), context.f32Buffer()};
  SmallVector<Value> buffers = {context.input("positions"), out.buffer};
  heads.addArguments(context, types, buffers);
  auto function =
      context.kernel("heads_" + heads.name() + "_of_" + Twine(count), types, 0, [&](Emit &e, ValueRange arguments) {
        Value token = e.programId(kernel::Dimension::x), head = e.programId(kernel::Dimension::y);
        Value local = e.local(heads.localElements()), position = e.toIndex(e.load(arguments[0], token));
        heads.read(e, arguments, token, position, head, local);
        Value to = e.add(e.mul(token, e.index(out.pitch)), e.mul(head, e.index(size)));
        e.loop(e.index(0), e.index(blocksOf(size)), [&](Value group) {
          Value column = e.mul(group, e.index(32)), mask = e.mask(group, size);
          e.storeLanes(e.loadLanes(local, column, mask), arguments[1], e.add(to, column), mask);
        });
      });
  context.dispatch(function, {out.rows, context.constant(count)}, buffers, {},
                   Twine("rope ") + Twine(count) + "x" + Twine(size));
  return success();
}

//===----------------------------------------------------------------------===//
// Heads
//===----------------------------------------------------------------------===//

bool isPartOfAttention(Operation *op) {
  if (!op->hasOneUse())
    return false;
  auto norm = dyn_cast<RmsNormOp>(op);
  auto rope = dyn_cast<RopeOp>(op);
  const int64_t heads = norm ? norm.getHeads() : rope.getHeads();
  OpOperand &use = *op->use_begin();
  if (auto next = dyn_cast<RopeOp>(use.getOwner()); next && norm)
    return int64_t(next.getHeads()) == heads && isPartOfAttention(next);
  auto attention = dyn_cast<AttentionOp>(use.getOwner());
  if (!attention)
    return false;
  if (use.get() == attention.getKey())
    return int64_t(attention.getKeyValueHeads()) == heads;
  // Queries for keys of int8 are made activations first.
  return use.get() == attention.getQuery() && !attention.getKeyFormat() && int64_t(attention.getHeads()) == heads;
}

Heads::Heads(LoweringContext &context, RopeOp op, Value in) : rows(context.view(in)), size(rows.width / op.getHeads()) {
  setRope(op);
}

Heads::Heads(LoweringContext &context, Value operand, int64_t count) : size(width(operand) / count) {
  if (auto op = operand.getDefiningOp<RopeOp>(); op && isPartOfAttention(op)) {
    setRope(op);
    operand = op.getInput();
  }
  if (auto op = operand.getDefiningOp<RmsNormOp>(); op && isPartOfAttention(op)) {
    norm = op;
    operand = op.getInput();
  }
  rows = context.view(operand);
}

void Heads::setRope(RopeOp op) {
  rope = op;
  pairs = lookupParameter(op, op.getFrequenciesAttr()).getShape()[0];
}

std::string Heads::name() const {
  std::string name;
  llvm::raw_string_ostream stream(name);
  stream << size << "_from_" << rows.offset << "_" << rows.pitch;
  if (norm)
    stream << "_rms_norm_" << llvm::utohexstr(RmsNormOp(norm).getEpsilon().bitcastToAPInt().getZExtValue());
  if (RopeOp op = rope)
    stream << "_rope_" << stringifyRopePairs(op.getPairs()) << "_" << 2 * pairs << "_at_" << int64_t(op.getOffset())
           << "_factor_" << llvm::utohexstr(op.getFactor().bitcastToAPInt().getZExtValue());
  return name;
}

void Heads::addArguments(LoweringContext &context, SmallVectorImpl<Type> &types, SmallVectorImpl<Value> &buffers) {
  firstArgument = types.size();
  buffers.push_back(rows.buffer);
  if (norm)
    buffers.push_back(context.weights(norm.getWeightAttr()));
  if (rope)
    buffers.push_back(context.weights(rope.getFrequenciesAttr()));
  types.resize(buffers.size(), context.f32Buffer());
}

void Heads::read(Emit &e, ValueRange arguments, Value token, Value position, ArrayRef<Value> numbers,
                 ArrayRef<Value> locals) const {
  Value row = e.add(e.mul(token, e.index(rows.pitch)), e.index(rows.offset));
  for (auto [number, local] : llvm::zip_equal(numbers, locals)) {
    Value first = e.add(row, e.mul(number, e.index(size)));
    auto column = [&](Value group) { return e.mul(group, e.index(32)); };
    auto element = [&](Value group) {
      return e.flush(e.loadLanes(arguments[firstArgument], e.add(first, column(group)), e.mask(group, size)));
    };
    auto write = [&](Value group, Value lanes) { e.storeLanes(lanes, local, column(group), e.mask(group, size)); };
    if (norm)
      emitRmsNorm(e, size, RmsNormOp(norm).getEpsilon(), arguments[firstArgument + 1], element,
                  [&](Value group, Value lanes) { write(group, e.flush(lanes)); });
    else
      e.loop(e.index(0), e.index(blocksOf(size)), [&](Value group) { write(group, element(group)); });
  }
  if (rope)
    rotate(e, arguments[firstArgument + (norm ? 2 : 1)], e.toF32(e.toI32(position)), locals);
}

void Heads::rotate(Emit &e, Value frequencies, Value position, ArrayRef<Value> locals) const {
  RopeOp op = rope;
  const int64_t offset = op.getOffset();
  const bool interleaved = op.getPairs() == RopePairs::interleaved;
  const uint32_t factorBits = op.getFactor().bitcastToAPInt().getZExtValue();
  e.loop(e.index(0), e.index(blocksOf(pairs)), [&](Value group) {
    Value first = e.mul(group, e.index(32)), mask = e.mask(group, pairs);
    auto [sine, cosine] = e.sineCosine(e.mul(position, e.loadLanes(frequencies, first, mask)));
    if (factorBits != 0x3F800000) {
      cosine = e.mul(cosine, e.f32Bits(factorBits));
      sine = e.mul(sine, e.f32Bits(factorBits));
    }
    Value offsets = interleaved ? e.mul(e.laneId(), e.i32(2)) : Value();
    Value a = e.add(e.mul(first, e.index(interleaved ? 2 : 1)), e.index(offset));
    Value b = e.add(a, e.index(interleaved ? 1 : pairs));
    for (Value local : locals) {
      auto load = [&](Value base) {
        return interleaved ? e.gather(local, base, offsets, mask) : e.loadLanes(local, base, mask);
      };
      auto store = [&](Value value, Value base) {
        if (interleaved)
          e.scatter(e.flush(value), local, base, offsets, mask);
        else
          e.storeLanes(e.flush(value), local, base, mask);
      };
      Value x0 = load(a), x1 = load(b);
      store(e.sub(e.mul(x0, cosine), e.mul(x1, sine)), a);
      store(e.add(e.mul(x1, cosine), e.mul(x0, sine)), b);
    }
  });
}

} // namespace freeport::graph
