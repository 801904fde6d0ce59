// Every backend against the reference, bit for bit: packed dot products over formats and awkward shapes, random
// kernels, and each kernel that the test models lower to. A backend joins by standing in backends/CMakeLists.txt.
#include "compiler/frontend/Frontend.h"
#include "compiler/lowering/Pipeline.h"
#include "compiler/lowering/Register.h"
#include "compiler/package/SelfTest.h"
#include "dialects/kernel/Kernel.h"
#include "test/conformance/RunKernel.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"

#include <gtest/gtest.h>
#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <map>
#include <random>

using namespace mlir;

namespace freeport {
namespace {

using Bytes = std::vector<char>;
using Buffers = std::vector<Bytes>;

template <typename T> void put(Bytes &bytes, size_t at, T value) { std::memcpy(bytes.data() + at, &value, sizeof(T)); }

class BackendsAgree : public testing::Test {
protected:
  BackendsAgree() : context(MLIRContext::Threading::DISABLED), random(1) {
    DialectRegistry registry;
    registerDialects(registry);
    context.appendDialectRegistry(registry);
    context.loadAllAvailableDialects();
  }

  uint32_t below(uint32_t bound) { return random() % bound; }
  /// Operands of a kernel: numbers in buffers of floats, 0 and 1 in those of integers, packed weights, and activations
  /// with the sums that their bytes have. Buffers hold `bufferBytes`, activations `tokens` records.
  Buffers operands(kernel::FuncOp function, size_t bufferBytes, int64_t tokens) {
    Buffers buffers;
    for (Type type : function.getArgumentTypes()) {
      if (auto buffer = dyn_cast<kernel::BufferType>(type))
        buffers.push_back(fillBuffer(buffer.getElementType(), bufferBytes));
      else if (auto weights = dyn_cast<kernel::WeightsType>(type))
        buffers.push_back(sampleWeights(weights, random));
      else if (auto activations = dyn_cast<kernel::ActivationsType>(type))
        buffers.push_back(sampleActivations(activations, tokens, random));
    }
    return buffers;
  }

  /// Runs `function` everywhere and expects the reference's bits. Counts the kernels that changed their operands.
  void check(ModuleOp module, kernel::FuncOp function, const Buffers &operands, ArrayRef<int64_t> scalars,
             std::array<int64_t, 3> grid) {
    Buffers expected = operands;
    const Backend *reference = llvm::cantFail(findBackend("reference"));
    std::string name = function.getSymName().str();
    auto ran = runKernel(*reference, "bytecode", module, name, expected, scalars, grid);
    if (!ran) {
      FAIL() << name << ": " << llvm::toString(ran.takeError());
    }
    effective += expected != operands;
    // The least and the best profile that a machine at hand runs hold what those between them combine.
    for (const std::unique_ptr<Backend> &backend : backends()) {
      if (backend.get() == reference)
        continue;
      auto [known, fresh] = extremes.try_emplace(backend.get());
      if (fresh)
        known->second = findExtremes(*backend, module, function, operands, scalars, grid);
      for (const std::string &profile : known->second)
        compare(*backend, profile, module, function, operands, scalars, grid, expected);
    }
  }

  /// The least and the best profile of those that run here, and of those that run in the dispatch runner.
  std::vector<std::string> findExtremes(const Backend &backend, ModuleOp module, kernel::FuncOp function,
                                        const Buffers &operands, ArrayRef<int64_t> scalars,
                                        std::array<int64_t, 3> grid) {
    std::map<RanAt, std::pair<std::string, std::string>> found;
    for (const std::string &profile : backend.profiles()) {
      Buffers buffers = operands;
      auto place = runKernel(backend, profile, module, function.getSymName(), buffers, scalars, grid);
      if (!place)
        ADD_FAILURE() << profile << ": " << llvm::toString(place.takeError());
      else if (*place)
        (found[*place].first.empty() ? found[*place].first : found[*place].second) = profile;
    }
    std::vector<std::string> profiles;
    for (const auto &[place, extremes] : found)
      for (const std::string &profile : {extremes.first, extremes.second})
        if (!profile.empty())
          profiles.push_back(profile);
    return profiles;
  }

