// Elementwise instructions: one loop per opcode and element type over the elements of a register. Plain C++ arithmetic
// in the width of the type; what C++ leaves undefined is given the value that bytecode.fbs states.
#include "backends/reference/runtime/half.h"
#include "backends/reference/runtime/program.h"

#include <cmath>
#include <limits>
#include <type_traits>

namespace freeport::reference {
namespace {

using bytecode::ElementType;
using bytecode::Opcode;

/// Integers of `Bits` bits kept in a Storage and computed on in a Wide.
template <typename StorageType, typename WideType, int BitCount> struct Integer {
  using Storage = StorageType;
  using Wide = WideType;
  using Unsigned = std::make_unsigned_t<Wide>;
  static constexpr int bits = BitCount;
  static constexpr Unsigned mask = BitCount == std::numeric_limits<Unsigned>::digits
                                       ? ~Unsigned(0)
                                       : (Unsigned(1) << (BitCount % 64 % (sizeof(Wide) * 8))) - 1;
  static Wide widen(Storage value) {
    if constexpr (bits == 1)
      return -static_cast<Wide>(value & 1);
    else
      return static_cast<Wide>(static_cast<std::make_signed_t<Storage>>(value));
  }
  static Unsigned widen_unsigned(Storage value) { return static_cast<Unsigned>(value) & mask; }
  static Storage narrow(Unsigned value) { return static_cast<Storage>(value & mask); }
};
using I1 = Integer<uint8_t, int32_t, 1>;
using I8 = Integer<uint8_t, int32_t, 8>;
using I16 = Integer<uint16_t, int32_t, 16>;
using I32 = Integer<uint32_t, int32_t, 32>;
using I64 = Integer<uint64_t, int64_t, 64>;

/// Calls `make` with a value of the Integer for `element`; null for floats.
template <typename Make> Handler for_integer(ElementType element, Make make) {
  switch (element) {
  case ElementType::i1:
    return make(I1());
  case ElementType::i8:
    return make(I8());
  case ElementType::i16:
    return make(I16());
  case ElementType::i32:
    return make(I32());
  case ElementType::i64:
    return make(I64());
  default:
    return nullptr;
  }
}

//===-- Integers
//----------------------------------------------------------------------------------------------------===//

template <Opcode opcode, typename T> typename T::Unsigned combine(typename T::Storage x, typename T::Storage y) {
  using Wide = typename T::Wide;
  using Unsigned = typename T::Unsigned;
  Wide a = T::widen(x), b = T::widen(y);
  Unsigned ua = static_cast<Unsigned>(a), ub = static_cast<Unsigned>(b);
  if constexpr (opcode == Opcode::add_integer)
    return ua + ub;
  if constexpr (opcode == Opcode::subtract_integer)
    return ua - ub;
  if constexpr (opcode == Opcode::multiply_integer)
    return ua * ub;
  if constexpr (opcode == Opcode::divide_signed || opcode == Opcode::ceil_divide_signed ||
                opcode == Opcode::remainder_signed) {
    if (b == 0)
      return 0;
    if (b == -1) // the least integer has no negative of its width
      return opcode == Opcode::remainder_signed ? 0 : Unsigned(0) - ua;
    if constexpr (opcode == Opcode::divide_signed)
      return static_cast<Unsigned>(a / b);
    if constexpr (opcode == Opcode::remainder_signed)
      return static_cast<Unsigned>(a % b);
    return static_cast<Unsigned>(a / b + (a % b != 0 && (a < 0) == (b < 0)));
  }
  if constexpr (opcode == Opcode::bitwise_and)
    return ua & ub;
  if constexpr (opcode == Opcode::bitwise_or)
    return ua | ub;
  if constexpr (opcode == Opcode::bitwise_xor)
    return ua ^ ub;
  if constexpr (opcode == Opcode::shift_left || opcode == Opcode::shift_right_unsigned ||
                opcode == Opcode::shift_right_signed) {
    Unsigned amount = T::widen_unsigned(y);
    bool whole = amount >= static_cast<Unsigned>(T::bits);
    if constexpr (opcode == Opcode::shift_left)
      return whole ? 0 : ua << amount;
    if constexpr (opcode == Opcode::shift_right_unsigned)
      return whole ? 0 : T::widen_unsigned(x) >> amount;
    return static_cast<Unsigned>(a >> (whole ? T::bits - 1 : amount));
  }
  if constexpr (opcode == Opcode::minimum_signed)
    return a < b ? ua : ub;
  if constexpr (opcode == Opcode::maximum_signed)
    return a > b ? ua : ub;
}

template <Opcode opcode, typename T> void binary_integer(const Step &step, Frame &frame) {
  auto *result = frame.at<typename T::Storage>(step.result);
  const auto *a = frame.at<typename T::Storage>(step.operands[0]);
  const auto *b = frame.at<typename T::Storage>(step.operands[1]);
  for (uint32_t i = 0; i < step.count; ++i)
    result[i] = T::narrow(combine<opcode, T>(a[i], b[i]));
}

template <Opcode opcode> Handler binary_integer_handler(ElementType element) {
  return for_integer(element, [](auto type) -> Handler { return binary_integer<opcode, decltype(type)>; });
}

template <typename T> void compare_integer(const Step &step, Frame &frame) {
  auto *result = frame.at<uint8_t>(step.result);
  const auto *a = frame.at<typename T::Storage>(step.operands[0]);
  const auto *b = frame.at<typename T::Storage>(step.operands[1]);
  auto each = [&](auto holds) {
    for (uint32_t i = 0; i < step.count; ++i)
      result[i] = holds(a[i], b[i]);
  };
  using S = typename T::Storage;
  switch (step.detail) {
  case 0:
    return each([](S x, S y) { return T::widen(x) == T::widen(y); });
  case 1:
    return each([](S x, S y) { return T::widen(x) != T::widen(y); });
  case 2:
    return each([](S x, S y) { return T::widen(x) < T::widen(y); });
  case 3:
    return each([](S x, S y) { return T::widen(x) <= T::widen(y); });
  case 4:
    return each([](S x, S y) { return T::widen(x) > T::widen(y); });
  case 5:
    return each([](S x, S y) { return T::widen(x) >= T::widen(y); });
  case 6:
    return each([](S x, S y) { return T::widen_unsigned(x) < T::widen_unsigned(y); });
  case 7:
    return each([](S x, S y) { return T::widen_unsigned(x) <= T::widen_unsigned(y); });
  case 8:
    return each([](S x, S y) { return T::widen_unsigned(x) > T::widen_unsigned(y); });
  default:
    return each([](S x, S y) { return T::widen_unsigned(x) >= T::widen_unsigned(y); });
  }
}

//===-- Floats
//------------------------------------------------------------------------------------------------------===//

template <Opcode opcode> void binary_float(const Step &step, Frame &frame) {
  auto *result = frame.at<float>(step.result);
  const auto *a = frame.at<float>(step.operands[0]), *b = frame.at<float>(step.operands[1]);
  for (uint32_t i = 0; i < step.count; ++i) {
    if constexpr (opcode == Opcode::add_float)
      result[i] = a[i] + b[i];
    if constexpr (opcode == Opcode::subtract_float)
      result[i] = a[i] - b[i];
    if constexpr (opcode == Opcode::multiply_float)
      result[i] = a[i] * b[i];
    if constexpr (opcode == Opcode::divide_float)
      result[i] = a[i] / b[i];
  }
}

void negate_float(const Step &step, Frame &frame) {
  auto *result = frame.at<uint32_t>(step.result);
  const auto *a = frame.at<uint32_t>(step.operands[0]);
  for (uint32_t i = 0; i < step.count; ++i)
    result[i] = a[i] ^ 0x80000000;
}

void square_root(const Step &step, Frame &frame) {
  auto *result = frame.at<float>(step.result);
  const auto *a = frame.at<float>(step.operands[0]);
  for (uint32_t i = 0; i < step.count; ++i)
    result[i] = std::sqrt(a[i]);
}

void compare_float(const Step &step, Frame &frame) {
  auto *result = frame.at<uint8_t>(step.result);
  const auto *a = frame.at<float>(step.operands[0]), *b = frame.at<float>(step.operands[1]);
  for (uint32_t i = 0; i < step.count; ++i) {
    uint32_t relation = a[i] == b[i] ? 1 : a[i] > b[i] ? 2 : a[i] < b[i] ? 4 : 8;
    result[i] = (step.detail & relation) != 0;
  }
}

//===-- Conversions and selection
//-----------------------------------------------------------------------------------===//

template <typename T> void signed_to_float(const Step &step, Frame &frame) {
  auto *result = frame.at<float>(step.result);
  const auto *a = frame.at<typename T::Storage>(step.operands[0]);
  for (uint32_t i = 0; i < step.count; ++i)
    result[i] = static_cast<float>(T::widen(a[i]));
}

template <typename T> void float_to_signed(const Step &step, Frame &frame) {
  using Wide = typename T::Wide;
  constexpr float limit = sizeof(Wide) == 8 ? 0x1p63f : 0x1p31f;
  auto *result = frame.at<typename T::Storage>(step.result);
  const auto *a = frame.at<float>(step.operands[0]);
  for (uint32_t i = 0; i < step.count; ++i) {
    Wide value = a[i] >= -limit && a[i] < limit ? static_cast<Wide>(a[i]) : std::numeric_limits<Wide>::min();
    result[i] = T::narrow(static_cast<typename T::Unsigned>(value));
  }
}

void extend_float(const Step &step, Frame &frame) {
  auto *result = frame.at<float>(step.result);
  const auto *a = frame.at<uint16_t>(step.operands[0]);
  for (uint32_t i = 0; i < step.count; ++i)
    result[i] = from_half(a[i]);
}

void truncate_float(const Step &step, Frame &frame) {
  auto *result = frame.at<uint16_t>(step.result);
  const auto *a = frame.at<float>(step.operands[0]);
  for (uint32_t i = 0; i < step.count; ++i)
    result[i] = to_half(a[i]);
}

template <typename From, typename To, bool sign> void resize(const Step &step, Frame &frame) {
  auto *result = frame.at<typename To::Storage>(step.result);
  const auto *a = frame.at<typename From::Storage>(step.operands[0]);
  for (uint32_t i = 0; i < step.count; ++i) {
    if constexpr (sign)
      result[i] = To::narrow(static_cast<typename To::Unsigned>(From::widen(a[i])));
    else
      result[i] = To::narrow(static_cast<typename To::Unsigned>(From::widen_unsigned(a[i])));
  }
}

template <bool sign> Handler resize_handler(ElementType source, ElementType result) {
  return for_integer(source, [&](auto from) -> Handler {
    return for_integer(result, [](auto to) -> Handler { return resize<decltype(from), decltype(to), sign>; });
  });
}

template <typename T> void select(const Step &step, Frame &frame) {
  auto *result = frame.at<T>(step.result);
  const auto *condition = frame.at<uint8_t>(step.operands[0]);
  const auto *a = frame.at<T>(step.operands[1]), *b = frame.at<T>(step.operands[2]);
  if (step.other == 1) {
    memmove(result, *condition ? a : b, sizeof(T) * step.count);
    return;
  }
  for (uint32_t i = 0; i < step.count; ++i)
    result[i] = condition[i] ? a[i] : b[i];
}

void copy(const Step &step, Frame &frame) {
  memmove(frame.registers + step.result, frame.registers + step.operands[0], step.other);
}

Handler select_handler(ElementType element) {
  switch (element_bytes(element)) {
  case 1:
    return select<uint8_t>;
  case 2:
    return select<uint16_t>;
  case 4:
    return select<uint32_t>;
  default:
    return select<uint64_t>;
  }
}

} // namespace

Handler elementwise_handler(Opcode opcode, ElementType source, ElementType result) {
  bool floats = source == ElementType::f32 && result == ElementType::f32;
  switch (opcode) {
#define FREEPORT_BINARY_INTEGER(name)                                                                                  \
  case Opcode::name:                                                                                                   \
    return source == result ? binary_integer_handler<Opcode::name>(source) : nullptr;
    FREEPORT_BINARY_INTEGER(add_integer)
    FREEPORT_BINARY_INTEGER(subtract_integer)
    FREEPORT_BINARY_INTEGER(multiply_integer)
    FREEPORT_BINARY_INTEGER(divide_signed)
    FREEPORT_BINARY_INTEGER(remainder_signed)
    FREEPORT_BINARY_INTEGER(ceil_divide_signed)
    FREEPORT_BINARY_INTEGER(bitwise_and)
    FREEPORT_BINARY_INTEGER(bitwise_or)
    FREEPORT_BINARY_INTEGER(bitwise_xor)
    FREEPORT_BINARY_INTEGER(shift_left)
    FREEPORT_BINARY_INTEGER(shift_right_unsigned)
    FREEPORT_BINARY_INTEGER(shift_right_signed)
    FREEPORT_BINARY_INTEGER(minimum_signed)
    FREEPORT_BINARY_INTEGER(maximum_signed)
#undef FREEPORT_BINARY_INTEGER
  case Opcode::compare_integer:
    return result == ElementType::i1
               ? for_integer(source, [](auto type) -> Handler { return compare_integer<decltype(type)>; })
               : nullptr;
  case Opcode::add_float:
    return floats ? binary_float<Opcode::add_float> : nullptr;
  case Opcode::subtract_float:
    return floats ? binary_float<Opcode::subtract_float> : nullptr;
  case Opcode::multiply_float:
    return floats ? binary_float<Opcode::multiply_float> : nullptr;
  case Opcode::divide_float:
    return floats ? binary_float<Opcode::divide_float> : nullptr;
  case Opcode::negate_float:
    return floats ? negate_float : nullptr;
  case Opcode::square_root:
    return floats ? square_root : nullptr;
  case Opcode::compare_float:
    return source == ElementType::f32 && result == ElementType::i1 ? compare_float : nullptr;
  case Opcode::select:
    return source == result ? select_handler(result) : nullptr;
  case Opcode::signed_to_float:
    return result == ElementType::f32
               ? for_integer(source, [](auto type) -> Handler { return signed_to_float<decltype(type)>; })
               : nullptr;
  case Opcode::float_to_signed:
    return source == ElementType::f32
               ? for_integer(result, [](auto type) -> Handler { return float_to_signed<decltype(type)>; })
               : nullptr;
  case Opcode::extend_float:
    return source == ElementType::f16 && result == ElementType::f32 ? extend_float : nullptr;
  case Opcode::truncate_float:
    return source == ElementType::f32 && result == ElementType::f16 ? truncate_float : nullptr;
  case Opcode::resize_signed:
    return resize_handler<true>(source, result);
  case Opcode::extend_unsigned:
    return resize_handler<false>(source, result);
  case Opcode::bitcast: // an i1 must stay 0 or 1
    return element_bytes(source) == element_bytes(result) && (source == ElementType::i1) == (result == ElementType::i1)
               ? copy
               : nullptr;
  case Opcode::copy:
    return source == result ? copy : nullptr;
  default:
    return nullptr;
  }
}

} // namespace freeport::reference
