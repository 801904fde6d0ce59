// q4's scale search is the one costly part of a compile: it is written over arrays of 32 so that the compiler
// vectorises it, and cloned for AVX2. Clones compute the same bits: no operation here depends on the vector's width.
// What a clone calls is inlined into it by force, or it would run as the baseline's code.
#include "compiler/package/BlockPacker.h"

#include <cmath>
#include <cstring>

// The dynamic loader chooses a clone before it has relocated what a sanitizer adds to the choice.
#if __has_feature(address_sanitizer)
#define FREEPORT_CLONED
#else
#define FREEPORT_CLONED __attribute__((target_clones("avx2", "default")))
#endif

namespace freeport {

using kernel::BlockFormat;

float fromHalf(uint16_t bits) {
  uint32_t sign = uint32_t(bits & 0x8000) << 16, exponent = bits >> 10 & 31, mantissa = bits & 1023, result;
  if (exponent == 31)
    result = sign | 0x7F800000 | mantissa << 13;
  else if (exponent)
    result = sign | (exponent + 112) << 23 | mantissa << 13;
  else {
    float value = static_cast<float>(mantissa) * 0x1p-24f;
    std::memcpy(&result, &value, 4);
    result |= sign;
  }
  float value;
  std::memcpy(&value, &result, 4);
  return value;
}

uint16_t toHalf(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  uint16_t sign = bits >> 16 & 0x8000;
  uint32_t magnitude = bits & 0x7FFFFFFF;
  if (magnitude >= 0x477FE000) // 65504, and NaN, which no checkpoint should hold
    return sign | 0x7BFF;
  if (magnitude < 0x38800000) { // below 2^-14: subnormal, a multiple of 2^-24
    float scaled;
    std::memcpy(&scaled, &magnitude, 4);
    scaled = scaled * 0x1p24f;
    return sign | static_cast<uint16_t>(std::nearbyint(scaled));
  }
  uint32_t rounded = magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1);
  return sign | static_cast<uint16_t>(rounded >> 13);
}

