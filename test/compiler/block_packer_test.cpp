// Packing against the layout of dialects/kernel/KernelOps.td, byte by byte, and against an unpacker of the test's own.
#include "compiler/package/BlockPacker.h"
#include "runtime/block_format.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

namespace freeport {
namespace {

using kernel::BlockFormat;

std::vector<float> randomRows(int64_t stride, int64_t inputs, unsigned seed) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0, 0.02f);
  std::vector<float> rows(32 * stride);
  for (int64_t row = 0; row < 32; ++row)
    for (int64_t k = 0; k < inputs; ++k)
      rows[row * stride + k] = normal(generator);
  return rows;
}

uint16_t read16(const uint8_t *bytes) {
  uint16_t value;
  std::memcpy(&value, bytes, 2);
  return value;
}

/// The value of one weight, by the written layout alone.
float unpack(BlockFormat format, const uint8_t *records, int64_t row, int64_t input) {
  const uint8_t *record = records + input / 32 * kernel::recordBytes(format);
  int64_t k = input % 32;
  switch (format) {
  case BlockFormat::f32: {
    float value;
    std::memcpy(&value, record + 4 * (32 * k + row), 4);
    return value;
  }
  case BlockFormat::f16:
    return fromHalf(read16(record + 4 * (32 * (k / 2) + row) + 2 * (k % 2)));
  case BlockFormat::bf16: {
    uint32_t bits = uint32_t(read16(record + 4 * (32 * (k / 2) + row) + 2 * (k % 2))) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  }
  case BlockFormat::q8:
    return fromHalf(read16(record + 1024 + 2 * row)) * static_cast<int8_t>(record[4 * (32 * (k / 4) + row) + k % 4]);
  case BlockFormat::q4: {
    uint8_t byte = record[4 * (32 * (k / 8) + row) + k % 4];
    return fromHalf(read16(record + 512 + 2 * row)) * ((k % 8 < 4 ? byte & 15 : byte >> 4) - 8);
  }
  default: // MovedBlocks tests what is never packed from floats
    return NAN;
  }
}

class PackedFormat : public testing::TestWithParam<BlockFormat> {};

TEST_P(PackedFormat, UnpacksToTheSameWithinItsPrecision) {
  BlockFormat format = GetParam();
  double allowed = format == BlockFormat::f32    ? 0
                   : format == BlockFormat::f16  ? 0x1p-11
                   : format == BlockFormat::bf16 ? 0x1p-8
                   : format == BlockFormat::q8   ? 0.02
                                                 : 0.2;
  for (int64_t inputs : {1, 31, 32, 33, 97}) {
    int64_t stride = (inputs + 31) / 32 * 32;
    std::vector<float> rows = randomRows(stride, inputs, inputs);
    std::vector<uint8_t> records(stride / 32 * kernel::recordBytes(format), 0xAA);
    packRowBlock(format, rows.data(), stride, inputs, records.data());
    double error = 0, square = 0;
    for (int64_t row = 0; row < 32; ++row)
      for (int64_t k = 0; k < stride; ++k) {
        float value = unpack(format, records.data(), row, k), exact = rows[row * stride + k];
        if (k >= inputs)
          EXPECT_EQ(value, 0) << "padding at row " << row << ", input " << k;
        error += (value - exact) * (value - exact);
        square += exact * exact;
      }
    EXPECT_LE(std::sqrt(error), allowed * std::sqrt(square)) << inputs << " inputs";
  }
}

INSTANTIATE_TEST_SUITE_P(All, PackedFormat,
                         testing::Values(BlockFormat::f32, BlockFormat::f16, BlockFormat::bf16, BlockFormat::q8,
                                         BlockFormat::q4),
                         [](const auto &info) { return kernel::stringifyBlockFormat(info.param).str(); });

class MovedBlocks : public testing::TestWithParam<checkpoint::DataType> {};

TEST_P(MovedBlocks, KeepEveryValue) {
  // Random bytes are blocks of any type. The reader of packages is the judge of the layout.
  constexpr int64_t kInputs = 512, kRows = 29;
  int64_t rowBytes = byteSize(GetParam(), kInputs);
  checkpoint::Block block = blockOf(GetParam());
  std::mt19937 random(1);
  std::vector<uint8_t> source(kRows * rowBytes);
  for (uint8_t &byte : source)
    byte = static_cast<uint8_t>(random());
  for (uint64_t at = 0; at < source.size(); at += block.bytes) // finite scales
    for (int64_t scale : {int64_t(0), int64_t(2), int64_t(block.bytes) - 2})
      source[at + scale + 1] &= 0xBF;
  kernel::BlockFormat format = *nativeFormat(GetParam());
  auto runtimeFormat = find_block_format(kernel::stringifyBlockFormat(format).str());
  ASSERT_TRUE(runtimeFormat);
  ASSERT_EQ(record_bytes(*runtimeFormat), uint64_t(kernel::recordBytes(format)));
  std::vector<uint8_t> records(kInputs / 32 * kernel::recordBytes(format), 0xAA);
  moveRowBlock(GetParam(), source.data(), rowBytes, kRows, kInputs, records.data());
  for (int64_t row = 0; row < 32; ++row) {
    std::vector<float> expected(kInputs), found(kInputs);
    if (row < kRows)
      widen(GetParam(), source.data() + row * rowBytes, kInputs, expected.data());
    unpack_row(*runtimeFormat, std::as_bytes(std::span(records)), row, found);
    EXPECT_EQ(found, expected) << row;
  }
}

