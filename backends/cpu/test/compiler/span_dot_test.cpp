// kernel.span_dot and kernel.unpack over formats and awkward shapes, bit for bit against plain loops in the documented
// order.
#include "backends/cpu/compiler/KernelLowering.h"
#include "backends/cpu/test/compiler/kernel_program.h"

#include <elf.h>

namespace freeport::cpu::test {
namespace {

using kernel::BlockFormat;

struct Shape {
  int64_t rowBlocks, tokens, inputs;
};

/// Random packed weights (a bank of two, or a matrix) and activations, with their values beside them.
class Operands {
public:
  Operands(BlockFormat format, Shape shape, bool bank, uint32_t seed) : format(format), shape(shape), random(seed) {
    groups = (shape.inputs + 31) / 32;
    recordBytes = kernel::recordBytes(format);
    entryBytes = (shape.rowBlocks * groups * recordBytes + 63) / 64 * 64;
    weights.resize(entryBytes * (bank ? 2 : 1));
    values.resize(weights.size() / recordBytes * 1024 + 1024);
    scales.resize(weights.size() / recordBytes * 32 + 32);
    for (int64_t entry = 0; entry < (bank ? 2 : 1); ++entry)
      for (int64_t record = 0; record < shape.rowBlocks * groups; ++record)
        fillRecord(entry, record);
    bool quantized = format == BlockFormat::q4 || format == BlockFormat::q8;
    tokenBytes = ((quantized ? 40 : 128) * groups + 63) / 64 * 64;
    activations.resize(tokenBytes * (shape.tokens + 1));
    inputs.resize((shape.tokens + 1) * groups * 32);
    for (int64_t token = 0; token <= shape.tokens; ++token)
      fillToken(token, quantized);
  }

  int64_t index(int64_t entry, int64_t row, int64_t input) const {
    return ((entry * shape.rowBlocks + row / 32) * groups + input / 32) * 1024 + row % 32 * 32 + input % 32;
  }
  float scale(int64_t entry, int64_t row, int64_t group) const {
    return scales[((entry * shape.rowBlocks + row / 32) * groups + group) * 32 + row % 32];
  }

  /// The documented value of a span.
  float dot(int64_t entry, int64_t row, int64_t token, int64_t span) const {
    float sum = 0;
    for (int64_t group = 32 * span; group < std::min(32 * span + 32, groups); ++group) {
      if (format == BlockFormat::q4 || format == BlockFormat::q8) {
        int32_t exact = 0;
        for (int64_t k = 32 * group; k < 32 * group + 32; ++k)
          exact += static_cast<int32_t>(values[index(entry, row, k)]) *
                   static_cast<int32_t>(inputs[token * groups * 32 + k]);
        float scales = scale(entry, row, group) * tokenScales[token * groups + group];
        float product = static_cast<float>(exact) * scales;
        sum = sum + product;
        continue;
      }
      for (int64_t k = 32 * group; k < 32 * group + 32; ++k) {
        float product = values[index(entry, row, k)] * inputs[token * groups * 32 + k];
        sum = sum + product;
      }
    }
    return sum;
  }

  BlockFormat format;
  Shape shape;
  int64_t groups, recordBytes, entryBytes, tokenBytes;
  std::vector<uint8_t> weights, activations;
  std::vector<float> values, scales, inputs; ///< codes and bytes, for the quantised formats
  std::vector<float> tokenScales;

private:
  uint32_t below(uint32_t bound) { return random() % bound; }
  float number() { return (static_cast<int32_t>(below(2000001)) - 1000000) * 1e-6f; }