  /// Runs `function` for one profile and expects what the reference left.
  void compare(const Backend &backend, const std::string &profile, ModuleOp module, kernel::FuncOp function,
               const Buffers &operands, ArrayRef<int64_t> scalars, std::array<int64_t, 3> grid,
               const Buffers &expected) {
    Buffers found = operands;
    std::string name = function.getSymName().str() + " on " + backend.name().str() + " (" + profile + ")";
    auto ran = runKernel(backend, profile, module, function.getSymName(), found, scalars, grid);
    if (!ran) {
      ADD_FAILURE() << name << ": " << llvm::toString(ran.takeError());
      return;
    }
    for (size_t i = 0; i < found.size(); ++i)
      if (found[i] != expected[i]) {
        auto [mine, theirs] = std::mismatch(found[i].begin(), found[i].end(), expected[i].begin());
        std::string text;
        llvm::raw_string_ostream(text) << function;
        ADD_FAILURE() << name << ": argument " << i << " differs at byte " << (mine - found[i].begin()) << "\n"
                      << text.substr(0, 4000);
        return;
      }
  }

  /// As above for a kernel called k.
  void check(const std::string &text, size_t bufferBytes, int64_t tokens, ArrayRef<int64_t> scalars,
             std::array<int64_t, 3> grid) {
    auto module = parseSourceString<ModuleOp>(text, &context);
    ASSERT_TRUE(module) << text;
    auto function = module->lookupSymbol<kernel::FuncOp>("k");
    check(*module, function, operands(function, bufferBytes, tokens), scalars, grid);
  }

  MLIRContext context;
  size_t effective = 0;
  static inline std::map<const Backend *, std::vector<std::string>> extremes; ///< profiles that `check` compares

private:
  Bytes fillBuffer(Type element, size_t size) {
    Bytes bytes(size);
    size_t width = element.getIntOrFloatBitWidth() / 8;
    for (size_t at = 0; at + width <= size; at += width) {
      if (element.isF32())
        put(bytes, at, sampleNumber(random));
      else if (element.isF16())
        put(bytes, at, sampleHalf(random));
      else if (element.isInteger(32))
        put(bytes, at, static_cast<int32_t>(below(2)));
      else
        bytes[at] = static_cast<char>(below(256));
    }
    return bytes;
  }