INSTANTIATE_TEST_SUITE_P(All, MovedBlocks,
                         testing::Values(checkpoint::DataType::Q4_0, checkpoint::DataType::Q5_0,
                                         checkpoint::DataType::Q8_0, checkpoint::DataType::Q4_K,
                                         checkpoint::DataType::Q6_K),
                         [](const auto &info) { return checkpoint::name(info.param).str(); });

TEST(BlockPacker, FourBitScalesBeatTheExtremeValue) {
  std::vector<float> rows = randomRows(256, 256, 5);
  std::vector<uint8_t> records(8 * kernel::recordBytes(BlockFormat::q4));
  packRowBlock(BlockFormat::q4, rows.data(), 256, 256, records.data());
  double searched = 0, plain = 0;
  for (int64_t row = 0; row < 32; ++row)
    for (int64_t group = 0; group < 8; ++group) {
      const float *x = rows.data() + row * 256 + group * 32;
      float extreme = 0;
      for (int k = 0; k < 32; ++k)
        if (std::fabs(x[k]) > std::fabs(extreme))
          extreme = x[k];
      float scale = fromHalf(toHalf(extreme / -8));
      for (int k = 0; k < 32; ++k) {
        float code = std::min(7.0f, std::max(-8.0f, std::nearbyint(x[k] / scale)));
        plain += std::pow(x[k] - scale * code, 2);
        searched += std::pow(x[k] - unpack(BlockFormat::q4, records.data(), row, 32 * group + k), 2);
      }
    }
  EXPECT_LT(searched, 0.95 * plain);
}

TEST(BlockPacker, LayoutAtExactBytes) {
  // Row 3: the extreme 8 makes d = -1, which represents all of it exactly; input 13 is byte 1 of dword 1, high nibble.
  std::vector<float> rows(32 * 32);
  rows[3 * 32 + 0] = 8;
  rows[3 * 32 + 13] = -5;
  std::vector<uint8_t> record(kernel::recordBytes(BlockFormat::q4));
  packRowBlock(BlockFormat::q4, rows.data(), 32, 32, record.data());
  EXPECT_EQ(read16(record.data() + 512 + 2 * 3), 0xBC00);
  EXPECT_EQ(record[4 * 3 + 0], 0x80);
  EXPECT_EQ(record[4 * (32 + 3) + 1], 0xD8);
  EXPECT_EQ(record[4 * (32 + 3) + 2], 0x88);
  rows[3 * 32 + 0] = 127;
  record.resize(kernel::recordBytes(BlockFormat::q8));
  packRowBlock(BlockFormat::q8, rows.data(), 32, 32, record.data());
  EXPECT_EQ(read16(record.data() + 1024 + 2 * 3), 0x3C00);
  EXPECT_EQ(record[4 * 3 + 0], 127);
  EXPECT_EQ(record[4 * (32 * 3 + 3) + 1], 256 - 5);
}

TEST(BlockPacker, NotANumberAndInfinityStayInTheirGroup) {
  for (BlockFormat format : {BlockFormat::q4, BlockFormat::q8})
    for (float odd : {NAN, INFINITY, -INFINITY}) {
      std::vector<float> rows = randomRows(64, 64, 9);
      std::vector<uint8_t> plain(2 * kernel::recordBytes(format)), packed = plain;
      packRowBlock(format, rows.data(), 64, 64, plain.data());
      rows[5] = odd;
      packRowBlock(format, rows.data(), 64, 64, packed.data());
      for (int64_t row = 0; row < 32; ++row)
        for (int64_t k = 0; k < 64; ++k) {
          float value = unpack(format, packed.data(), row, k);
          EXPECT_TRUE(std::isfinite(value));
          if (row || k >= 32)
            EXPECT_EQ(value, unpack(format, plain.data(), row, k));
        }
    }
}

TEST(BlockPacker, TinyWeightsBecomeZeroInFloatFormats) {
  std::vector<float> rows(32 * 32);
  rows[0] = 0x1p-51f;
  rows[1] = -0x1p-50f;
  std::vector<uint8_t> record(kernel::recordBytes(BlockFormat::f32));
  packRowBlock(BlockFormat::f32, rows.data(), 32, 32, record.data());
  EXPECT_EQ(unpack(BlockFormat::f32, record.data(), 0, 0), 0);
  EXPECT_EQ(unpack(BlockFormat::f32, record.data(), 0, 1), -0x1p-50f);
}

TEST(BlockPacker, HalvesRoundToNearestEvenAndSaturate) {
  EXPECT_EQ(toHalf(1.0f), 0x3C00);
  EXPECT_EQ(toHalf(1.0f + 0x1p-11f), 0x3C00); // a tie, to even
  EXPECT_EQ(toHalf(1.0f + 3 * 0x1p-11f), 0x3C02);
  EXPECT_EQ(toHalf(-65520.0f), 0xFBFF);
  EXPECT_EQ(toHalf(1e30f), 0x7BFF);
  EXPECT_EQ(toHalf(0x1p-24f), 0x0001);
  EXPECT_EQ(toHalf(0x1p-25f), 0x0000); // a tie, to even
  for (uint32_t bits = 0; bits < 0x7C00; ++bits)
    ASSERT_EQ(toHalf(fromHalf(bits)), bits);
}

} // namespace
} // namespace freeport