  void fillRecord(int64_t entry, int64_t record) {
    uint8_t *to = weights.data() + entry * entryBytes + record * recordBytes;
    for (int64_t row = 0; row < 32; ++row) {
      for (int64_t k = 0; k < 32; ++k)
        fillWeight(to, entry, record, row, k);
      if (format != BlockFormat::q4 && format != BlockFormat::q8)
        continue;
      // Mostly ordinary scales, with subnormals, zeros and negative ones among them.
      uint16_t bits = below(8) ? toHalf(number()) : static_cast<uint16_t>(below(0x400) | (below(2) << 15));
      memcpy(to + (format == BlockFormat::q4 ? 512 : 1024) + 2 * row, &bits, 2);
      scales[(entry * shape.rowBlocks * groups + record) * 32 + row] = fromHalf(bits);
    }
  }

  void fillWeight(uint8_t *to, int64_t entry, int64_t record, int64_t row, int64_t k) {
    bool inside = record % groups * 32 + k < shape.inputs;
    float &value = values[(entry * shape.rowBlocks * groups + record) * 1024 + row * 32 + k];
    if (format == BlockFormat::f32) {
      value = inside ? number() : 0;
      memcpy(to + 4 * (32 * k + row), &value, 4);
    } else if (format == BlockFormat::f16 || format == BlockFormat::bf16) {
      float drawn = inside ? number() : 0;
      uint16_t bits = format == BlockFormat::f16 ? toHalf(drawn) : std::bit_cast<uint32_t>(drawn) >> 16;
      value = format == BlockFormat::f16 ? fromHalf(bits) : std::bit_cast<float>(uint32_t(bits) << 16);
      memcpy(to + 4 * (32 * (k / 2) + row) + 2 * (k % 2), &bits, 2);
    } else if (format == BlockFormat::q8) {
      auto code = static_cast<int8_t>(inside ? below(256) - 128 : 0);
      value = code;
      to[4 * (32 * (k / 4) + row) + k % 4] = static_cast<uint8_t>(code);
    } else {
      uint32_t code = inside ? below(16) : 0;
      value = static_cast<float>(code) - 8;
      to[4 * (32 * (k / 8) + row) + k % 4] |= code << (k % 8 < 4 ? 0 : 4);
    }
  }

  void fillToken(int64_t token, bool quantized) {
    uint8_t *to = activations.data() + token * tokenBytes;
    tokenScales.resize((shape.tokens + 1) * groups);
    for (int64_t group = 0; group < groups; ++group) {
      int32_t sum = 0;
      bool extreme = below(4) == 0; // the largest magnitudes that there are
      for (int64_t k = 32 * group; k < 32 * group + 32; ++k) {
        float &value = inputs[token * groups * 32 + k];
        int32_t code = extreme ? (below(2) ? 127 : -127) : static_cast<int32_t>(below(255)) - 127;
        value = k >= shape.inputs ? 0 : quantized ? static_cast<float>(code) : number();
        if (quantized) {
          to[k] = static_cast<uint8_t>(static_cast<int8_t>(value));
          sum += static_cast<int32_t>(value);
        } else {
          memcpy(to + 4 * k, &value, 4);
        }
      }
      if (!quantized)
        continue;
      float scale = tokenScales[token * groups + group] = 0.01f + 1e-5f * below(1000);
      memcpy(to + 32 * groups + 4 * group, &scale, 4);
      memcpy(to + 36 * groups + 4 * group, &sum, 4);
    }
  }

