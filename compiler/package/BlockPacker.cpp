// q4's scale search is the one costly part of packing: it goes over sixteen rows at a time, one in each lane, and is
// cloned for wider vectors. Clones compute the same bits: no operation here depends on the vector's width, and none is
// fused. What a clone calls is inlined into it by force, or it would run as the baseline's code.
#include "compiler/package/BlockPacker.h"

#include <bit>
#include <cmath>
#include <cstring>

// The dynamic loader chooses a clone before it has relocated what a sanitizer adds to the choice.
#if __has_feature(address_sanitizer)
#define FREEPORT_CLONED
#else
#define FREEPORT_CLONED __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#endif

namespace freeport {

using kernel::BlockFormat;

#define FREEPORT_INLINE __attribute__((always_inline)) inline

/// Without branches, so that loops over it are vectorised.
static FREEPORT_INLINE float widenHalf(uint16_t bits) {
  const uint32_t magnitude = uint32_t(bits & 0x7FFF) << 13;
  const float scaled = std::bit_cast<float>(magnitude) * 0x1p112f; // exact, of subnormals too
  const uint32_t finite = std::bit_cast<uint32_t>(scaled);
  const uint32_t result = magnitude >= 0x0F800000 ? magnitude | 0x7F800000 : finite;
  return std::bit_cast<float>(uint32_t(bits & 0x8000) << 16 | result);
}

float fromHalf(uint16_t bits) { return widenHalf(bits); }

/// Added to and taken from a number below 2^22, it leaves the nearest integer, ties to even.
constexpr float kRounder = 12582912.0f;

/// To nearest even, as 16 bits of an integer; without branches.
static FREEPORT_INLINE int32_t narrowed(float value) {
  const int32_t bits = std::bit_cast<int32_t>(value), magnitude = bits & 0x7FFFFFFF;
  const bool tiny = magnitude < 0x38800000; // below 2^-14: subnormal, a multiple of 2^-24
  const float scaled = std::bit_cast<float>(tiny ? magnitude : 0) * 0x1p24f;
  const int32_t subnormal = static_cast<int32_t>(scaled + kRounder - kRounder);
  const int32_t rounded = (magnitude - 0x38000000 + 0xFFF + (magnitude >> 13 & 1)) >> 13;
  // From 65504 on saturated; so is NaN, which no checkpoint should hold.
  return (bits >> 16 & 0x8000) | (magnitude >= 0x477FE000 ? 0x7BFF : tiny ? subnormal : rounded);
}

uint16_t toHalf(float value) { return static_cast<uint16_t>(narrowed(value)); }

uint16_t toBrain(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

FREEPORT_CLONED static void widenHalves(const uint16_t *source, int64_t count, float *target) {
  for (int64_t i = 0; i < count; ++i)
    target[i] = widenHalf(source[i]);
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
    widenHalves(reinterpret_cast<const uint16_t *>(source), count, target);
    return;
  default:
    llvm_unreachable("the frontend admits no other types to the packer");
  }
}

namespace {

/// Rows whose q4 scales are searched together, one in each lane of the loops below.
constexpr int kLanes = 16;

/// The code of x for the scale whose inverse is given, clamped to -8..7.
FREEPORT_INLINE float codeOf(float x, float inverse) {
  float code = x * inverse + kRounder - kRounder;
  code = code < -8.0f ? -8.0f : code;
  return code > 7.0f ? 7.0f : code;
}

/// Of the codes of each lane's group: sum (x - d q)^2, sum x q, sum q^2.
struct Fit {
  float error[kLanes], product[kLanes], square[kLanes];
};

/// What scales make of groups. Sums have eight partial sums, of every eighth input, then a tree.
FREEPORT_INLINE void tryScales(const float (*x)[kLanes], const int32_t *halves, Fit &fit) {
  float d[kLanes], inverse[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    d[lane] = widenHalf(static_cast<uint16_t>(halves[lane]));
    inverse[lane] = 1.0f / d[lane];
  }
  Fit sums[8];
  for (int first = 0; first < 8; ++first)
    for (int lane = 0; lane < kLanes; ++lane) {
      float error = 0, product = 0, square = 0;
      for (int i = first; i < first + 32; i += 8) {
        const float value = x[i][lane], q = codeOf(value, inverse[lane]), difference = value - d[lane] * q;
        error += difference * difference;
        product += value * q;
        square += q * q;
      }
      sums[first].error[lane] = error;
      sums[first].product[lane] = product;
      sums[first].square[lane] = square;
    }
  for (int count = 4; count; count /= 2)
    for (int i = 0; i < count; ++i)
      for (int lane = 0; lane < kLanes; ++lane) {
        sums[i].error[lane] += sums[i + count].error[lane];
        sums[i].product[lane] += sums[i + count].product[lane];
        sums[i].square[lane] += sums[i + count].square[lane];
      }
  for (int lane = 0; lane < kLanes; ++lane) {
    const bool none = d[lane] == 0;
    fit.error[lane] = none ? INFINITY : sums[0].error[lane];
    fit.product[lane] = sums[0].product[lane];
    fit.square[lane] = none ? 0 : sums[0].square[lane];
  }
}

/// The f16 scales that minimise groups' squared errors among candidates around the extreme value, each also refined by
/// least squares, into `steps`; writes the codes. `rows` are kLanes rows of `stride` floats, of which 32 count.
FREEPORT_CLONED void quantizeGroups4(const float *rows, int64_t stride, float (*codes)[kLanes], int32_t *steps) {
  float x[32][kLanes], extreme[kLanes] = {}, least[kLanes] = {}, magnitude[kLanes], bestError[kLanes];
  int32_t best[kLanes];
  for (int i = 0; i < 32; ++i)
    for (int lane = 0; lane < kLanes; ++lane)
      x[i][lane] = rows[lane * stride + i];
  for (int i = 0; i < 32; ++i)
    for (int lane = 0; lane < kLanes; ++lane) {
      extreme[lane] = x[i][lane] > extreme[lane] ? x[i][lane] : extreme[lane];
      least[lane] = x[i][lane] < least[lane] ? x[i][lane] : least[lane];
    }
  for (int lane = 0; lane < kLanes; ++lane) {
    const float greatest = extreme[lane];
    magnitude[lane] = greatest > -least[lane] ? greatest : -least[lane];
    extreme[lane] = greatest > -least[lane] ? greatest : least[lane];
    for (int i = 31; greatest == -least[lane] && i >= 0; --i) // the first of them decides
      extreme[lane] = std::fabs(x[i][lane]) == magnitude[lane] ? x[i][lane] : extreme[lane];
    bestError[lane] = INFINITY;
    best[lane] = 0;
  }
  // -8 has no positive twin: the extreme takes it, or 7.
  for (const float divisor : {-8.0f, -7.5f, -7.0f, 7.0f, 7.6f, -8.6f}) {
    float scale[kLanes];
    int32_t tried[kLanes], halves[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      scale[lane] = extreme[lane] / divisor;
      tried[lane] = 1;
    }
    for (int refined = 0; refined < 2; ++refined) {
      for (int lane = 0; lane < kLanes; ++lane)
        halves[lane] = narrowed(scale[lane]);
      Fit fit;
      tryScales(x, halves, fit);
      // Values are read before they are chosen from, or the loop is not vectorised.
      for (int lane = 0; lane < kLanes; ++lane) {
        const float error = fit.error[lane], least = bestError[lane];
        const int32_t half = halves[lane], before = best[lane], better = tried[lane] & int32_t(error < least);
        bestError[lane] = better ? error : least;
        best[lane] = better ? half : before;
        tried[lane] = fit.square[lane] > 0;
        scale[lane] = fit.product[lane] / fit.square[lane];
      }
    }
  }
  float inverse[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) {
    best[lane] = magnitude[lane] < 0x1p-50f ? 0 : best[lane];
    inverse[lane] = 1.0f / widenHalf(static_cast<uint16_t>(best[lane]));
  }
  for (int i = 0; i < 32; ++i)
    for (int lane = 0; lane < kLanes; ++lane) {
      const float code = codeOf(x[i][lane], inverse[lane]);
      codes[i][lane] = best[lane] ? code : 0;
    }
  std::memcpy(steps, best, sizeof best);
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
    codes[i] = q == q ? (q + kRounder) - kRounder : 0; // NaN has no code
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
  float lanes[32][kLanes]; // codes of q4, and the steps of their rows
  int32_t steps[kLanes];
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
        if (format == BlockFormat::q4) {
          if (row % kLanes == 0)
            quantizeGroups4(x, stride, lanes, steps);
          group.step = static_cast<uint16_t>(steps[row % kLanes]);
          for (int k = 0; k < 32; ++k)
            codes[k] = lanes[k][row % kLanes];
        } else {
          group.step = quantizeGroup8(x, codes);
        }
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
