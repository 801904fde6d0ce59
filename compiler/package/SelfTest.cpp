#include "compiler/package/SelfTest.h"

#include "mlir/Parser/Parser.h"

#include <cmath>
#include <cstring>
#include <set>

using namespace mlir;

namespace freeport {
namespace {

using kernel::BlockFormat;

constexpr int64_t kInputs = 96, kTokens = 5;
/// Vectors of 32 floats that a test leaves: a dot product of one token and of several, then what a root, a division and
/// an f16 make of the first, and the sum of its lanes.
constexpr int64_t kResults = 1 + kTokens + 4;

/// What the reference leaves, by format. A conformance test says what a changed kernel leaves.
uint64_t knownResult(BlockFormat format) {
  switch (format) {
  case BlockFormat::f32:
    return 0x13a974727ff08506;
  case BlockFormat::f16:
    return 0x7aa26e4019c5f679;
  case BlockFormat::bf16:
    return 0x6cd1b253743459af;
  case BlockFormat::q8:
    return 0xae85c32541e41265;
  case BlockFormat::q4:
    return 0xcc39a39a090aec26;
  case BlockFormat::q5:
    return 0x43cab336efb8ed63;
  case BlockFormat::q4_k:
    return 0x98de04de276bcd10;
  case BlockFormat::q6_k:
    return 0x1ab99736021c572a;
  }
  llvm_unreachable("a block format without a self-test");
}

template <typename T> void put(std::vector<char> &bytes, size_t at, T value) {
  std::memcpy(bytes.data() + at, &value, sizeof(T));
}

std::string kernelText(const std::string &name, StringRef format, const std::string &activations) {
  const std::string weights = "!kernel.weights<" + format.str() + ", 32x" + std::to_string(kInputs) + ">";
  std::string text =
      "kernel.func @" + name + "(%w: " + weights + ", %x: " + activations + ", %y: !kernel.buffer<f32>) {\n";
  for (int64_t i = 0; i < kResults; ++i)
    text += "%i" + std::to_string(i) + " = arith.constant " + std::to_string(i) + " : index\n%at" + std::to_string(i) +
            " = arith.constant " + std::to_string(kernel::kQuantum * i) + " : index\n";
  auto dot = [&](const std::string &value, const std::string &tokens, int64_t count) {
    text += value + " = kernel.span_dot %w rows[%i0] span %i0, %x tokens[" + tokens + "] : " + weights + ", " +
            activations + " -> vector<1x" + std::to_string(count) + "x32xf32>\n";
  };
  auto store = [&](const std::string &value, int64_t place) {
    text += "kernel.store_lanes " + value + ", %y[%at" + std::to_string(place) +
            "] : vector<32xf32>, !kernel.buffer<f32>\n";
  };
  dot("%one", "%i0", 1);
  text += "%v = vector.extract %one[0, 0] : vector<32xf32> from vector<1x1x32xf32>\n";
  store("%v", 0);
  dot("%many", "%i0, %i1, %i2, %i3, %i4", kTokens);
  for (int64_t token = 0; token < kTokens; ++token) {
    const std::string value = "%v" + std::to_string(token);
    text +=
        value + " = vector.extract %many[0, " + std::to_string(token) + "] : vector<32xf32> from vector<1x5x32xf32>\n";
    store(value, 1 + token);
  }
  text += R"(
    %ones = arith.constant dense<1.0> : vector<32xf32>
    %square = arith.mulf %v, %v : vector<32xf32>
    %sum = arith.addf %square, %ones : vector<32xf32>
    %root = kernel.sqrt %sum : vector<32xf32>
    %ratio = arith.divf %v, %root : vector<32xf32>
    %half = arith.truncf %ratio : vector<32xf32> to vector<32xf16>
    %wide = arith.extf %half : vector<32xf16> to vector<32xf32>
    %total = kernel.reduce add %ratio : vector<32xf32> -> f32
    %totals = vector.broadcast %total : f32 to vector<32xf32>
)";
  const char *after[] = {"%root", "%ratio", "%wide", "%totals"};
  for (auto [number, value] : llvm::enumerate(after))
    store(value, 1 + kTokens + static_cast<int64_t>(number));
  return text + "kernel.return\n}\n";
}

} // namespace

float sampleNumber(std::mt19937 &random) { return (static_cast<int32_t>(random() % 2000001) - 1000000) * 1e-6f; }

