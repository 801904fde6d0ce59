// Kernels on the reference device against numbers that NumPy computed from the formulas of KernelOps.td. Inputs of
// whole matrices come from an integer hash that both sides compute; outputs are compared by their first and last bits
// and a digest.
#include "compiler/lowering/Register.h"
#include "runtime/registry.h"
#include "test/conformance/RunKernel.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

namespace freeport {
namespace {

using Bytes = std::vector<char>;

template <typename T> Bytes bytes(const std::vector<T> &values) {
  Bytes result(values.size() * sizeof(T));
  std::memcpy(result.data(), values.data(), result.size());
  return result;
}

template <typename T> std::vector<T> values(const Bytes &from) {
  std::vector<T> result(from.size() / sizeof(T));
  std::memcpy(result.data(), from.data(), result.size() * sizeof(T));
  return result;
}

class InterpreterTest : public testing::Test {
protected:
  InterpreterTest() {
    mlir::DialectRegistry registry;
    registerDialects(registry);
    context.appendDialectRegistry(registry);
    backend = llvm::cantFail(findBackend("reference"));
  }

  mlir::OwningOpRef<mlir::ModuleOp> parse(const std::string &text) {
    auto module = mlir::parseSourceString<mlir::ModuleOp>(text, &context);
    EXPECT_TRUE(module) << text;
    return module;
  }

  void run(const std::string &text, std::vector<Bytes> &buffers, std::vector<int64_t> scalars = {},
           std::array<int64_t, 3> grid = {1, 1, 1}) {
    auto module = parse(text);
    ASSERT_TRUE(module);
    auto ran = runKernel(*backend, "bytecode", *module, "k", buffers, scalars, grid);
    ASSERT_TRUE(static_cast<bool>(ran)) << llvm::toString(ran.takeError());
  }

  /// What `expression`, which defines %r of 32 `type`, makes of 32 i32 lanes %a and %b.
  template <typename T>
  std::vector<T> lanes(const std::string &expression, const std::string &type, std::vector<int32_t> a,
                       std::vector<int32_t> b) {
    a.resize(32);
    b.resize(32);
    std::vector<Bytes> buffers = {bytes(a), bytes(b), Bytes(32 * sizeof(T))};
    run("kernel.func @k(%A: !kernel.buffer<i32>, %B: !kernel.buffer<i32>, %R: !kernel.buffer<" + type +
            ">) {\n%c0 = arith.constant 0 : index\n"
            "%a = kernel.load_lanes %A[%c0] : !kernel.buffer<i32> -> vector<32xi32>\n"
            "%b = kernel.load_lanes %B[%c0] : !kernel.buffer<i32> -> vector<32xi32>\n"
            "%x = arith.bitcast %a : vector<32xi32> to vector<32xf32>\n"
            "%y = arith.bitcast %b : vector<32xi32> to vector<32xf32>\n" +
            expression + "\nkernel.store_lanes %r, %R[%c0] : vector<32x" + type + ">, !kernel.buffer<" + type +
            ">\nkernel.return\n}",
        buffers);
    return values<T>(buffers[2]);
  }

  void expectIntegers(const std::string &op, std::vector<int32_t> a, std::vector<int32_t> b,
                      std::vector<int32_t> expected) {
    auto found = lanes<int32_t>("%r = " + op + " %a, %b : vector<32xi32>", "i32", std::move(a), std::move(b));
    found.resize(expected.size());
    EXPECT_EQ(found, expected) << op;
  }

  void expectFloats(const std::string &op, std::vector<int32_t> a, std::vector<int32_t> b,
                    std::vector<int32_t> expected) {
    auto found = lanes<int32_t>(
        "%f = " + op + " %x, %y : vector<32xf32>\n%r = arith.bitcast %f : vector<32xf32> to vector<32xi32>", "i32",
        std::move(a), std::move(b));
    found.resize(expected.size());
    EXPECT_EQ(found, expected) << op;
  }

  void expectMask(const std::string &comparison, std::vector<int32_t> a, std::vector<int32_t> b,
                  std::vector<int32_t> expected) {
    auto found = lanes<int32_t>("%m = " + comparison + "\n%r = arith.extui %m : vector<32xi1> to vector<32xi32>", "i32",
                                std::move(a), std::move(b));
    found.resize(expected.size());
    EXPECT_EQ(found, expected) << comparison;
  }