  std::mt19937 random;
};

std::string text(int64_t value) { return std::to_string(value); }

constexpr const char *kFormats[] = {"f32", "f16", "bf16", "q8", "q4", "q5", "q4_k", "q6_k"};

enum class Spans { byProgram, summed };

/// A kernel that writes the values of a span_dot of R row blocks and T tokens: one span, by x, or all summed in order;
/// for a bank, of entry y.
std::string spanDotKernel(const std::string &format, int64_t inputs, int64_t rowBlocks, int64_t tokens, bool bank,
                          Spans spans = Spans::byProgram) {
  bool quantized = format[0] == 'q';
  std::string weights = "!kernel.weights<" + format + ", " + (bank ? "3x" : "") + text(32 * rowBlocks - 5) + "x" +
                        text(inputs) + (bank ? ", stride = " + text((inputs + 31) / 32 * rowBlocks * 4096) : "") + ">";
  std::string activations = std::string("!kernel.activations<") + (quantized ? "i8, " : "f32, ") + text(inputs) + ">";
  std::string result = "vector<" + text(rowBlocks) + "x" + text(tokens) + "x32xf32>", rows, records, stores;
  std::string body = "%span = kernel.program_id x\n%entry = kernel.program_id y\n";
  for (int64_t i = 0; i < rowBlocks * tokens + 1; ++i)
    body += "%c" + text(i) + " = arith.constant " + text(i) + " : index\n";
  body += "%size = arith.constant " + text(32 * rowBlocks * tokens) + " : index\n%from = arith.muli " +
          (bank ? "%entry" : "%span") + ", %size : index\n";
  for (int64_t r = 0; r < rowBlocks; ++r)
    rows += (r ? ", %c" : "%c") + text(rowBlocks - 1 - r);
  for (int64_t t = 0; t < tokens; ++t)
    records += (t ? ", %c" : "%c") + text((t + 1) % tokens);
  std::string dot = " = kernel.span_dot %w " + std::string(bank ? "entry %entry " : "") + "rows[" + rows +
                    "] span %span, %x tokens[" + records + "] : " + weights + ", " + activations + " -> " + result +
                    "\n";
  if (spans == Spans::summed) {
    body +=
        "%zero = arith.constant dense<0.0> : " + result + "\n%spans = arith.constant " + text((inputs + 1023) / 1024) +
        " : index\n%first = arith.constant 0 : index\n%one = arith.constant 1 : index\n"
        "%d = scf.for %s = %first to %spans step %one iter_args(%sum = %zero) -> " +
        result + " {\n%p" + dot + "%next = arith.addf %sum, %p : " + result + "\nscf.yield %next : " + result + "\n}\n";
    body.replace(body.find("span %span,"), 11, "span %s,");
  } else {
    body += "%d" + dot;
  }
  for (int64_t r = 0; r < rowBlocks; ++r)
    for (int64_t t = 0; t < tokens; ++t) {
      std::string id = text(r) + "_" + text(t);
      body += "%v" + id + " = vector.extract %d[" + text(r) + ", " + text(t) + "] : vector<32xf32> from " + result +
              "\n%o" + id + " = arith.constant " + text(32 * (r * tokens + t)) + " : index\n%a" + id +
              " = arith.addi %from, %o" + id + " : index\nkernel.store_lanes %v" + id + ", %y[%a" + id +
              "] : vector<32xf32>, !kernel.buffer<f32>\n";
    }
  return "kernel.func @k(%w: " + weights + ", %x: " + activations + ", %y: !kernel.buffer<f32>) {\n" + body +
         "kernel.return\n}\n";
}

/// Of one block format.
class PackedDots : public BackendsAgree, public testing::WithParamInterface<const char *> {};
INSTANTIATE_TEST_SUITE_P(, PackedDots, testing::ValuesIn(kFormats), [](const auto &info) { return info.param; });

TEST_P(PackedDots, OfOneSpan) {
  for (int64_t inputs : {1, 31, 32, 33, 37, 1025}) {
    int64_t spans = (inputs + 1023) / 1024;
    for (int64_t rowBlocks = 1; rowBlocks <= 5; ++rowBlocks)
      for (int64_t tokens = 1; tokens <= 4; ++tokens) {
        if (inputs != 37 && rowBlocks > 1 && tokens > 1 && (rowBlocks + tokens) % 3)
          continue; // every pair of counts at one width, a third of them at the others
        check(spanDotKernel(GetParam(), inputs, rowBlocks, tokens, /*bank=*/false), 128 * rowBlocks * tokens * spans,
              tokens, {}, {spans, 1, 1});
        if (HasFailure())
          return;
      }
  }
}

TEST_P(PackedDots, SumsOfSpans) {
  for (int64_t inputs : {2048, 3000, 5121})
    for (auto [rowBlocks, tokens] : {std::pair<int64_t, int64_t>{1, 1}, {3, 1}, {4, 1}, {1, 4}, {2, 3}})
      check(spanDotKernel(GetParam(), inputs, rowBlocks, tokens, /*bank=*/false, Spans::summed),
            128 * rowBlocks * tokens, tokens, {}, {1, 1, 1});
  check(spanDotKernel(GetParam(), 3000, 2, 1, /*bank=*/true, Spans::summed), 3 * 128 * 2, 1, {}, {1, 3, 1});
}

TEST_P(PackedDots, OfManyTokens) {
  for (int64_t inputs : {33, 1025})
    check(spanDotKernel(GetParam(), inputs, 1, 16, /*bank=*/false), 128 * 16 * ((inputs + 1023) / 1024), 16, {},
          {(inputs + 1023) / 1024, 1, 1});
}

/// The bits that a package's self-tests ask for are the reference's, and every backend's.
TEST_P(PackedDots, SelfTest) {
  OwningOpRef<ModuleOp> module = ModuleOp::create(UnknownLoc::get(&context));
  const SelfTest test = addSelfTest(*module, *kernel::symbolizeBlockFormat(GetParam()));
  auto function = cast<kernel::FuncOp>(module->lookupSymbol(test.kernel));
  Buffers buffers = test.arguments;
  buffers.emplace_back(test.resultBytes);
  Buffers expected = buffers;
  auto ran =
      runKernel(*llvm::cantFail(findBackend("reference")), "bytecode", *module, test.kernel, expected, {}, {1, 1, 1});
  ASSERT_TRUE(static_cast<bool>(ran)) << llvm::toString(ran.takeError());
  const uint64_t result = XXH3_64bits(expected.back().data(), expected.back().size());
  EXPECT_EQ(result, test.result) << "the reference leaves 0x" << std::hex << result;
  check(*module, function, buffers, {}, {1, 1, 1});
}

TEST_F(BackendsAgree, SpanDotOfABank) {
  for (const std::string format : kFormats)
    for (int64_t tokens : {1, 3})
      check(spanDotKernel(format, 65, 2, tokens, /*bank=*/true), 3 * 128 * 2 * tokens, tokens, {}, {1, 3, 1});
}

/// As attention reads a page of keys: the memory decides how many entries there are.
TEST_F(BackendsAgree, SpanDotOfABankOfUnknownSize) {
  for (int64_t tokens : {1, 3, 4}) {
    std::string kernel = spanDotKernel("q8", 65, 2, tokens, /*bank=*/true);
    for (size_t at; (at = kernel.find("<q8, 3x")) != std::string::npos;)
      kernel.replace(at, 7, "<q8, ?x");
    check(kernel, 3 * 128 * 2 * tokens, tokens, {}, {1, 3, 1});
  }
}

TEST_F(BackendsAgree, Unpack) {
  for (const std::string format : kFormats)
    for (int64_t inputs : {64, 75}) {
      std::string weights = "!kernel.weights<" + format + ", 59x" + text(inputs) + ">";
      check("kernel.func @k(%w: " + weights + R"(, %y: !kernel.buffer<f32>) {
              %row = kernel.program_id x
              %group = kernel.program_id y
              %v = kernel.unpack %w[%row, %group] : )" +
                weights + R"(
              %c3 = arith.constant 3 : index
              %c32 = arith.constant 32 : index
              %a = arith.muli %row, %c3 : index
              %b = arith.addi %a, %group : index
              %at = arith.muli %b, %c32 : index
              kernel.store_lanes %v, %y[%at] : vector<32xf32>, !kernel.buffer<f32>
              kernel.return
            })",
            59 * 3 * 128, 1, {}, {59, (inputs + 31) / 32, 1});
    }
}

