// Arithmetic that Vulkan leaves open: division and square root may be off by some units in the last place there, so
// both are computed here, correctly rounded, out of products and sums (which Vulkan rounds correctly) and integers. An
// approximation within a few units is corrected by its exact integer remainder, which fits 32 bits although the
// products do not: they are taken modulo 2^32.
#include "backends/vulkan/compiler/Machine.h"

using namespace mlir;

namespace freeport::vulkan {

using IntegerPredicate = arith::CmpIPredicate;

static constexpr int64_t kHidden = 1 << 23, kMantissa = kHidden - 1;
static constexpr uint32_t kInfinity = 0x7F800000, kNotANumber = 0xFFC00000;

namespace {

/// A finite number other than zero: `mantissa * 2^(exponent - 150)`, 2^23 <= mantissa < 2^24.
struct Normal {
  Value mantissa, exponent;
};

/// Takes the sign-less bits of a number apart; subnormals become normal through an exact conversion.
Normal normalise(Machine &m, Value magnitude) {
  Value exponent = m.shiftRight(magnitude, m.i32(23)), mantissa = m.bitAnd(magnitude, m.i32(kMantissa));
  Value subnormal = m.equal(exponent, m.i32(0));
  Value converted = m.toBits(m.toFloat(mantissa));
  Value low = m.bitOr(m.bitAnd(converted, m.i32(kMantissa)), m.i32(kHidden));
  Value high = m.subtract(m.shiftRight(converted, m.i32(23)), m.i32(149));
  return {m.select(subnormal, low, m.bitOr(mantissa, m.i32(kHidden))), m.select(subnormal, high, exponent)};
}

/// A mantissa as a float in [1, 2).
Value unit(Machine &m, Value mantissa) {
  return m.fromBits(m.bitOr(m.bitAnd(mantissa, m.i32(kMantissa)), m.i32(0x3F800000)));
}

Value floor(Machine &m, Value quotient) { return m.truncate(quotient); }

} // namespace

Value Machine::divide(Value a, Value b) {
  return call("divide", f32Type(), {a, b}, [&](ValueRange arguments) -> Value {
    Machine &m = *this;
    Value aBits = m.toBits(arguments[0]), bBits = m.toBits(arguments[1]);
    Value sign = m.bitAnd(m.bitXor(aBits, bBits), m.i32(INT32_MIN));
    Value aMagnitude = m.bitAnd(aBits, m.i32(INT32_MAX)), bMagnitude = m.bitAnd(bBits, m.i32(INT32_MAX));
    Normal x = normalise(m, aMagnitude), y = normalise(m, bMagnitude);

    // The quotient is in [1, 2) once the dividend is doubled where it is the smaller one.
    Value smaller = m.less(x.mantissa, y.mantissa);
    Value dividend = m.select(smaller, m.shiftLeft(x.mantissa, m.i32(1)), x.mantissa);
    Value exponent = m.add(m.subtract(x.exponent, y.exponent), m.select(smaller, m.i32(126), m.i32(127)));

    // 1/y by Newton's method, from a line through the bits; the error squares each time, from 12 % on.
    Value divisor = unit(m, y.mantissa);
    Value reciprocal = m.fromBits(m.subtract(m.i32(0x7EF311C7), m.toBits(divisor)));
    for (int round = 0; round < 4; ++round)
      reciprocal = m.multiply(reciprocal, m.subtract(m.f32(2), m.multiply(divisor, reciprocal)));
    // The dividend has at most 25 bits, the last of which is zero then: it is exact as a float.
    Value scaled = m.multiply(m.toFloat(dividend), reciprocal); // about quotient * 2^23
    Value quotient = floor(m, scaled);
    // remainder = dividend * 2^23 - quotient * divisor
    Value shifted = m.shiftLeft(dividend, m.i32(23));
    auto remainderOf = [&](Value q) { return m.subtract(shifted, m.multiply(q, y.mantissa)); };
    Value off = m.multiply(m.toFloat(remainderOf(quotient)), m.multiply(reciprocal, m.f32(0x1p-23f)));
    quotient = m.add(quotient, floor(m, off));
    Value remainder = remainderOf(quotient);
    for (int step = 0; step < 2; ++step) {
      Value below = m.less(remainder, m.i32(0)), above = m.compare(IntegerPredicate::sge, remainder, y.mantissa);
      quotient = m.add(quotient, m.select(below, m.i32(-1), m.select(above, m.i32(1), m.i32(0))));
      Value change = m.select(below, y.mantissa, m.select(above, m.subtract(m.i32(0), y.mantissa), m.i32(0)));
      remainder = m.add(remainder, change);
    }

    // Two more bits: whether the rest is below, at or above a half, or zero.
    Value twice = m.shiftLeft(remainder, m.i32(1));
    Value rest = m.select(
        m.equal(remainder, m.i32(0)), m.i32(0),
        m.select(m.less(twice, y.mantissa), m.i32(1), m.select(m.equal(twice, y.mantissa), m.i32(2), m.i32(3))));
    Value extended = m.bitOr(m.shiftLeft(quotient, m.i32(2)), rest);
    // Subnormal results lose bits before they are rounded; what is lost counts as more than nothing.
    Value deficit = m.subtract(m.i32(1), exponent);
    Value isSubnormal = m.less(m.i32(0), deficit);
    Value shift = m.select(isSubnormal, m.select(m.less(deficit, m.i32(27)), deficit, m.i32(27)), m.i32(0));
    Value kept = m.shiftRight(extended, shift);
    Value lost = m.compare(IntegerPredicate::ne, m.shiftLeft(kept, shift), extended);
    extended = m.bitOr(kept, m.select(lost, m.i32(1), m.i32(0)));
    Value mantissa = m.shiftRight(extended, m.i32(2)), low = m.bitAnd(extended, m.i32(3));
    Value tieToOdd = m.bitAnd(m.shiftRight(low, m.i32(1)), m.bitOr(low, mantissa)); // above half, or half and odd
    mantissa = m.add(mantissa, m.bitAnd(tieToOdd, m.i32(1)));
    // Adding the mantissa carries into the exponent where it must; the hidden bit counts as one.
    Value biased = m.select(isSubnormal, m.i32(0), m.subtract(exponent, m.i32(1)));
    Value bits = m.add(m.shiftLeft(biased, m.i32(23)), mantissa);
    Value overflow = m.compare(IntegerPredicate::sge, exponent, m.i32(255));
    bits = m.select(m.create<arith::OrIOp>(overflow, m.compare(IntegerPredicate::sge, bits, m.i32(kInfinity))),
                    m.i32(kInfinity), bits);

    Value aZero = m.equal(aMagnitude, m.i32(0)), bZero = m.equal(bMagnitude, m.i32(0));
    Value aInfinite = m.equal(aMagnitude, m.i32(kInfinity)), bInfinite = m.equal(bMagnitude, m.i32(kInfinity));
    auto isNaN = [&](Value magnitude) { return m.less(m.i32(kInfinity), magnitude); };
    bits = m.select(m.bitOr(aZero, bInfinite), m.i32(0), bits);
    bits = m.select(m.bitOr(aInfinite, bZero), m.i32(kInfinity), bits);
    bits = m.bitOr(bits, sign);
    Value invalid = m.bitOr(m.bitAnd(aZero, bZero), m.bitAnd(aInfinite, bInfinite));
    invalid = m.bitOr(invalid, m.bitOr(isNaN(aMagnitude), isNaN(bMagnitude)));
    return m.fromBits(m.select(invalid, m.i32(kNotANumber), bits));
  });
}

Value Machine::squareRoot(Value a) {
  return call("square_root", f32Type(), {a}, [&](ValueRange arguments) -> Value {
    Machine &m = *this;
    Value bits = m.toBits(arguments[0]);
    Normal x = normalise(m, m.bitAnd(bits, m.i32(INT32_MAX)));
    // The mantissa is doubled where the exponent is odd: then root^2 = mantissa * 2^23 with 2^23 <= root < 2^24.
    Value exponent = m.subtract(x.exponent, m.i32(127));
    Value odd = m.bitAnd(exponent, m.i32(1));
    Value mantissa = m.shiftLeft(x.mantissa, odd);
    Value number = m.multiply(m.toFloat(mantissa), m.f32(0x1p-23f)); // exact, in [1, 4)
    Value half = m.multiply(number, m.f32(0.5f));
    Value inverse = m.fromBits(m.subtract(m.i32(0x5F3759DF), m.shiftRight(m.toBits(number), m.i32(1))));
    for (int round = 0; round < 4; ++round)
      inverse = m.multiply(inverse, m.subtract(m.f32(1.5f), m.multiply(m.multiply(half, inverse), inverse)));
    Value root = floor(m, m.multiply(m.multiply(number, inverse), m.f32(0x1p23f)));
    Value shifted = m.shiftLeft(mantissa, m.i32(23));
    auto remainderOf = [&](Value q) { return m.subtract(shifted, m.multiply(q, q)); };
    root = m.add(root, floor(m, m.multiply(m.toFloat(remainderOf(root)), m.multiply(inverse, m.f32(0x1p-24f)))));
    for (int step = 0; step < 2; ++step) {
      Value remainder = remainderOf(root);
      Value below = m.less(remainder, m.i32(0));
      Value above = m.less(m.shiftLeft(root, m.i32(1)), remainder);
      root = m.add(root, m.select(below, m.i32(-1), m.select(above, m.i32(1), m.i32(0))));
    }
    // (root + 1/2)^2 is no integer: there are no ties.
    Value up = m.less(root, remainderOf(root));
    root = m.add(root, m.select(up, m.i32(1), m.i32(0)));
    Value biased = m.add(m.shiftRightSigned(exponent, m.i32(1)), m.i32(126)); // the hidden bit counts as one
    Value result = m.add(m.shiftLeft(biased, m.i32(23)), root);
    Value special = m.bitOr(m.equal(m.bitAnd(bits, m.i32(INT32_MAX)), m.i32(0)), m.equal(bits, m.i32(kInfinity)));
    result = m.select(special, bits, result);
    Value invalid = m.less(m.i32(kInfinity), m.bitAnd(bits, m.i32(INT32_MAX)));
    invalid =
        m.bitOr(invalid, m.bitAnd(m.less(bits, m.i32(0)), m.compare(IntegerPredicate::ne, bits, m.i32(INT32_MIN))));
    return m.fromBits(m.select(invalid, m.i32(kNotANumber), result));
  });
}

Value Machine::halfToFloat(Value bits) {
  return call("half_to_float", f32Type(), {bits}, [&](ValueRange arguments) -> Value {
    Machine &m = *this;
    Value half = arguments[0], sign = m.shiftLeft(m.bitAnd(half, m.i32(0x8000)), m.i32(16));
    Value magnitude = m.bitAnd(half, m.i32(0x7FFF)), wide = m.shiftLeft(magnitude, m.i32(13));
    Value normal = m.add(wide, m.i32(112 << 23));
    Value special = m.add(wide, m.i32(224 << 23)); // infinities and NaNs
    Value subnormal = m.toBits(m.multiply(m.toFloat(magnitude), m.f32(0x1p-24f)));
    Value result = m.select(m.less(magnitude, m.i32(0x0400)), subnormal,
                            m.select(m.less(magnitude, m.i32(0x7C00)), normal, special));
    return m.fromBits(m.bitOr(result, sign));
  });
}

Value Machine::floatToHalf(Value f32) {
  return call("float_to_half", i32Type(), {f32}, [&](ValueRange arguments) -> Value {
    Machine &m = *this;
    Value bits = m.toBits(arguments[0]), sign = m.bitAnd(m.shiftRight(bits, m.i32(16)), m.i32(0x8000));
    Value magnitude = m.bitAnd(bits, m.i32(INT32_MAX));
    // Nearest even by adding just below a half, and one more where the kept part is odd.
    Value odd = m.bitAnd(m.shiftRight(magnitude, m.i32(13)), m.i32(1));
    Value normal = m.shiftRight(m.add(m.add(magnitude, m.i32(0xFFF)), odd), m.i32(13));
    normal = m.subtract(normal, m.i32(112 << 10));
    normal = m.select(m.less(m.i32(0x7C00), normal), m.i32(0x7C00), normal);
    // Below 2^-14 halves are multiples of 2^-24: adding 2^23 to that multiple rounds it. Far smaller ones are zero,
    // and are not multiplied, so that no subnormal arises.
    Value tiny = m.less(magnitude, m.i32(0x33000000)); // 2^-25
    Value multiple = m.multiply(m.fromBits(m.select(tiny, m.i32(0), magnitude)), m.f32(0x1p24f));
    Value subnormal = m.subtract(m.toBits(m.add(multiple, m.f32(0x1p23f))), m.i32(0x4B000000));
    Value half = m.select(m.less(magnitude, m.i32(0x38800000)), subnormal, normal); // 2^-14
    Value quiet = m.bitOr(m.bitAnd(m.shiftRight(magnitude, m.i32(13)), m.i32(0x3FF)), m.i32(0x7E00));
    half = m.select(m.less(m.i32(kInfinity), magnitude), quiet, half);
    return m.bitOr(half, sign);
  });
}

Value Machine::floatToInteger(Value f32) {
  Value magnitude = bitAnd(toBits(f32), i32(INT32_MAX));
  Value fits = less(magnitude, i32(0x4F000000)); // 2^31; NaNs are greater
  return select(fits, truncate(select(fits, f32, this->f32(0))), i32(INT32_MIN));
}

Value Machine::addZero(Value value) {
  Value bits = toBits(value);
  return fromBits(select(equal(bits, i32(INT32_MIN)), i32(0), bits));
}

Value Machine::dot4(Value a, bool unsignedA, Value b) {
  if (profile.integerDot) {
    auto packed = spirv::PackedVectorFormat::PackedVectorFormat4x8Bit;
    auto format = spirv::PackedVectorFormatAttr::get(builder.getContext(), packed);
    if (unsignedA) // the signed operand comes first
      return create<spirv::SUDotOp>(i32Type(), b, a, format);
    return create<spirv::SDotOp>(i32Type(), a, b, format);
  }
  Value sum;
  for (int byte = 0; byte < 4; ++byte) {
    Value left = shiftLeft(a, i32(24 - 8 * byte)), right = shiftLeft(b, i32(24 - 8 * byte));
    left = unsignedA ? shiftRight(left, i32(24)) : shiftRightSigned(left, i32(24));
    Value product = multiply(left, shiftRightSigned(right, i32(24)));
    sum = sum ? add(sum, product) : product;
  }
  return sum;
}

} // namespace freeport::vulkan