  mlir::MLIRContext context;
  const Backend *backend;
};

constexpr int32_t kLeast = INT32_MIN, kMost = INT32_MAX;

TEST_F(InterpreterTest, Integers) {
  expectIntegers("arith.addi", {1, kMost, -5}, {2, 1, 3}, {3, kLeast, -2});
  expectIntegers("arith.subi", {1, kLeast}, {2, 1}, {-1, kMost});
  expectIntegers("arith.muli", {7, 65536, -3}, {-6, 65536, 5}, {-42, 0, -15});
  expectIntegers("arith.divsi", {7, -7, kLeast, 5}, {2, 2, -1, 0}, {3, -3, kLeast, 0});
  expectIntegers("arith.remsi", {7, -7, kLeast, 5}, {2, 2, -1, 0}, {1, -1, 0, 0});
  expectIntegers("arith.ceildivsi", {7, -7, 6, -7, kMost}, {2, 2, 3, -2, 2}, {4, -3, 2, 4, 1073741824});
  expectIntegers("arith.andi", {12, -1}, {10, 5}, {8, 5});
  expectIntegers("arith.ori", {12, 0}, {10, 5}, {14, 5});
  expectIntegers("arith.xori", {12, -1}, {10, 5}, {6, -6});
  expectIntegers("arith.shli", {1, 3, 1}, {31, 4, 32}, {kLeast, 48, 0});
  expectIntegers("arith.shrui", {-1, 48, 1}, {28, 4, 32}, {15, 3, 0});
  expectIntegers("arith.shrsi", {-16, 48, -1}, {2, 4, 40}, {-4, 3, -1});
  expectIntegers("arith.minsi", {1, -2}, {-1, 3}, {-1, -2});
  expectIntegers("arith.maxsi", {1, -2}, {-1, 3}, {1, 3});
}

TEST_F(InterpreterTest, IntegerComparisons) {
  const std::pair<const char *, std::vector<int32_t>> cases[] = {
      {"eq", {0, 0, 1}},  {"ne", {1, 1, 0}},  {"slt", {1, 0, 0}}, {"sle", {1, 0, 1}}, {"sgt", {0, 1, 0}},
      {"sge", {0, 1, 1}}, {"ult", {0, 0, 0}}, {"ule", {0, 0, 1}}, {"ugt", {1, 1, 0}}, {"uge", {1, 1, 1}}};
  for (const auto &[predicate, expected] : cases)
    expectMask(std::string("arith.cmpi ") + predicate + ", %a, %b : vector<32xi32>", {-1, 4, 5}, {1, 3, 5}, expected);
}

TEST_F(InterpreterTest, FloatComparisons) {
  const std::pair<const char *, std::vector<int32_t>> cases[] = {
      {"oeq", {0, 0, 1, 0}}, {"ogt", {0, 1, 0, 0}}, {"oge", {0, 1, 1, 0}}, {"olt", {1, 0, 0, 0}}, {"ole", {1, 0, 1, 0}},
      {"one", {1, 1, 0, 0}}, {"ord", {1, 1, 1, 0}}, {"ueq", {0, 0, 1, 1}}, {"ugt", {0, 1, 0, 1}}, {"uge", {0, 1, 1, 1}},
      {"ult", {1, 0, 0, 1}}, {"ule", {1, 0, 1, 1}}, {"une", {1, 1, 0, 1}}, {"uno", {0, 0, 0, 1}}};
  for (const auto &[predicate, expected] : cases) // 1 2, 2 1, 0 -0, nan 1
    expectMask(std::string("arith.cmpf ") + predicate + ", %x, %y : vector<32xf32>",
               {0x3F800000, 0x40000000, 0, 0x7FC00000}, {0x40000000, 0x3F800000, kLeast, 0x3F800000}, expected);
}

TEST_F(InterpreterTest, Floats) {
  // 0.1 and 0.3; 1 + 2^-24 rounds to even; 3 / 7.
  std::vector<int32_t> a = {0x3DCCCCCD, 0x3F800000, 0x40400000}, b = {0x3E99999A, 0x33800000, 0x40E00000};
  expectFloats("arith.addf", a, b, {0x3ECCCCCD, 0x3F800000, 0x41200000});
  expectFloats("arith.subf", a, b, {static_cast<int32_t>(0xBE4CCCCE), 0x3F7FFFFF, static_cast<int32_t>(0xC0800000)});
  expectFloats("arith.mulf", a, b, {0x3CF5C290, 0x33800000, 0x41A80000});
  expectFloats("arith.divf", a, b, {0x3EAAAAAA, 0x4B800000, 0x3EDB6DB7});
}

TEST_F(InterpreterTest, NegateRootAndConvert) {
  auto negative = lanes<float>("%r = arith.negf %x : vector<32xf32>", "f32", {0, 0x3F800000}, {});
  EXPECT_TRUE(std::signbit(negative[0]));
  EXPECT_EQ(negative[1], -1.0f);
  auto root =
      lanes<int32_t>("%f = kernel.sqrt %x : vector<32xf32>\n%r = arith.bitcast %f : vector<32xf32> to vector<32xi32>",
                     "i32", {0x40000000, 0x3DCCCCCD}, {});
  EXPECT_EQ(root[0], 0x3FB504F3);
  EXPECT_EQ(root[1], 0x3EA1E89B);
  auto real = lanes<float>("%r = arith.sitofp %a : vector<32xi32> to vector<32xf32>", "f32", {-3, 16777217}, {});
  EXPECT_EQ(real[0], -3.0f);
  EXPECT_EQ(real[1], 16777216.0f);
  auto whole = lanes<int32_t>("%r = arith.fptosi %x : vector<32xf32> to vector<32xi32>", "i32",
                              {static_cast<int32_t>(0xC0266666), 0x7FC00000, 0x4F000000}, {}); // -2.6, nan, 2^31
  EXPECT_EQ(std::vector<int32_t>(whole.begin(), whole.begin() + 3), (std::vector<int32_t>{-2, kLeast, kLeast}));
  auto narrow = lanes<int32_t>("%t = arith.trunci %a : vector<32xi32> to vector<32xi8>\n"
                               "%r = arith.extsi %t : vector<32xi8> to vector<32xi32>",
                               "i32", {200, 300}, {});
  EXPECT_EQ(narrow[0], -56);
  EXPECT_EQ(narrow[1], 44);
}

TEST_F(InterpreterTest, SelectByMaskAndByScalar) {
  auto masked = lanes<int32_t>("%m = arith.cmpi sgt, %a, %b : vector<32xi32>\n"
                               "%r = arith.select %m, %a, %b : vector<32xi1>, vector<32xi32>",
                               "i32", {1, 9}, {5, 5});
  EXPECT_EQ(masked[0], 5);
  EXPECT_EQ(masked[1], 9);
  auto whole =
      lanes<int32_t>("%m = arith.constant true\n%r = arith.select %m, %a, %b : vector<32xi32>", "i32", {1, 9}, {5, 5});
  EXPECT_EQ(whole[0], 1);
  EXPECT_EQ(whole[1], 9);
}

//===-- Matrices against NumPy
//--------------------------------------------------------------------------------------===//

uint32_t mix(uint64_t index, uint32_t salt) {
  auto x = static_cast<uint32_t>(index * 2654435761u + uint64_t(salt) * 40503u + 12345u);
  x ^= x >> 15;
  x *= 2246822519u;
  return x ^ x >> 13;
}
float coarse(uint64_t index, uint32_t salt) { return (static_cast<int32_t>(mix(index, salt) & 1023) - 512) / 256.0f; }
float fine(uint64_t index, uint32_t salt) {
  return static_cast<float>(static_cast<int32_t>(mix(index, salt) & 0xFFFFFF) - (1 << 23)) / 4194304.0f;
}
float scale(uint64_t index, uint32_t salt) { return (static_cast<float>(mix(index, salt) & 1023) + 1.0f) / 2048.0f; }

/// f16 of a value that has one.
uint16_t half(float value) {
  if (value == 0)
    return 0;
  int exponent;
  float mantissa = std::frexp(std::fabs(value), &exponent); // in [0.5, 1)
  return static_cast<uint16_t>((value < 0) << 15 | (exponent + 14) << 10 | (static_cast<int>(mantissa * 2048) & 1023));
}

uint64_t digest(const std::vector<uint32_t> &bits) {
  uint64_t hash = 1469598103934665603u;
  for (uint32_t each : bits)
    hash = (hash ^ each) * 1099511628211u;
  return hash;
}

/// A matrix in packed records, from the description of !kernel.weights.
Bytes pack(const std::string &format, int64_t rows, int64_t inputs) {
  int64_t groups = (inputs + 31) / 32, blocks = (rows + 31) / 32;
  int64_t record = format == "f32" ? 4096 : format == "q8" ? 1088 : format == "q4" ? 576 : 2048;
  Bytes result(static_cast<size_t>(blocks * groups * record));
  for (int64_t row = 0; row < blocks * 32; ++row)
    for (int64_t input = 0; input < groups * 32; ++input) {
      char *to = result.data() + (row / 32 * groups + input / 32) * record;
      int64_t r = row % 32, i = input % 32, index = row * inputs + input;
      bool inside = row < rows && input < inputs;
      if (format == "q4") {
        auto code = static_cast<uint8_t>(inside ? mix(index, 1) & 15 : 8);
        to[4 * (32 * (i / 8) + r) + i % 4] |= static_cast<char>(i % 8 < 4 ? code : code << 4);
      } else if (format == "q8") {
        to[4 * (32 * (i / 4) + r) + i % 4] =
            static_cast<char>(inside ? static_cast<int>(mix(index, 1) % 255) - 127 : 0);
      } else if (format == "f32") {
        float value = inside ? fine(index, 1) : 0;
        std::memcpy(to + 4 * (32 * i + r), &value, 4);
      } else {
        float value = inside ? fine(index, 1) : 0;
        uint32_t bits;
        std::memcpy(&bits, &value, 4);
        uint16_t stored = format == "bf16" ? static_cast<uint16_t>(bits >> 16) : half(inside ? coarse(index, 1) : 0);
        std::memcpy(to + 4 * (32 * (i / 2) + r) + 2 * (i % 2), &stored, 2);
      }
      if (format[0] == 'q' && i == 0 && row < rows) {
        uint16_t stored = half(scale(row * groups + input / 32, 2));
        std::memcpy(to + record - 64 + 2 * r, &stored, 2);
      }
    }
  return result;
}

Bytes activations(bool quantized, int64_t inputs, int64_t tokens) {
  int64_t groups = (inputs + 31) / 32, record = ((quantized ? 40 : 128) * groups + 63) / 64 * 64;
  Bytes result(static_cast<size_t>(record * tokens));
  for (int64_t token = 0; token < tokens; ++token) {
    char *to = result.data() + token * record;
    for (int64_t input = 0; input < inputs; ++input) {
      float value = fine(input + token * inputs, 3);
      if (quantized)
        to[input] = static_cast<char>(static_cast<int>(mix(input + token * inputs, 3) % 255) - 127);
      else
        std::memcpy(to + 4 * input, &value, 4);
    }
    for (int64_t group = 0; quantized && group < groups; ++group) {
      float value = scale(group + token * groups, 4);
      std::memcpy(to + 32 * groups + 4 * group, &value, 4);
    }
  }
  return result;
}

std::string replaced(std::string text, std::initializer_list<std::pair<std::string, std::string>> pairs) {
  for (const auto &[from, to] : pairs)
    for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
      text.replace(at, from.size(), to);
  return text;
}

struct DotCase {
  const char *format;
  int64_t rows, inputs, tokens, span;
  uint32_t first, last;
  uint64_t digest;
};
const DotCase kDots[] = {
    {"f32", 1, 1, 1, 0, 0xBF95F11Fu, 0xBF95F11Fu, 0xB0AC456AB3343F14ull},
    {"f32", 31, 33, 2, 0, 0xBFC7737Cu, 0x3F49C8EAu, 0x4D270BD663967496ull},
    {"f32", 33, 31, 3, 0, 0xC04DAED0u, 0x40363625u, 0x1C1835EFACFF3ADCull},
    {"f32", 33, 67, 2, 0, 0x406EEDDCu, 0x404BA48Cu, 0x3D056EDEB1F13ECBull},
    {"f32", 2, 1057, 2, 1, 0xBF3FA1AEu, 0x41107CD1u, 0xBFE12BC9D62BC05Full},
    {"f16", 1, 1, 1, 0, 0xBF6A16FBu, 0xBF6A16FBu, 0x9ECF216C47D97AE8ull},
    {"f16", 31, 33, 2, 0, 0x3F9046C0u, 0x4159AE7Cu, 0x2776C6AEE387B896ull},
    {"f16", 33, 31, 3, 0, 0x3F95A339u, 0xC1187CA8u, 0xDE70E8AED15ABE1Aull},
    {"f16", 33, 67, 2, 0, 0x40AC42CEu, 0x401B9461u, 0xCAED6CA1DCF4E93Dull},
    {"f16", 2, 1057, 2, 1, 0x3F121C79u, 0x40ACAB70u, 0xFC3278BAEFE8AA72ull},
    {"bf16", 1, 1, 1, 0, 0xBF95DDF3u, 0xBF95DDF3u, 0xB098196AB311F850ull},
    {"bf16", 31, 33, 2, 0, 0xBFC5B3FAu, 0x3F4910CAu, 0x8CB9A93B4C220231ull},
    {"bf16", 33, 31, 3, 0, 0xC04CAE46u, 0x40361EEEu, 0x5D087AE819228767ull},
    {"bf16", 33, 67, 2, 0, 0x406FCFA0u, 0x404BFC0Au, 0x7A3B75C23EE228D2ull},
    {"bf16", 2, 1057, 2, 1, 0xBF3F5D94u, 0x41102770u, 0x95757870ADD980A3ull},
    {"q8", 1, 1, 1, 0, 0x3E657CA0u, 0x3E657CA0u, 0xA038CB947D400879ull},
    {"q8", 31, 33, 2, 0, 0xC2F05378u, 0x42A91AAEu, 0x0EC99CC2A558A2D0ull},
    {"q8", 33, 31, 3, 0, 0xC2D89A7Du, 0x43B81759u, 0x74ADEBFE94C1BDD6ull},
    {"q8", 33, 67, 2, 0, 0xC46953ACu, 0x44DF6EC3u, 0xF15D5F037B7BC7AEull},
    {"q8", 2, 1057, 2, 1, 0xC4AD5F8Au, 0xC39611D0u, 0x0C3B01E79463AF84ull},
    {"q4", 1, 1, 1, 0, 0x3C3C4C00u, 0x3C3C4C00u, 0x49092B974F1A1B99ull},
    {"q4", 31, 33, 2, 0, 0xC1443F3Bu, 0xC199228Cu, 0x81D68B4338C79671ull},
    {"q4", 33, 31, 3, 0, 0xC15462B9u, 0xC207038Bu, 0x20D05657A9568914ull},
    {"q4", 33, 67, 2, 0, 0xC1063D60u, 0x432DB2A6u, 0x87A64BFF9CD2F99Full},
    {"q4", 2, 1057, 2, 1, 0xC367DAF3u, 0x42BC4549u, 0xB9911A9F21A2901Full},
};

TEST_F(InterpreterTest, SpanDot) {
  for (const DotCase &each : kDots) {
    std::string format = each.format;
    bool quantized = format[0] == 'q';
    int64_t blocks = (each.rows + 31) / 32;
    std::string text = replaced(R"(
      kernel.func @k(%w: !kernel.weights<FORMAT, ROWSxINPUTS>, %x: !kernel.activations<TYPE, INPUTS>, %y: !kernel.buffer<f32>,
                     %span: index, %stride: index) {
        %r = kernel.program_id x
        %t = kernel.program_id y
        %v = kernel.span_dot %w rows[%r] span %span, %x tokens[%t]
             : !kernel.weights<FORMAT, ROWSxINPUTS>, !kernel.activations<TYPE, INPUTS> -> vector<1x1x32xf32>
        %lanes = vector.extract %v[0, 0] : vector<32xf32> from vector<1x1x32xf32>
        %c32 = arith.constant 32 : index
        %row = arith.muli %r, %c32 : index
        %token = arith.muli %t, %stride : index
        %at = arith.addi %row, %token : index
        kernel.store_lanes %lanes, %y[%at] : vector<32xf32>, !kernel.buffer<f32>
        kernel.return
      })",
                                {{"FORMAT", format},
                                 {"ROWS", std::to_string(each.rows)},
                                 {"INPUTS", std::to_string(each.inputs)},
                                 {"TYPE", quantized ? "i8" : "f32"}});
    std::vector<Bytes> buffers = {pack(format, each.rows, each.inputs),
                                  activations(quantized, each.inputs, each.tokens),
                                  Bytes(static_cast<size_t>(blocks * 32 * each.tokens * 4))};
    run(text, buffers, {each.span, blocks * 32}, {blocks, each.tokens, 1});
    auto padded = values<uint32_t>(buffers[2]);
    std::vector<uint32_t> found;
    for (int64_t token = 0; token < each.tokens; ++token)
      found.insert(found.end(), padded.begin() + token * blocks * 32, padded.begin() + token * blocks * 32 + each.rows);
    std::string name = format + " " + std::to_string(each.rows) + "x" + std::to_string(each.inputs);
    EXPECT_EQ(found.front(), each.first) << name;
    EXPECT_EQ(found.back(), each.last) << name;
    EXPECT_EQ(digest(found), each.digest) << name;
  }
}

TEST_F(InterpreterTest, Unpack) {
  const std::pair<const char *, uint64_t> cases[] = {
      {"f32", 0xE30750EC5AD60833ull}, {"f16", 0x4015C3063E40C803ull}, {"bf16", 0x7AC2831A4C1FC803ull},
      {"q8", 0xA22A66AAABAAAE03ull},  {"q4", 0x2FFF71D0C58CA803ull},
  };
  for (const auto &[format, expected] : cases) {
    std::string text = replaced(R"(
      kernel.func @k(%w: !kernel.weights<FORMAT, 33x67>, %y: !kernel.buffer<f32>) {
        %g = kernel.program_id x
        %c32 = arith.constant 32 : index
        %v = kernel.unpack %w[%c32, %g] : !kernel.weights<FORMAT, 33x67>
        %at = arith.muli %g, %c32 : index
        kernel.store_lanes %v, %y[%at] : vector<32xf32>, !kernel.buffer<f32>
        kernel.return
      })",
                                {{"FORMAT", format}});
    std::vector<Bytes> buffers = {pack(format, 33, 67), Bytes(96 * 4)};
    run(text, buffers, {}, {3, 1, 1});
    EXPECT_EQ(digest(values<uint32_t>(buffers[1])), expected) << format;
  }
}