  std::mt19937 random;
};

const char *name(BlockFormat format) { return kernel::stringifyBlockFormat(format).data(); }

class SpanDot : public testing::TestWithParam<BlockFormat> {};
INSTANTIATE_TEST_SUITE_P(Formats, SpanDot,
                         testing::Values(BlockFormat::f32, BlockFormat::f16, BlockFormat::bf16, BlockFormat::q8,
                                         BlockFormat::q4),
                         [](const auto &info) { return name(info.param); });

void checkSpanDot(BlockFormat format, Shape shape, bool bank) {
  Operands operands(format, shape, bank, 7919 * shape.inputs + 31 * shape.tokens + shape.rowBlocks);
  auto [R, T, K] = shape;
  std::string matrix = std::to_string(32 * R) + "x" + std::to_string(K);
  std::string weights = std::string("!kernel.weights<") + name(format) + ", " +
                        (bank ? "2x" + matrix + ", stride = " + std::to_string(operands.entryBytes) : matrix) + ">";
  bool quantized = format == BlockFormat::q8 || format == BlockFormat::q4;
  std::string activations =
      std::string("!kernel.activations<") + (quantized ? "i8, " : "f32, ") + std::to_string(K) + ">";
  std::string result = "vector<" + std::to_string(R) + "x" + std::to_string(T) + "x32xf32>";
  std::string text =
      "kernel.func @k(%w: " + weights + ", %x: " + activations +
      ", %y: !kernel.buffer<f32>, %n: index) {\n  %span = kernel.program_id x\n  %entry = kernel.program_id y\n";
  std::string rows, tokens, stores;
  // Row blocks backwards and tokens from the second on, so that a lowering which ignores them fails.
  for (int64_t i = 0; i < std::max(R, T) + 1; ++i)
    text += "  %i" + std::to_string(i) + " = arith.constant " + std::to_string(i) + " : index\n";
  for (int64_t r = 0; r < R; ++r)
    rows += (r ? ", %i" : "%i") + std::to_string(R - 1 - r);
  for (int64_t t = 0; t < T; ++t)
    tokens += (t ? ", %i" : "%i") + std::to_string(t + 1);
  text += "  %d = kernel.span_dot %w " + std::string(bank ? "entry %entry " : "") + "rows[" + rows +
          "] span %span, %x tokens[" + tokens + "] : " + weights + ", " + activations + " -> " + result + "\n";
  for (int64_t r = 0; r < R; ++r)
    for (int64_t t = 0; t < T; ++t) {
      std::string id = std::to_string(r) + "_" + std::to_string(t);
      text += "  %v" + id + " = vector.extract %d[" + std::to_string(r) + ", " + std::to_string(t) +
              "] : vector<32xf32> from " + result + "\n  %a" + id + " = arith.constant " +
              std::to_string(32 * (r * T + t)) + " : index\n" + "  kernel.store_lanes %v" + id + ", %y[%a" + id +
              "] : vector<32xf32>, !kernel.buffer<f32>\n";
    }
  KernelProgram program(text + "  kernel.return\n}\n");
  for (int64_t entry = 0; entry < (bank ? 2 : 1); ++entry)
    for (int64_t span = 0; span < (operands.groups + 31) / 32; ++span) {
      std::vector<float> actual(R * T * 32), expected;
      program.run({operands.weights.data(), operands.activations.data(), actual.data()}, {0}, span, entry);
      for (int64_t r = 0; r < R; ++r)
        for (int64_t t = 0; t < T; ++t)
          for (int64_t lane = 0; lane < 32; ++lane)
            expected.push_back(operands.dot(entry, 32 * (R - 1 - r) + lane, t + 1, span));
      expectSameBits(actual, expected, text.c_str());
      int64_t *distance = program.variable(kPrefetchDistance.data());
      ASSERT_EQ(distance != nullptr, T == 1) << text;
      if (!distance)
        continue;
      *distance = 4608; // reaches beyond the weights
      std::fill(actual.begin(), actual.end(), 0.0f);
      program.run({operands.weights.data(), operands.activations.data(), actual.data()}, {0}, span, entry);
      expectSameBits(actual, expected, "prefetching");
      *distance = 0;
    }
}

TEST_P(SpanDot, EqualsTheDocumentedOrder) {
  for (int64_t inputs : {1, 31, 32, 33, 37, 1025})
    for (auto [rowBlocks, tokens] : {std::pair{1, 1}, {3, 1}, {4, 1}, {5, 1}, {1, 4}, {2, 2}, {1, 3}, {2, 5}}) {
      checkSpanDot(GetParam(), {rowBlocks, tokens, inputs}, /*bank=*/false);
      if (HasFailure())
        return;
    }
}

TEST_P(SpanDot, FindsTheEntryOfABank) {
  checkSpanDot(GetParam(), {2, 1, 96}, /*bank=*/true);
  checkSpanDot(GetParam(), {2, 3, 96}, /*bank=*/true);
}

TEST_P(SpanDot, UnpackWidensOneGroupOfARow) {
  for (int64_t inputs : {1, 32, 37, 96}) {
    Operands operands(GetParam(), {2, 1, inputs}, /*bank=*/false, inputs);
    std::string weights = std::string("!kernel.weights<") + name(GetParam()) + ", 64x" + std::to_string(inputs) + ">";
    KernelProgram program("kernel.func @k(%w: " + weights +
                          ", %y: !kernel.buffer<f32>, %row: index) {\n"
                          "  %group = kernel.program_id x\n  %zero = arith.constant 0 : index\n"
                          "  %v = kernel.unpack %w[%row, %group] : " +
                          weights +
                          "\n  kernel.store_lanes %v, %y[%zero] : vector<32xf32>, !kernel.buffer<f32>\n"
                          "  kernel.return\n}\n");
    for (int64_t row = 0; row < 64; ++row)
      for (int64_t group = 0; group < operands.groups; ++group) {
        std::vector<float> actual(32), expected;
        program.run({operands.weights.data(), actual.data()}, {row}, group);
        bool quantized = GetParam() == BlockFormat::q8 || GetParam() == BlockFormat::q4;
        for (int64_t k = 32 * group; k < 32 * group + 32; ++k) {
          float value = operands.values[operands.index(0, row, k)];
          expected.push_back(k >= inputs ? 0 : quantized ? operands.scale(0, row, group) * value : value);
        }
        expectSameBits(actual, expected, "unpack");
      }
  }
}

/// Profiles that this processor cannot run are at least compiled here; they run in test/conformance where an emulator
/// or another machine is at hand.
TEST(SpanDotProfiles, EachCompilesEachFormat) {
  for (const Profile &profile : profiles())
    for (const char *format : {"f32", "f16", "bf16", "q8", "q4", "q5", "q4_k", "q6_k"})
      for (const char *tokens : {"%i0", "%i0, %i1, %i2"}) {
        bool many = strlen(tokens) > 3;
        std::string inputs = "512", result = std::string("vector<1x") + (many ? "3" : "1") + "x32xf32>";
        std::string weights = std::string("!kernel.weights<") + format + ", 32x" + inputs + ">";
        std::string activations =
            std::string("!kernel.activations<") + (format[0] == 'q' ? "i8, " : "f32, ") + inputs + ">";
        std::string text = "kernel.func @k(%w: " + weights + ", %x: " + activations +
                           ", %y: !kernel.buffer<f32>) {\n  %i0 = arith.constant 0 : index\n  %i1 = arith.constant 1 "
                           ": index\n  %i2 = arith.constant 2 : index\n  %d = kernel.span_dot %w rows[%i0] span %i0, "
                           "%x tokens[" +
                           tokens + "] : " + weights + ", " + activations + " -> " + result +
                           "\n  %v = vector.extract %d[0, 0] : vector<32xf32> from " + result +
                           "\n  kernel.store_lanes %v, %y[%i0] : vector<32xf32>, !kernel.buffer<f32>\n  "
                           "kernel.return\n}\n";
        std::vector<char> content = compile(text, profile.name);
        ASSERT_GT(content.size(), 64u) << profile.name.str() << " " << text;
        uint16_t machine;
        memcpy(&machine, content.data() + 18, sizeof(machine));
        EXPECT_EQ(machine, profile.architecture == Architecture::x86_64 ? EM_X86_64 : EM_AARCH64);
      }
}

} // namespace
} // namespace freeport::cpu::test