/// A random kernel over lanes and uniform values, with loops, branches, masks and memory. Floats stay between -2^20 and
/// 2^20 and divisors off zero, so that no NaN appears, whose bits the dialect leaves open.
class RandomKernel {
public:
  explicit RandomKernel(uint32_t seed) : random(seed) {}

  std::string write() {
    body = "%zero = arith.constant 0 : index\n%one = arith.constant 1 : index\n%n32 = arith.constant 32 : index\n"
           "%limit = arith.constant dense<1048576.0> : vector<32xf32>\n%least = arith.constant dense<-1048576.0> : "
           "vector<32xf32>\n"
           "%ones = arith.constant dense<1.0> : vector<32xf32>\n%mask31 = arith.constant dense<31> : vector<32xi32>\n"
           "%id = kernel.program_id x\n%at = arith.muli %id, %n32 : index\n%lane = kernel.lane_id\n"
           "%tmp = kernel.local 64 : !kernel.buffer<f32>\n"
           "%f = kernel.load_lanes %x[%at] : !kernel.buffer<f32> -> vector<32xf32>\n"
           "%i = kernel.load_lanes %n[%at] : !kernel.buffer<i32> -> vector<32xi32>\n"
           "%h = kernel.load_lanes %z[%at] : !kernel.buffer<f16> -> vector<32xf16>\n"
           "%g = arith.extf %h : vector<32xf16> to vector<32xf32>\n";
    floats = {"%f", "%g", "%ones"};
    integers = {"%i", "%lane"};
    statements(25, 2);
    return "kernel.func @k(%x: !kernel.buffer<f32>, %n: !kernel.buffer<i32>, %z: !kernel.buffer<f16>, "
           "%y: !kernel.buffer<f32>, %o: !kernel.buffer<i32>, %count: index) {\n" +
           body + "kernel.store_lanes " + floats.back() + ", %y[%at] : vector<32xf32>, !kernel.buffer<f32>\n" +
           "kernel.store_lanes " + integers.back() +
           ", %o[%at] : vector<32xi32>, !kernel.buffer<i32>\nkernel.return\n}\n";
  }

private:
  std::string fresh() { return "%r" + std::to_string(++count); }
  const std::string &oneOf(const std::vector<std::string> &names) { return names[random() % names.size()]; }