TEST_F(InterpreterTest, LanesCombineByTheTree) {
  std::vector<float> input(32);
  for (int i = 0; i < 32; ++i)
    input[i] = fine(i, 7);
  std::vector<Bytes> buffers = {bytes(input), Bytes(16), Bytes(8), Bytes(128)};
  run(R"(kernel.func @k(%x: !kernel.buffer<f32>, %f: !kernel.buffer<f32>, %n: !kernel.buffer<i32>, %s: !kernel.buffer<i32>) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c2 = arith.constant 2 : index
    %c3 = arith.constant 3 : index
    %v = kernel.load_lanes %x[%c0] : !kernel.buffer<f32> -> vector<32xf32>
    %id = kernel.lane_id
    %add = kernel.reduce add %v : vector<32xf32> -> f32
    %max = kernel.reduce max %v : vector<32xf32> -> f32
    %min = kernel.reduce min %v : vector<32xf32> -> f32
    %fifth = kernel.broadcast %v[%c3] : vector<32xf32> -> f32
    kernel.store %add, %f[%c0] : f32, !kernel.buffer<f32>
    kernel.store %max, %f[%c1] : f32, !kernel.buffer<f32>
    kernel.store %min, %f[%c2] : f32, !kernel.buffer<f32>
    kernel.store %fifth, %f[%c3] : f32, !kernel.buffer<f32>
    %best, %index = kernel.argmax %v, %id
    kernel.store %index, %n[%c0] : i32, !kernel.buffer<i32>
    %same = arith.constant dense<1.0> : vector<32xf32>
    %tied, %lowest = kernel.argmax %same, %id
    kernel.store %lowest, %n[%c1] : i32, !kernel.buffer<i32>
    %scan = kernel.scan %id
    kernel.store_lanes %scan, %s[%c0] : vector<32xi32>, !kernel.buffer<i32>
    kernel.return
  })",
      buffers);
  EXPECT_EQ(values<uint32_t>(buffers[1]),
            (std::vector<uint32_t>{0xC0507277, 0x3FFE59B2, 0xBFEB3C5C, values<uint32_t>(buffers[0])[3]}));
  EXPECT_EQ(values<int32_t>(buffers[2]), (std::vector<int32_t>{16, 0}));
  EXPECT_EQ(values<int32_t>(buffers[3])[31], 496);
  EXPECT_EQ(values<int32_t>(buffers[3])[2], 3);
}

