// Conversions between f32 and the 16-bit floats by integer operations alone, so that no machine's flushing of subnormal
// numbers and no library can change a bit. NaNs become quiet and keep the upper bits of their payload.
#pragma once

#include <bit>
#include <cstdint>

namespace freeport::reference {

/// The exact value of an f16.
inline float from_half(uint16_t half) {
  uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  uint32_t exponent = (half >> 10) & 0x1F;
  uint32_t mantissa = half & 0x3FF;
  if (exponent == 0x1F)
    return std::bit_cast<float>(sign | 0x7F800000 | mantissa << 13 | (mantissa ? 0x400000u : 0u));
  if (exponent == 0) {
    if (mantissa == 0)
      return std::bit_cast<float>(sign);
    uint32_t shift = std::countl_zero(mantissa) - 21;
    return std::bit_cast<float>(sign | (113 - shift) << 23 | ((mantissa << shift) & 0x3FF) << 13);
  }
  return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
}

/// The nearest f16, ties to even; infinity from 65,520 on.
inline uint16_t to_half(float value) {
  uint32_t bits = std::bit_cast<uint32_t>(value);
  uint32_t sign = bits >> 16 & 0x8000;
  uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude > 0x7F800000)
    return static_cast<uint16_t>(sign | 0x7E00 | (magnitude >> 13 & 0x3FF));
  if (magnitude >= 0x477FF000)
    return static_cast<uint16_t>(sign | 0x7C00);
  if (magnitude < 0x33000000)
    return static_cast<uint16_t>(sign);
  if (magnitude < 0x38800000) {
    uint32_t shift = 126 - (magnitude >> 23);
    uint32_t mantissa = (magnitude & 0x7FFFFF) | 0x800000;
    uint32_t rest = mantissa & ((1u << shift) - 1), tie = 1u << (shift - 1), quotient = mantissa >> shift;
    return static_cast<uint16_t>(sign | (quotient + (rest > tie || (rest == tie && quotient & 1))));
  }
  uint32_t rebiased = magnitude - 0x38000000;
  return static_cast<uint16_t>(sign | (rebiased + 0xFFF + (rebiased >> 13 & 1)) >> 13);
}

/// The exact value of a bf16.
inline float from_bfloat(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

} // namespace freeport::reference