  void emit(const std::string &line) { body += line + "\n"; }
  std::string define(const std::string &right) {
    std::string name = fresh();
    emit(name + " = " + right);
    return name;
  }

  void addFloat(const std::string &value) {
    std::string above = define("arith.cmpf ogt, " + value + ", %limit : vector<32xf32>");
    std::string clamped = define("arith.select " + above + ", %limit, " + value + " : vector<32xi1>, vector<32xf32>");
    std::string under = define("arith.cmpf olt, " + clamped + ", %least : vector<32xf32>");
    floats.push_back(define("arith.select " + under + ", %least, " + clamped + " : vector<32xi1>, vector<32xf32>"));
  }

  void statements(int number, int depth) {
    for (int i = 0; i < number; ++i)
      statement(depth);
  }

  /// A region that ends with a float vector; names of its inside are forgotten behind it.
  std::string region(int number, int depth) {
    std::vector<std::string> outerFloats = floats, outerIntegers = integers;
    statements(number, depth);
    std::string last = floats.back();
    floats = outerFloats;
    integers = outerIntegers;
    return last;
  }

  void statement(int depth) {
    std::string a = oneOf(floats), b = oneOf(floats), i = oneOf(integers), j = oneOf(integers);
    const std::string f32 = " : vector<32xf32>", i32 = " : vector<32xi32>";
    switch (random() % (depth ? 22 : 20)) {
    case 0:
    case 1:
      return addFloat(define("arith.addf " + a + ", " + b + f32));
    case 2:
      return addFloat(define("arith.subf " + a + ", " + b + f32));
    case 3:
    case 4:
      return addFloat(define("arith.mulf " + a + ", " + b + f32));
    case 5: {
      std::string square = define("arith.mulf " + b + ", " + b + f32);
      return addFloat(define("arith.divf " + a + ", " + define("arith.addf " + square + ", %ones" + f32) + f32));
    }
    case 6: {
      std::string square = define("arith.mulf " + a + ", " + a + f32);
      return addFloat(define("kernel.sqrt " + square + f32));
    }
    case 7: {
      static const char *kinds[] = {"add", "max", "min"};
      std::string value = define(std::string("kernel.reduce ") + kinds[random() % 3] + " " + a + f32 + " -> f32");
      return addFloat(define("vector.broadcast " + value + " : f32 to vector<32xf32>"));
    }
    case 8: {
      std::string mask = define("arith.cmpi slt, " + i + ", " + j + i32);
      return addFloat(define("arith.select " + mask + ", " + a + ", " + b + " : vector<32xi1>, vector<32xf32>"));
    }
    case 9:
      return addFloat(define("arith.sitofp " + i + " : vector<32xi32> to vector<32xf32>"));
    case 10: {
      std::string offsets = define("arith.andi " + i + ", %mask31" + i32);
      std::string mask = define("arith.cmpi sgt, " + i + ", " + j + i32);
      return addFloat(
          define("kernel.gather %x[%at][" + offsets + "] mask " + mask + " : !kernel.buffer<f32> -> vector<32xf32>"));
    }
    case 11: {
      std::string mask = define("arith.cmpf olt, " + a + ", " + b + f32);
      emit("kernel.store_lanes " + a + ", %tmp[%n32]" + f32 + ", !kernel.buffer<f32>");
      emit("kernel.store_lanes " + b + ", %tmp[%n32] mask " + mask + f32 + ", !kernel.buffer<f32>");
      return addFloat(define("kernel.load_lanes %tmp[%n32] : !kernel.buffer<f32> -> vector<32xf32>"));
    }
    case 12: {
      std::string half = define("arith.truncf " + define("arith.mulf " + a + ", " + scaleDown() + f32) +
                                " : vector<32xf32> to vector<32xf16>");
      return addFloat(define("arith.extf " + half + " : vector<32xf16> to vector<32xf32>"));
    }
    case 13: {
      std::string bounded = define("arith.fptosi " + a + " : vector<32xf32> to vector<32xi32>");
      integers.push_back(bounded);
      return;
    }
    case 14: {
      static const char *ops[] = {"addi", "subi", "muli", "andi", "ori", "xori", "minsi", "maxsi"};
      integers.push_back(define(std::string("arith.") + ops[random() % 8] + " " + i + ", " + j + i32));
      return;
    }
    case 15: {
      static const char *ops[] = {"shli", "shrui", "shrsi"};
      std::string amount = define("arith.andi " + j + ", %mask31" + i32);
      integers.push_back(define(std::string("arith.") + ops[random() % 3] + " " + i + ", " + amount + i32));
      return;
    }
    case 16:
      integers.push_back(define("kernel.scan " + i));
      return;
    case 17: {
      std::string maximum = fresh(), index = fresh();
      emit(maximum + ", " + index + " = kernel.argmax " + a + ", " + i);
      integers.push_back(define("vector.broadcast " + index + " : i32 to vector<32xi32>"));
      return;
    }
    case 18: {
      std::string value = define("kernel.broadcast " + a + "[%one]" + f32 + " -> f32");
      return addFloat(define("vector.broadcast " + value + " : f32 to vector<32xf32>"));
    }
    case 19:
      integers.push_back(define("arith.bitcast " + a + " : vector<32xf32> to vector<32xi32>"));
      return;
    case 20: {
      std::string result = fresh(), carried = fresh();
      emit(result + " = scf.for " + fresh() + " = %zero to %count step %one iter_args(" + carried + " = " + a +
           ") -> (vector<32xf32>) {");
      std::vector<std::string> outer = floats;
      floats.push_back(carried);
      std::string last = region(4, depth - 1);
      emit("scf.yield " + last + f32 + "\n}");
      floats = outer;
      return addFloat(result);
    }
    default: {
      std::string value = define("kernel.reduce max " + i + i32 + " -> i32");
      std::string other = define("kernel.reduce max " + j + i32 + " -> i32");
      std::string condition = define("arith.cmpi sle, " + value + ", " + other + " : i32"), result = fresh();
      emit(result + " = scf.if " + condition + " -> (vector<32xf32>) {");
      std::string last = region(3, depth - 1);
      emit("scf.yield " + last + f32 + "\n} else {");
      last = region(3, depth - 1);
      emit("scf.yield " + last + f32 + "\n}");
      return addFloat(result);
    }
    }
  }