TEST_F(InterpreterTest, EveryHalfConverts) {
  std::vector<uint16_t> all(65536);
  for (size_t i = 0; i < all.size(); ++i)
    all[i] = static_cast<uint16_t>(i);
  std::vector<Bytes> buffers = {bytes(all), Bytes(65536 * 4), Bytes(65536 * 2)};
  run(R"(kernel.func @k(%h: !kernel.buffer<f16>, %f: !kernel.buffer<f32>, %back: !kernel.buffer<f16>) {
    %p = kernel.program_id x
    %c32 = arith.constant 32 : index
    %at = arith.muli %p, %c32 : index
    %v = kernel.load_lanes %h[%at] : !kernel.buffer<f16> -> vector<32xf16>
    %w = arith.extf %v : vector<32xf16> to vector<32xf32>
    %n = arith.truncf %w : vector<32xf32> to vector<32xf16>
    kernel.store_lanes %w, %f[%at] : vector<32xf32>, !kernel.buffer<f32>
    kernel.store_lanes %n, %back[%at] : vector<32xf16>, !kernel.buffer<f16>
    kernel.return
  })",
      buffers, {}, {2048, 1, 1});
  auto wide = values<uint32_t>(buffers[1]);
  auto back = values<uint16_t>(buffers[2]);
  std::vector<uint32_t> finite;
  for (size_t i = 0; i < all.size(); ++i)
    if ((i & 0x7C00) != 0x7C00) {
      finite.push_back(wide[i]);
      EXPECT_EQ(back[i], all[i]);
    }
  EXPECT_EQ(digest(finite), 8627893624366769027u);
}

