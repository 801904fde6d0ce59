// The host's copy of the portable definitions (design.md §4): the same constants and operations in the same order as
// the kernels that the compiler writes (dialects/kernel/Emit.cpp), hence the same bits. Builds forbid contraction.
#pragma once

#include <bit>
#include <cstdint>
#include <initializer_list>

namespace freeport {

/// exp on [-87, 87], clamped outside, so never 0, infinite or subnormal; exp(0) is 1, exp(NaN) is exp(-87), that of
/// a signalling NaN, which no arithmetic makes, is open.
inline float portable_exp(float x) {
  x = x > -87.0f ? x : -87.0f;
  x = x < 87.0f ? x : 87.0f;
  constexpr float kShift = 12582912.0f; // 1.5 * 2^23: adding it rounds to the nearest integer, ties to even
  float n = x * std::bit_cast<float>(0x3FB8AA3Bu) + kShift; // log2(e)
  n = n - kShift;
  float r = x - n * std::bit_cast<float>(0x3F318000u); // log(2), high part
  r = r - n * std::bit_cast<float>(0xB95E8083u);       // log(2), low part
  float p = std::bit_cast<float>(0x39506967u);
  for (uint32_t bits : {0x3AB743CEu, 0x3C088908u, 0x3D2AA9C1u, 0x3E2AAAAAu, 0x3F000000u, 0x3F800000u, 0x3F800000u})
    p = p * r + std::bit_cast<float>(bits);
  return std::bit_cast<float>(std::bit_cast<uint32_t>(p) + (static_cast<uint32_t>(static_cast<int32_t>(n)) << 23));
}

} // namespace freeport