  std::string scaleDown() { return define("arith.constant dense<0.03125> : vector<32xf32>"); }

  std::mt19937 random;
  std::string body;
  std::vector<std::string> floats, integers;
  int count = 0;
};

TEST_F(BackendsAgree, RandomKernels) {
  for (uint32_t seed = 0; seed < 100 && !HasFailure(); ++seed)
    check(RandomKernel(seed).write(), 3 * 128, 1, {3}, {3, 1, 1});
}

/// Each kernel of a model at the origin of its grid. Scalars are counts of tokens or sequences or numbers of parts. Of
/// a model, a format of weights and one of keys. `expanded`: those that expand the latents of a page, in portable
/// arithmetic.
class ModelKernels : public BackendsAgree,
                     public testing::WithParamInterface<std::tuple<const char *, const char *, const char *, bool>> {};

TEST_P(ModelKernels, AtTheOrigin) {
  auto [model, format, keys, expanded] = GetParam();
  auto checkpoint = checkpoint::Checkpoint::open(std::string(FREEPORT_SOURCE_DIR "/test/data/models/") + model);
  ASSERT_TRUE(static_cast<bool>(checkpoint)) << llvm::toString(checkpoint.takeError());
  auto imported = frontend::importCheckpoint(context, *checkpoint, {format, keys, expanded});
  ASSERT_TRUE(static_cast<bool>(imported)) << llvm::toString(imported.takeError());
  PassManager passes(&context);
  buildKernelStage(passes, TargetDescription());
  ASSERT_TRUE(succeeded(passes.run(*imported->module)));
  size_t kernels = 0;
  for (auto function : (*imported->module).getOps<kernel::FuncOp>()) {
    StringRef name = function.getSymName();
    if (expanded && !name.starts_with("latent_context") && !name.starts_with("latent_expand"))
      continue;
    OwningOpRef<ModuleOp> module = ModuleOp::create(function.getLoc());
    auto copy = cast<kernel::FuncOp>(function->clone());
    module->push_back(copy);
    size_t scalars = copy.getNumArguments() - copy.getNumMemoryArguments();
    check(*module, copy, operands(copy, 1 << 18, expanded ? 32 : 8), SmallVector<int64_t>(scalars, 1), {1, 1, 1});
    if (HasFailure())
      return;
    ++kernels;
  }
  EXPECT_GE(kernels, expanded ? 4u : 11u);
  EXPECT_GT(effective, expanded ? 1 : kernels * 3 / 4) << "of " << kernels << " kernels"; // the others left early
  RecordProperty("effective", static_cast<int>(effective));
}