TEST_F(InterpreterTest, FloatsRoundToHalf) {
  std::vector<uint32_t> all;
  for (uint64_t bits = 0; bits < (uint64_t(1) << 32); bits += 4099)
    if ((bits & 0x7FFFFFFF) <= 0x7F800000)
      all.push_back(static_cast<uint32_t>(bits));
  size_t count = all.size();
  ASSERT_EQ(count, 1043716u);
  all.resize((count + 31) / 32 * 32);
  std::vector<Bytes> buffers = {bytes(all), Bytes(all.size() * 2)};
  run(R"(kernel.func @k(%f: !kernel.buffer<f32>, %h: !kernel.buffer<f16>) {
    %p = kernel.program_id x
    %c32 = arith.constant 32 : index
    %at = arith.muli %p, %c32 : index
    %v = kernel.load_lanes %f[%at] : !kernel.buffer<f32> -> vector<32xf32>
    %n = arith.truncf %v : vector<32xf32> to vector<32xf16>
    kernel.store_lanes %n, %h[%at] : vector<32xf16>, !kernel.buffer<f16>
    kernel.return
  })",
      buffers, {}, {static_cast<int64_t>(all.size() / 32), 1, 1});
  auto found = values<uint16_t>(buffers[1]);
  EXPECT_EQ(digest(std::vector<uint32_t>(found.begin(), found.begin() + static_cast<ptrdiff_t>(count))),
            16448413197059360347u);
}