uint16_t toBrain(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

FREEPORT_CLONED static void widenBrain(const uint16_t *source, int64_t count, uint32_t *target) {
  for (int64_t i = 0; i < count; ++i)
    target[i] = uint32_t(source[i]) << 16;
}

/// Scale and minimum number `group` of a Q4_K block: six bits each, twelve bytes for eight of both.
static std::pair<unsigned, unsigned> scaleAndMinimum(const uint8_t *packed, unsigned group) {
  if (group < 4)
    return {packed[group] & 63, packed[group + 4] & 63};
  return {(packed[group + 4] & 15) | packed[group - 4] >> 6 << 4, packed[group + 4] >> 4 | packed[group] >> 6 << 4};
}

namespace {
/// 32 inputs of a block: a value is step * scales[half] * integer - least * minimum.
struct Group {
  int8_t integers[32] = {};
  uint16_t step = 0, least = 0; ///< f16
  int scales[2] = {1, 1}, minimum = 0;
};
} // namespace

/// Group `number` of a block, as GGML defines its types.
static Group groupOf(checkpoint::DataType type, const uint8_t *block, int number) {
  using checkpoint::DataType;
  Group group;
  auto half = [&](int offset) {
    uint16_t bits;
    std::memcpy(&bits, block + offset, 2);
    return bits;
  };
  group.step = half(type == DataType::Q6_K ? 208 : 0);
  auto fill = [&](auto integer) {
    for (int k = 0; k < 32; ++k)
      group.integers[k] = static_cast<int8_t>(integer(k));
  };
  switch (type) {
  case DataType::Q4_0:
    fill([&](int k) { return (block[2 + k % 16] >> (k / 16 * 4) & 15) - 8; });
    break;
  case DataType::Q5_0:
    fill([&](int k) { return ((block[6 + k % 16] >> (k / 16 * 4) & 15) | (block[2 + k / 8] >> k % 8 & 1) << 4) - 16; });
    break;
  case DataType::Q8_0:
    fill([&](int k) { return block[2 + k]; });
    break;
  case DataType::Q4_K:
    fill([&](int k) { return block[16 + number / 2 * 32 + k] >> (number % 2 * 4) & 15; });
    break;
  default: // Q6_K
    fill([&](int k) {
      int half = number / 4, quarter = number % 4;
      int low = block[64 * half + quarter % 2 * 32 + k] >> (quarter / 2 * 4) & 15;
      return (low | (block[128 + 32 * half + k] >> (2 * quarter) & 3) << 4) - 32;
    });
  }
  if (type == DataType::Q4_K) {
    auto [scale, minimum] = scaleAndMinimum(block + 4, number);
    group.scales[0] = group.scales[1] = static_cast<int>(scale);
    group.minimum = static_cast<int>(minimum);
    group.least = half(2);
  } else if (type == DataType::Q6_K) {
    for (int part = 0; part < 2; ++part)
      group.scales[part] = static_cast<int8_t>(block[192 + 2 * number + part]);
  }
  return group;
}

void widen(checkpoint::DataType type, const uint8_t *source, int64_t count, float *target) {
  if (isQuantized(type)) {
    checkpoint::Block block = blockOf(type);
    for (int64_t first = 0; first < count; first += 32) {
      Group group = groupOf(type, source + first / block.elements * block.bytes, first % block.elements / 32);
      float least = fromHalf(group.least) * static_cast<float>(group.minimum);
      for (int k = 0; k < 32; ++k) {
        float step = fromHalf(group.step) * static_cast<float>(group.scales[k / 16]);
        target[first + k] = step * static_cast<float>(group.integers[k]) - least;
      }
    }
    return;
  }
  switch (type) {
  case checkpoint::DataType::F32:
    std::memcpy(target, source, count * 4);
    return;
  case checkpoint::DataType::BF16:
    widenBrain(reinterpret_cast<const uint16_t *>(source), count, reinterpret_cast<uint32_t *>(target));
    return;
  case checkpoint::DataType::F16:
    for (int64_t i = 0; i < count; ++i) {
      uint16_t bits;
      std::memcpy(&bits, source + 2 * i, 2);
      target[i] = fromHalf(bits);
    }
    return;
  default:
    llvm_unreachable("the frontend admits no other types to the packer");
  }
}

namespace {

#define FREEPORT_INLINE __attribute__((always_inline)) inline

/// Sums over 32 elements: eight partial sums, then a tree.
FREEPORT_INLINE float sum8(const float *partial) {
  return ((partial[0] + partial[4]) + (partial[2] + partial[6])) +
         ((partial[1] + partial[5]) + (partial[3] + partial[7]));
}

/// Nearest integer, ties to even, for |x| < 2^22.
FREEPORT_INLINE float nearest(float x) { return (x + 12582912.0f) - 12582912.0f; }

struct Fit {
  float error, product, square; ///< of the codes: sum (x - d q)^2, sum x q, sum q^2
};

/// Codes of a group for scale d (inverse given), clamped to -8..7.
FREEPORT_INLINE void codesOf(const float *x, float inverse, float *codes) {
  for (int i = 0; i < 32; ++i) {
    float q = nearest(x[i] * inverse);
    q = q < -8 ? -8 : q;
    codes[i] = q > 7 ? 7 : q;
  }
}

FREEPORT_INLINE Fit fitOf(const float *x, float d, const float *codes) {
  float error[8] = {}, product[8] = {}, square[8] = {};
  for (int i = 0; i < 32; i += 8)
    for (int j = 0; j < 8; ++j) {
      float q = codes[i + j], difference = x[i + j] - d * q;
      error[j] += difference * difference;
      product[j] += x[i + j] * q;
      square[j] += q * q;
    }
  return {sum8(error), sum8(product), sum8(square)};
}

/// What scale `half` makes of a group.
FREEPORT_INLINE Fit tryScale(const float *x, uint16_t half) {
  float d = fromHalf(half), codes[32];
  if (d == 0)
    return {INFINITY, 0, 0};
  codesOf(x, 1.0f / d, codes);
  return fitOf(x, d, codes);
}

/// The f16 scale that minimises a group's squared error among candidates around the extreme value, each also refined by
/// least squares; writes its codes.
FREEPORT_CLONED uint16_t quantizeGroup4(const float *x, float *codes) {
  float top[8] = {}, bottom[8] = {};
  for (int i = 0; i < 32; i += 8)
    for (int j = 0; j < 8; ++j) {
      top[j] = x[i + j] > top[j] ? x[i + j] : top[j];
      bottom[j] = x[i + j] < bottom[j] ? x[i + j] : bottom[j];
    }
  float greatest = 0, least = 0;
  for (int j = 0; j < 8; ++j) {
    greatest = top[j] > greatest ? top[j] : greatest;
    least = bottom[j] < least ? bottom[j] : least;
  }
  float extreme = greatest > -least ? greatest : least, magnitude = std::fabs(extreme);
  if (greatest == -least) // the first of them decides
    for (int i = 31; i >= 0; --i)
      extreme = std::fabs(x[i]) == magnitude ? x[i] : extreme;
  for (int i = 0; i < 32; ++i)
    codes[i] = 0;
  if (magnitude < 0x1p-50f)
    return 0;
  uint16_t best = 0;
  float bestError = INFINITY;
  // -8 has no positive twin: the extreme takes it, or 7.
  for (float steps : {-8.0f, -7.5f, -7.0f, 7.0f, 7.6f, -8.6f}) {
    float scale = extreme / steps;
    for (bool refined : {false, true}) {
      uint16_t half = toHalf(scale);
      Fit fit = tryScale(x, half);
      if (fit.error < bestError) {
        bestError = fit.error;
        best = half;
      }
      if (refined || !(fit.square > 0))
        break;
      scale = fit.product / fit.square;
    }
  }
  if (best)
    codesOf(x, 1.0f / fromHalf(best), codes);
  return best;
}

FREEPORT_CLONED uint16_t quantizeGroup8(const float *x, float *codes) {
  float magnitude = 0;
  for (int i = 0; i < 32; ++i)
    magnitude = std::fabs(x[i]) > magnitude ? std::fabs(x[i]) : magnitude;
  uint16_t half = toHalf(magnitude / 127.0f);
  float d = half ? fromHalf(half) : INFINITY;
  for (int i = 0; i < 32; ++i) {
    float q = x[i] / d;
    q = q < -127 ? -127 : q;
    q = q > 127 ? 127 : q;
    codes[i] = q == q ? nearest(q) : 0; // NaN has no code
  }
  return half;
}

} // namespace

/// One row's group into a record of a quantised format.
static void storeGroup(BlockFormat format, const Group &group, int64_t row, uint8_t *record) {
  auto store = [&](int64_t offset, auto value) { std::memcpy(record + offset, &value, sizeof(value)); };
  uint32_t words[8]; // four integers each
  std::memcpy(words, group.integers, sizeof(words));
  if (format == BlockFormat::q8) {
    for (int i = 0; i < 8; ++i)
      store(4 * (32 * i + row), words[i]);
    store(1024 + 2 * row, group.step);
    return;
  }
  // A code is the integer plus a power of two: in two's complement, one bit flipped.
  int zero = format == BlockFormat::q4 ? 8 : format == BlockFormat::q5 ? 16 : format == BlockFormat::q6_k ? 32 : 0;
  for (uint32_t &word : words)
    word ^= zero * 0x01010101u;
  for (int i = 0; i < 4; ++i)
    store(4 * (32 * i + row), (words[2 * i] & 0x0F0F0F0Fu) | (words[2 * i + 1] & 0x0F0F0F0Fu) << 4);
  if (format == BlockFormat::q5) {
    uint32_t high = 0;
    for (int i = 0; i < 8; ++i)
      high |= (words[i] >> 4 & 0x01010101u) << i;
    store(512 + 4 * row, high);
  } else if (format == BlockFormat::q6_k) {
    for (int half = 0; half < 2; ++half) {
      uint32_t high = 0;
      for (int i = 0; i < 4; ++i)
        high |= (words[4 * half + i] >> 4 & 0x03030303u) << 2 * i;
      store(512 + 128 * half + 4 * row, high);
    }
  }
  switch (format) {
  case BlockFormat::q4_k:
    store(512 + 2 * row, static_cast<uint8_t>(group.scales[0]));
    store(513 + 2 * row, static_cast<uint8_t>(group.minimum));
    store(576 + 4 * row, group.step);
    store(578 + 4 * row, group.least);
    return;
  case BlockFormat::q6_k:
    store(768 + 4 * row, static_cast<int8_t>(group.scales[0]));
    store(769 + 4 * row, static_cast<int8_t>(group.scales[1]));
    store(770 + 4 * row, group.step);
    return;
  default:
    store((format == BlockFormat::q5 ? 640 : 512) + 2 * row, group.step);
  }
}

std::optional<BlockFormat> nativeFormat(checkpoint::DataType type) {
  switch (type) {
  case checkpoint::DataType::Q4_0:
    return BlockFormat::q4;
  case checkpoint::DataType::Q5_0:
    return BlockFormat::q5;
  case checkpoint::DataType::Q8_0:
    return BlockFormat::q8;
  case checkpoint::DataType::Q4_K:
    return BlockFormat::q4_k;
  case checkpoint::DataType::Q6_K:
    return BlockFormat::q6_k;
  case checkpoint::DataType::F32:
    return BlockFormat::f32;
  case checkpoint::DataType::F16:
    return BlockFormat::f16;
  case checkpoint::DataType::BF16:
    return BlockFormat::bf16;
  default:
    return std::nullopt;
  }
}

void moveRowBlock(checkpoint::DataType type, const uint8_t *source, int64_t rowBytes, int64_t rows, int64_t inputs,
                  uint8_t *out) {
  BlockFormat format = *nativeFormat(type);
  checkpoint::Block block = blockOf(type);
  int64_t bytes = kernel::recordBytes(format), groups = inputs / 32;
  std::memset(out, 0, groups * bytes);
  for (int64_t row = 0; row < 32; ++row)
    for (int64_t number = 0; number < groups; ++number) {
      int64_t first = 32 * number;
      Group group; // zeros, for rows that are not there
      if (row < rows)
        group =
            groupOf(type, source + row * rowBytes + first / block.elements * block.bytes, first % block.elements / 32);
      storeGroup(format, group, row, out + number * bytes);
    }
}

void packRowBlock(BlockFormat format, const float *rows, int64_t stride, int64_t inputs, uint8_t *out) {
  int64_t bytes = kernel::recordBytes(format);
  auto flushed = [](float value) { return std::fabs(value) < 0x1p-50f ? 0.0f : value; };
  for (int64_t group = 0; group * 32 < inputs; ++group, out += bytes) {
    std::memset(out, 0, bytes);
    for (int64_t row = 0; row < 32; ++row) {
      const float *x = rows + row * stride + group * 32;
      float codes[32];
      Group group;
      switch (format) {
      case BlockFormat::f32:
        for (int k = 0; k < 32; ++k) {
          float value = flushed(x[k]);
          std::memcpy(out + 4 * (32 * k + row), &value, 4);
        }
        break;
      case BlockFormat::f16:
      case BlockFormat::bf16:
        for (int k = 0; k < 32; ++k) {
          uint16_t value = format == BlockFormat::f16 ? toHalf(flushed(x[k])) : toBrain(flushed(x[k]));
          std::memcpy(out + 4 * (32 * (k / 2) + row) + 2 * (k % 2), &value, 2);
        }
        break;
      case BlockFormat::q8:
      case BlockFormat::q4:
        group.step = format == BlockFormat::q8 ? quantizeGroup8(x, codes) : quantizeGroup4(x, codes);
        for (int k = 0; k < 32; ++k)
          group.integers[k] = static_cast<int8_t>(codes[k]);
        storeGroup(format, group, row, out);
        break;
      default:
        llvm_unreachable("nothing is quantised to formats that only files bring");
      }
    }
  }
}

} // namespace freeport