/// A page's slots may hold anything until their token is appended, scales that are no numbers too.
TEST_F(BackendsAgree, AttentionSelectsUnwrittenQ8KeysAway) {
  auto checkpoint = checkpoint::Checkpoint::open(FREEPORT_SOURCE_DIR "/test/data/models/llama");
  ASSERT_TRUE(static_cast<bool>(checkpoint)) << llvm::toString(checkpoint.takeError());
  auto imported = frontend::importCheckpoint(context, *checkpoint, {"q4", "q8"});
  ASSERT_TRUE(static_cast<bool>(imported)) << llvm::toString(imported.takeError());
  PassManager passes(&context);
  buildKernelStage(passes, TargetDescription());
  ASSERT_TRUE(succeeded(passes.run(*imported->module)));
  constexpr size_t kPositions = 1, kKeys = 5, kResult = 6;
  size_t kernels = 0;
  for (auto function : (*imported->module).getOps<kernel::FuncOp>()) {
    if (!function.getSymName().starts_with("attention_f16_keys_q8"))
      continue;
    ++kernels;
    OwningOpRef<ModuleOp> module = ModuleOp::create(function.getLoc());
    auto copy = cast<kernel::FuncOp>(function->clone());
    module->push_back(copy);
    Buffers clean = operands(copy, 1 << 18, 8);
    std::fill(clean[kPositions].begin(), clean[kPositions].end(), 0); // each token is its sequence's first
    Buffers garbled = clean;
    auto type = cast<kernel::WeightsType>(copy.getArgumentTypes()[kKeys]);
    for (size_t entry = 0; entry + type.getEntryStride() <= garbled[kKeys].size(); entry += type.getEntryStride())
      for (int64_t group = 0; group < type.getGroups(); ++group)
        for (int64_t slot = 1; slot < kernel::kQuantum; ++slot)
          put(garbled[kKeys], entry + group * type.getRecordBytes() + 1024 + 2 * slot,
              uint16_t(slot % 2 ? 0x7FFF : 0xFC00));
    check(*module, copy, garbled, {1, 1}, {1, 1, 1});
    for (Buffers *buffers : {&clean, &garbled}) {
      auto ran = runKernel(*llvm::cantFail(findBackend("reference")), "bytecode", *module, copy.getSymName(), *buffers,
                           {1, 1}, {1, 1, 1});
      ASSERT_TRUE(static_cast<bool>(ran)) << llvm::toString(ran.takeError());
    }
    EXPECT_EQ(clean[kResult], garbled[kResult]) << copy.getSymName().str();
  }
  EXPECT_EQ(kernels, 2u); // of one token, and of prompts
}

INSTANTIATE_TEST_SUITE_P(, ModelKernels,
                         testing::Combine(testing::Values("llama", "deepseek_v3"),
                                          testing::Values("f32", "f16", "bf16", "q8", "q4"), testing::Values(""),
                                          testing::Values(false)),
                         [](const auto &info) {
                           return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param);
                         });
INSTANTIATE_TEST_SUITE_P(NormedHeads, ModelKernels,
                         testing::Combine(testing::Values("qwen3"), testing::Values("f32", "q4"), testing::Values(""),
                                          testing::Values(false)),
                         [](const auto &info) { return std::string(std::get<1>(info.param)); });
INSTANTIATE_TEST_SUITE_P(Q8Keys, ModelKernels,
                         testing::Combine(testing::Values("llama", "qwen3_moe"), testing::Values("f32", "q4"),
                                          testing::Values("q8"), testing::Values(false)),
                         [](const auto &info) {
                           return std::string(std::get<0>(info.param)) + "_" + std::get<1>(info.param);
                         });
INSTANTIATE_TEST_SUITE_P(Expanded, ModelKernels,
                         testing::Combine(testing::Values("deepseek_v3"), testing::Values("f32", "q8"),
                                          testing::Values(""), testing::Values(true)),
                         [](const auto &info) { return std::string(std::get<1>(info.param)); });

} // namespace
} // namespace freeport