TEST_F(InterpreterTest, LoopsCarryAndBranch) {
  // The carried pair is swapped each time round: (a, b) -> (b, a + b), ten times from (0, 1), only in even programs.
  std::vector<Bytes> buffers = {bytes(std::vector<int32_t>(8))};
  run(R"(kernel.func @k(%y: !kernel.buffer<i32>, %n: index) {
    %p = kernel.program_id x
    %q = kernel.program_id y
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c2 = arith.constant 2 : index
    %i0 = arith.constant 0 : i32
    %i1 = arith.constant 1 : i32
    %a, %b = scf.for %i = %c0 to %n step %c1 iter_args(%u = %i0, %v = %i1) -> (i32, i32) {
      %s = arith.addi %u, %v : i32
      scf.yield %v, %s : i32, i32
    }
    %odd = arith.remsi %p, %c2 : index
    %even = arith.cmpi eq, %odd, %c0 : index
    %r = scf.if %even -> (i32) {
      scf.yield %a : i32
    } else {
      %m = arith.subi %i0, %b : i32
      scf.yield %m : i32
    }
    %row = arith.muli %q, %c2 : index
    %at = arith.addi %row, %p : index
    kernel.store %r, %y[%at] : i32, !kernel.buffer<i32>
    kernel.return
  })",
      buffers, {10}, {2, 4, 1});
  EXPECT_EQ(values<int32_t>(buffers[0]), (std::vector<int32_t>{55, -89, 55, -89, 55, -89, 55, -89}));
}

