// Elementwise ops of a kernel. Integers are kept sign-extended in 32 bits, an f16 as its bits; what Vulkan rounds as it
// likes is in Numerics.cpp.
#include "backends/vulkan/compiler/KernelLowering.h"

#include "mlir/IR/Matchers.h"
#include "llvm/ADT/TypeSwitch.h"

using namespace mlir;

namespace freeport::vulkan {

using namespace kernel;

Value KernelLowering::compareFloats(arith::CmpFPredicate predicate, Value a, Value b) {
  using Predicate = arith::CmpFPredicate;
  auto ordered = [&] { return m.bitAnd(m.compare(Predicate::OEQ, a, a), m.compare(Predicate::OEQ, b, b)); };
  auto negate = [&](Value truth) { return m.bitXor(truth, m.truth(true)); };
  switch (predicate) {
  case Predicate::AlwaysTrue:
    return m.truth(true);
  case Predicate::AlwaysFalse:
    return m.truth(false);
  case Predicate::ORD:
    return ordered();
  case Predicate::UNO:
    return negate(ordered());
  case Predicate::ONE:
    return m.bitOr(m.compare(Predicate::OLT, a, b), m.compare(Predicate::OGT, a, b));
  case Predicate::UEQ:
    return negate(m.bitOr(m.compare(Predicate::OLT, a, b), m.compare(Predicate::OGT, a, b)));
  case Predicate::UNE:
    return negate(m.compare(Predicate::OEQ, a, b));
  case Predicate::ULT:
    return negate(m.compare(Predicate::OGE, a, b));
  case Predicate::ULE:
    return negate(m.compare(Predicate::OGT, a, b));
  case Predicate::UGT:
    return negate(m.compare(Predicate::OLE, a, b));
  case Predicate::UGE:
    return negate(m.compare(Predicate::OLT, a, b));
  default:
    return m.compare(predicate, a, b);
  }
}

/// An op on integers, sign-extended to 32 bits.
Value KernelLowering::integer(Operation &op, Type element, ArrayRef<Value> v) {
  Type type = element.isInteger(1) ? element : m.i32Type();
  auto same = [&](auto typed) -> Value { return m.create<decltype(typed)>(type, v); };
  auto whole = [&](auto typed) { return normalise(same(typed), element); };
  return TypeSwitch<Operation *, Value>(&op)
      .Case<arith::AddIOp, arith::SubIOp, arith::MulIOp, arith::ShLIOp, arith::DivSIOp>(whole)
      .Case<arith::AndIOp, arith::OrIOp, arith::XOrIOp, arith::RemSIOp, arith::ShRSIOp>(same)
      .Case<arith::ShRUIOp>([&](auto) { return normalise(m.shiftRight(asUnsigned(v[0], element), v[1]), element); })
      .Case<arith::CeilDivSIOp>([&](auto) {
        Value quotient = m.create<arith::DivSIOp>(v[0], v[1]);
        Value rest = m.subtract(v[0], m.multiply(quotient, v[1]));
        Value sameSign = m.compare(arith::CmpIPredicate::sge, m.bitXor(v[0], v[1]), m.i32(0));
        Value up = m.bitAnd(sameSign, m.compare(arith::CmpIPredicate::ne, rest, m.i32(0)));
        return normalise(m.add(quotient, m.select(up, m.i32(1), m.i32(0))), element);
      })
      .Case<arith::MinSIOp>([&](auto) { return m.select(m.less(v[0], v[1]), v[0], v[1]); })
      .Case<arith::MaxSIOp>([&](auto) { return m.select(m.less(v[1], v[0]), v[0], v[1]); })
      .Case<arith::CmpIOp>([&](arith::CmpIOp compare) -> Value {
        bool isUnsigned = compare.getPredicate() >= arith::CmpIPredicate::ult;
        Value a = isUnsigned ? asUnsigned(v[0], element) : v[0], b = isUnsigned ? asUnsigned(v[1], element) : v[1];
        if (element.isInteger(1)) { // as 0 and 1, or 0 and -1 where signs count
          Value one = m.i32(isUnsigned ? 1 : -1);
          a = m.select(a, one, m.i32(0));
          b = m.select(b, one, m.i32(0));
        }
        return m.compare(compare.getPredicate(), a, b);
      })
      .Default([](Operation *) { return Value(); });
}

Value KernelLowering::floating(Operation &op, ArrayRef<Value> v) {
  return TypeSwitch<Operation *, Value>(&op)
      .Case<arith::AddFOp>([&](arith::AddFOp add) {
        if (matchPattern(add.getRhs(), m_PosZeroFloat()))
          return m.addZero(v[0]);
        return matchPattern(add.getLhs(), m_PosZeroFloat()) ? m.addZero(v[1]) : m.add(v[0], v[1]);
      })
      .Case<arith::SubFOp>([&](arith::SubFOp subtract) {
        return matchPattern(subtract.getLhs(), m_PosZeroFloat()) ? m.addZero(m.negate(v[1])) : m.subtract(v[0], v[1]);
      })
      .Case<arith::MulFOp>([&](auto) { return m.multiply(v[0], v[1]); })
      .Case<arith::DivFOp>([&](auto) { return m.divide(v[0], v[1]); })
      .Case<arith::NegFOp>([&](auto) { return m.negate(v[0]); })
      .Case<SqrtOp>([&](auto) { return m.squareRoot(v[0]); })
      .Case<math::ExpOp>([&](auto) { return m.create<spirv::GLExpOp>(v[0]); })
      .Case<arith::CmpFOp>([&](arith::CmpFOp compare) { return compareFloats(compare.getPredicate(), v[0], v[1]); })
      .Default([](Operation *) { return Value(); });
}

Value KernelLowering::convert(Operation &op, Type from, Type to, Value value) {
  auto toInteger = [&](Value number) -> Value {
    if (to.isInteger(1))
      return m.compare(arith::CmpIPredicate::ne, m.bitAnd(number, m.i32(1)), m.i32(0));
    return normalise(number, to);
  };
  auto truthAs = [&](int64_t one) { return m.select(value, m.i32(one), m.i32(0)); };
  bool truth = from.isInteger(1);
  return TypeSwitch<Operation *, Value>(&op)
      .Case<arith::IndexCastOp, arith::TruncIOp, arith::ExtSIOp>(
          [&](auto) { return truth ? truthAs(-1) : toInteger(value); })
      .Case<arith::ExtUIOp>([&](auto) { return truth ? truthAs(1) : asUnsigned(value, from); })
      .Case<arith::SIToFPOp>([&](auto) { return to.isF32() ? m.toFloat(truth ? truthAs(-1) : value) : Value(); })
      .Case<arith::FPToSIOp>([&](auto) { return from.isF32() ? toInteger(m.floatToInteger(value)) : Value(); })
      .Case<arith::ExtFOp>([&](auto) { return from.isF16() && to.isF32() ? m.halfToFloat(value) : Value(); })
      .Case<arith::TruncFOp>([&](auto) { return from.isF32() && to.isF16() ? m.floatToHalf(value) : Value(); })
      .Case<arith::BitcastOp>([&](auto) -> Value {
        if (from == to)
          return value;
        if (from.isF32())
          return m.toBits(value);
        if (to.isF32())
          return m.fromBits(value);
        return to.isF16() ? m.bitAnd(value, m.i32(0xFFFF)) : normalise(value, to);
      })
      .Default([](Operation *) { return Value(); });
}

bool KernelLowering::lowerArithmetic(Operation &op) {
  if (op.getNumResults() != 1)
    return false;
  Value result = op.getResult(0);
  unsigned count = countOf(result.getType());
  SmallVector<SmallVector<Value>> operands;
  for (Value operand : op.getOperands())
    operands.push_back(values(operand));
  SmallVector<Value> lowered;
  Type from = op.getNumOperands() ? getElementTypeOrSelf(op.getOperand(0).getType()) : Type();
  Type to = getElementTypeOrSelf(result.getType());
  for (unsigned number = 0; number < count; ++number) {
    SmallVector<Value> v;
    for (SmallVector<Value> &operand : operands)
      v.push_back(operand[number % operand.size()]);
    Value value;
    if (isa<arith::SelectOp>(op))
      value = m.select(v[0], v[1], v[2]);
    else if (op.getNumOperands() == 1 && !isa<arith::NegFOp, SqrtOp, math::ExpOp>(op))
      value = convert(op, from, to, v[0]);
    else if (from.isF32())
      value = floating(op, v);
    else if (from.isIntOrIndex())
      value = integer(op, from, v);
    if (!value)
      return false;
    lowered.push_back(value);
  }
  known[result] = lowered;
  return true;
}

} // namespace freeport::vulkan