uint16_t sampleHalf(std::mt19937 &random) {
  uint32_t magnitude = 0x1400 + random() % 0x2400;
  return static_cast<uint16_t>(magnitude + 0x8000 * (random() % 2));
}

std::vector<char> sampleWeights(kernel::WeightsType type, std::mt19937 &random) {
  int64_t entryBytes = type.isBank() ? type.getEntryStride() : type.getEntryBytes();
  int64_t entries = type.hasDynamicEntries() ? 16 : std::max<int64_t>(type.getEntries(), 1);
  std::vector<char> bytes(entryBytes * entries);
  for (size_t at = 0; at < bytes.size(); at += 4)
    put(bytes, at, sampleNumber(random));
  int64_t records = type.getRowBlocks() * type.getGroups(), width = type.getRecordBytes();
  for (int64_t entry = 0; entry < entries; ++entry)
    for (int64_t record = 0; record < records; ++record) {
      size_t at = entry * entryBytes + record * width, size = width;
      if (type.getFormat() == BlockFormat::f16 || type.getFormat() == BlockFormat::bf16)
        for (size_t i = 0; i < size; i += 2)
          put(bytes, at + i, sampleHalf(random)); // as bf16: 2^-87 to 2^-14
      else if (type.isQuantized())
        for (int64_t row = 0; row < kernel::kQuantum; ++row)
          switch (type.getFormat()) {
          case BlockFormat::q4_k:
            put(bytes, at + size - 128 + 4 * row, sampleHalf(random));
            [[fallthrough]];
          case BlockFormat::q6_k:
            put(bytes, at + size - 126 + 4 * row, sampleHalf(random));
            break;
          default:
            put(bytes, at + size - 64 + 2 * row, sampleHalf(random));
          }
    }
  return bytes;
}

std::vector<char> sampleActivations(kernel::ActivationsType type, int64_t tokens, std::mt19937 &random) {
  std::vector<char> bytes(type.getTokenBytes() * tokens);
  int64_t groups = type.getGroups();
  for (int64_t token = 0; token < tokens; ++token) {
    size_t at = token * type.getTokenBytes();
    for (int64_t group = 0; group < groups; ++group) {
      int32_t sum = 0;
      for (int64_t k = 32 * group; k < std::min<int64_t>(32 * group + 32, type.getWidth()); ++k) {
        auto code = static_cast<int8_t>(static_cast<int32_t>(random() % 255) - 127);
        sum += code;
        if (type.isQuantized())
          bytes[at + k] = code;
        else
          put(bytes, at + 4 * k, sampleNumber(random));
      }
      if (!type.isQuantized())
        continue;
      put(bytes, at + 32 * groups + 4 * group, std::fabs(sampleNumber(random)) + 1e-3f);
      put(bytes, at + 36 * groups + 4 * group, sum);
    }
  }
  return bytes;
}

SelfTest addSelfTest(ModuleOp module, BlockFormat format) {
  const StringRef name = kernel::stringifyBlockFormat(format);
  const bool quantized = name.starts_with("q");
  const std::string activations =
      std::string("!kernel.activations<") + (quantized ? "i8, " : "f32, ") + std::to_string(kInputs) + ">";
  SelfTest test;
  test.kernel = "self_test_" + name.str();
  auto parsed = parseSourceString<ModuleOp>(kernelText(test.kernel, name, activations), module.getContext());
  assert(parsed && "the text above is a kernel");
  auto function = cast<kernel::FuncOp>(parsed->lookupSymbol(test.kernel)->clone());
  module.push_back(function);
  std::mt19937 random(static_cast<uint32_t>(format));
  test.arguments.push_back(sampleWeights(cast<kernel::WeightsType>(function.getArgumentTypes()[0]), random));
  test.arguments.push_back(
      sampleActivations(cast<kernel::ActivationsType>(function.getArgumentTypes()[1]), kTokens, random));
  test.resultBytes = 4 * kernel::kQuantum * kResults;
  test.result = knownResult(format);
  return test;
}

std::vector<SelfTest> addSelfTests(ModuleOp module) {
  std::set<BlockFormat> formats;
  module.walk([&](kernel::SpanDotOp dot) { formats.insert(dot.getWeights().getType().getFormat()); });
  std::vector<SelfTest> tests;
  for (BlockFormat format : formats)
    tests.push_back(addSelfTest(module, format));
  return tests;
}

} // namespace freeport