TEST_F(InterpreterTest, MasksTouchNoMemory) {
  std::vector<int32_t> input(32);
  for (int i = 0; i < 32; ++i)
    input[i] = 100 + i;
  std::vector<Bytes> buffers = {bytes(input), bytes(std::vector<int32_t>(64, -1))};
  run(R"(kernel.func @k(%x: !kernel.buffer<i32>, %y: !kernel.buffer<i32>) {
    %c0 = arith.constant 0 : index
    %c32 = arith.constant 32 : index
    %id = kernel.lane_id
    %last = arith.constant dense<31> : vector<32xi32>
    %limit = arith.constant dense<3> : vector<32xi32>
    %far = arith.constant dense<1000000000> : vector<32xi32>
    %mask = arith.cmpi slt, %id, %limit : vector<32xi32>
    %backwards = arith.subi %last, %id : vector<32xi32>
    %at = arith.select %mask, %backwards, %far : vector<32xi1>, vector<32xi32>
    %g = kernel.gather %x[%c0][%at] mask %mask : !kernel.buffer<i32> -> vector<32xi32>
    kernel.store_lanes %g, %y[%c0] : vector<32xi32>, !kernel.buffer<i32>
    kernel.scatter %g, %y[%c32][%at] mask %mask : vector<32xi32>, !kernel.buffer<i32>
    kernel.return
  })",
      buffers);
  auto found = values<int32_t>(buffers[1]);
  EXPECT_EQ(std::vector<int32_t>(found.begin(), found.begin() + 5), (std::vector<int32_t>{131, 130, 129, 0, 0}));
  EXPECT_EQ(std::vector<int32_t>(found.end() - 5, found.end()), (std::vector<int32_t>{-1, -1, 129, 130, 131}));
}

TEST_F(InterpreterTest, StageTransposesAndWidens) {
  std::vector<uint16_t> source(32 * 5);
  for (int row = 0; row < 32; ++row)
    for (int column = 0; column < 5; ++column)
      source[row * 5 + column] = half(static_cast<float>(row * 8 + column + 1));
  std::vector<Bytes> buffers = {bytes(source), Bytes(3 * 32 * 4)};
  run(R"(kernel.func @k(%x: !kernel.buffer<f16>, %y: !kernel.buffer<f32>) {
    %c1 = arith.constant 1 : index
    %c0 = arith.constant 0 : index
    %c3 = arith.constant 3 : index
    %c32 = arith.constant 32 : index
    %l = kernel.local 96 : !kernel.buffer<f32>
    kernel.stage %x[%c1] pitch 5 to %l columns 3 : !kernel.buffer<f16> to !kernel.buffer<f32>
    scf.for %i = %c0 to %c3 step %c1 {
      %at = arith.muli %i, %c32 : index
      %v = kernel.load_lanes %l[%at] : !kernel.buffer<f32> -> vector<32xf32>
      kernel.store_lanes %v, %y[%at] : vector<32xf32>, !kernel.buffer<f32>
    }
    kernel.return
  })",
      buffers);
  auto found = values<float>(buffers[1]);
  for (int column = 0; column < 3; ++column)
    for (int row = 0; row < 32; ++row)
      EXPECT_EQ(found[column * 32 + row], static_cast<float>(row * 8 + column + 2));
}

TEST_F(InterpreterTest, StoreGroupFillsTheRecord) {
  std::vector<Bytes> buffers = {Bytes(2 * 128)};
  run(R"(kernel.func @k(%x: !kernel.activations<i8, 33>) {
    %c1 = arith.constant 1 : index
    %v = arith.constant dense<7> : vector<32xi8>
    %s = arith.constant 0.5 : f32
    %n = arith.constant 224 : i32
    kernel.store_group %v scale %s sum %n, %x[%c1, %c1] : vector<32xi8>, !kernel.activations<i8, 33>
    kernel.return
  })",
      buffers);
  Bytes expected(2 * 128);
  float scale = 0.5f;
  int32_t sum = 224;
  std::memset(expected.data() + 128 + 32, 7, 32);
  std::memcpy(expected.data() + 128 + 64 + 4, &scale, 4);
  std::memcpy(expected.data() + 128 + 64 + 8 + 4, &sum, 4);
  EXPECT_EQ(buffers[0], expected);
}

TEST_F(InterpreterTest, VectorsOfRegisters) {
  std::vector<Bytes> buffers = {Bytes(4 * 32 * 4)};
  run(R"(kernel.func @k(%y: !kernel.buffer<i32>, %i: index) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %c4 = arith.constant 4 : index
    %c32 = arith.constant 32 : index
    %id = kernel.lane_id
    %seven = arith.constant dense<7> : vector<32xi32>
    %rows = arith.constant dense<[[[1], [2]]]> : vector<1x2x1xi32>
    %stretched = vector.broadcast %rows : vector<1x2x1xi32> to vector<2x2x32xi32>
    %tiled = vector.broadcast %id : vector<32xi32> to vector<2x2x32xi32>
    %sum = arith.addi %stretched, %tiled : vector<2x2x32xi32>
    %all = vector.insert %seven, %sum[1, %i] : vector<32xi32> into vector<2x2x32xi32>
    %a = vector.extract %all[0, 0] : vector<32xi32> from vector<2x2x32xi32>
    %b = vector.extract %all[0, %i] : vector<32xi32> from vector<2x2x32xi32>
    %c = vector.extract %all[1, 0] : vector<32xi32> from vector<2x2x32xi32>
    %d = vector.extract %all[1, 1] : vector<32xi32> from vector<2x2x32xi32>
    %c64 = arith.constant 64 : index
    %c96 = arith.constant 96 : index
    kernel.store_lanes %a, %y[%c0] : vector<32xi32>, !kernel.buffer<i32>
    kernel.store_lanes %b, %y[%c32] : vector<32xi32>, !kernel.buffer<i32>
    kernel.store_lanes %c, %y[%c64] : vector<32xi32>, !kernel.buffer<i32>
    kernel.store_lanes %d, %y[%c96] : vector<32xi32>, !kernel.buffer<i32>
    kernel.return
  })",
      buffers, {1});
  auto found = values<int32_t>(buffers[0]);
  for (int lane = 0; lane < 32; ++lane) {
    EXPECT_EQ(found[lane], lane + 1);
    EXPECT_EQ(found[32 + lane], lane + 2);
    EXPECT_EQ(found[64 + lane], lane + 1);
    EXPECT_EQ(found[96 + lane], 7);
  }
}

//===-- What it declines
//--------------------------------------------------------------------------------------------===//

TEST_F(InterpreterTest, DeclinesTypesByName) {
  auto module = parse("kernel.func @k(%y: !kernel.buffer<f32>) {\n%c = arith.constant 1.0 : f64\nkernel.return\n}");
  llvm::Expected<Executable> executable = backend->serialize(*module, "bytecode");
  ASSERT_FALSE(static_cast<bool>(executable));
  std::string message = llvm::toString(executable.takeError());
  EXPECT_NE(message.find("arith.constant"), std::string::npos) << message;
  EXPECT_NE(message.find("got f64"), std::string::npos) << message;
}

TEST_F(InterpreterTest, RefusesOtherCountsOfOperands) {
  auto module =
      parse("kernel.func @k(%x: !kernel.buffer<f32>, %y: !kernel.buffer<f32>, %n: index) {\nkernel.return\n}");
  const std::tuple<size_t, size_t, const char *> cases[] = {
      {1, 1, "expects 2 bindings and 1 scalars for kernel 'k', got 1 and 1"},
      {2, 0, "expects 2 bindings and 1 scalars for kernel 'k', got 2 and 0"},
      {3, 2, "expects 2 bindings and 1 scalars for kernel 'k', got 3 and 2"}};
  for (const auto &[count, scalars, expected] : cases) {
    std::vector<Bytes> buffers(count, Bytes(4));
    auto ran = runKernel(*backend, "bytecode", *module, "k", buffers, std::vector<int64_t>(scalars),
                         std::array<int64_t, 3>{1, 1, 1});
    std::string message = llvm::toString(ran.takeError());
    EXPECT_NE(message.find(expected), std::string::npos) << message;
  }
}

TEST_F(InterpreterTest, DamagedBytecodeNeverCrashes) {
  auto module = parse(
      R"(kernel.func @k(%w: !kernel.weights<q4, 33x67>, %x: !kernel.activations<i8, 67>, %y: !kernel.buffer<f32>, %n: index) {
    %c0 = arith.constant 0 : index
    %c1 = arith.constant 1 : index
    %zero = arith.constant dense<0.0> : vector<1x1x32xf32>
    %l = kernel.local 32 : !kernel.buffer<f32>
    %s = scf.for %i = %c0 to %n step %c1 iter_args(%acc = %zero) -> (vector<1x1x32xf32>) {
      %v = kernel.span_dot %w rows[%c0] span %i, %x tokens[%c0]
           : !kernel.weights<q4, 33x67>, !kernel.activations<i8, 67> -> vector<1x1x32xf32>
      %a = arith.addf %acc, %v : vector<1x1x32xf32>
      scf.yield %a : vector<1x1x32xf32>
    }
    %r = vector.extract %s[0, 0] : vector<32xf32> from vector<1x1x32xf32>
    kernel.store_lanes %r, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
    kernel.return
  })");
  Executable executable = llvm::cantFail(backend->serialize(*module, "bytecode"));
  const fp_device_api *api = find_device_api("reference");
  fp_device_options options = {"", 1, 0};
  fp_device *device = nullptr;
  fp_error error = {};
  ASSERT_EQ(api->open(&options, &device, &error), 0);
  const char *names[] = {"k"};
  auto load = [&](const std::vector<char> &content, uint32_t version) {
    fp_executable *loaded = nullptr;
    error = {};
    int32_t code = api->load(device, content.data(), content.size(), version, names, 1, &loaded, &error);
    if (!code)
      api->unload(device, loaded);
    else
      EXPECT_STRNE(error.message, "");
    return code;
  };
  EXPECT_EQ(load(executable.content, 1), 0) << error.message;
  EXPECT_NE(load(executable.content, 2), 0);
  size_t refused = 0;
  for (size_t i = 0; i < executable.content.size(); ++i)
    for (int flip : {1, 0x80, 0xFF}) {
      std::vector<char> damaged = executable.content;
      damaged[i] = static_cast<char>(damaged[i] ^ flip);
      refused += load(damaged, 1) != 0;
    }
  EXPECT_GT(refused, executable.content.size() / 2);
  for (size_t size = 0; size < executable.content.size(); ++size)
    EXPECT_NE(load({executable.content.begin(), executable.content.begin() + static_cast<ptrdiff_t>(size)}, 1), 0)
        << size;
  api->close(device);
}

} // namespace
} // namespace freeport
