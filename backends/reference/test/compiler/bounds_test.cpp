// Kernels that reach outside the memory that they are launched with, one for each op that touches memory: what lies
// outside reads as zero, and the bytes around a buffer stay as they are.
#include "backends/reference/runtime/interpreter.h"
#include "compiler/lowering/Register.h"
#include "compiler/offload/Backend.h"

#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>

namespace freeport::reference {
namespace {

/// A run of bytes with others around it, at an address that is aligned to nothing.
class Guarded {
public:
  explicit Guarded(size_t size, std::byte fill = std::byte(0)) : bytes(kGuard + size + kGuard, kFill), size(size) {
    std::fill_n(data(), size, fill);
  }
  std::byte *data() { return bytes.data() + kGuard; }
  template <typename T> std::vector<T> values() {
    std::vector<T> result(size / sizeof(T));
    std::memcpy(result.data(), data(), result.size() * sizeof(T));
    return result;
  }
  bool intact() const {
    auto filled = [](std::byte each) { return each == kFill; };
    return std::all_of(bytes.begin(), bytes.begin() + kGuard, filled) &&
           std::all_of(bytes.end() - kGuard, bytes.end(), filled);
  }

private:
  static constexpr size_t kGuard = 8193;
  static constexpr std::byte kFill{0x3F};
  std::vector<std::byte> bytes;

public:
  const size_t size;
};

/// Element numbers that lie outside, times up to `size` bytes negative, huge, or wrapping to the start.
std::vector<int64_t> wildIndices(int64_t elements, int64_t size) {
  std::vector<int64_t> indices = {-1, -32, -33, INT64_MIN, INT64_MAX, INT64_MAX - 31, elements, elements + 31};
  for (int64_t wrap = 2; wrap <= size && wrap <= 64; wrap *= 2)
    indices.insert(indices.end(), {INT64_MAX / wrap + 1, INT64_MIN / wrap});
  return indices;
}

class BoundsTest : public testing::Test {
protected:
  BoundsTest() {
    mlir::DialectRegistry registry;
    registerDialects(registry);
    context.appendDialectRegistry(registry);
  }

  /// Runs `@k` of `text` on these buffers once; numbers in `readOnly` name those that may only be read.
  void run(const std::string &text, std::vector<Guarded *> buffers, std::vector<int64_t> scalars,
           std::vector<size_t> readOnly = {}) {
    auto module = mlir::parseSourceString<mlir::ModuleOp>(text, &context);
    ASSERT_TRUE(module) << text;
    Executable executable = llvm::cantFail(llvm::cantFail(findBackend("reference"))->serialize(*module, "bytecode"));
    auto interpreter = Interpreter::create(std::as_bytes(std::span(executable.content)), executable.version);
    ASSERT_TRUE(interpreter.ok()) << interpreter.status().message();
    const Program *program = interpreter->find("k").value();
    ASSERT_EQ(program->arguments, buffers.size());
    ASSERT_EQ(program->scalar_offsets.size(), scalars.size());
    std::vector<void *> bindings;
    std::vector<uint64_t> readable;
    for (Guarded *buffer : buffers) {
      bindings.push_back(buffer->data());
      readable.push_back(buffer->size);
    }
    std::vector<uint64_t> writable = readable;
    for (size_t number : readOnly)
      writable[number] = 0;
    HostDispatch dispatch{bindings.data(), readable.data(), writable.data(), scalars.data(), {1, 1, 1}};
    Scratch scratch;
    Interpreter::run(*program, dispatch, 0, 1, scratch);
    for (size_t i = 0; i < buffers.size(); ++i)
      EXPECT_TRUE(buffers[i]->intact()) << "around buffer " << i << "\n" << text;
  }

  mlir::MLIRContext context;
};

constexpr std::byte kOnes{0xFF};

TEST_F(BoundsTest, Load) {
  for (int64_t index : wildIndices(8, 4)) {
    Guarded x(35, kOnes), y(4, kOnes); // 8 elements and three quarters of a ninth
    run(R"(kernel.func @k(%x: !kernel.buffer<i32>, %y: !kernel.buffer<i32>, %at: index) {
      %c0 = arith.constant 0 : index
      %v = kernel.load %x[%at] : !kernel.buffer<i32> -> i32
      kernel.store %v, %y[%c0] : i32, !kernel.buffer<i32>
      kernel.return
    })",
        {&x, &y}, {index});
    EXPECT_EQ(y.values<int32_t>()[0], 0) << index;
  }
}

TEST_F(BoundsTest, Store) {
  for (const char *type : {"i8", "f16", "i32", "f32"})
    for (int64_t index : wildIndices(8, 4)) {
      std::string element = type;
      int64_t bytes = element == "i8" ? 1 : element == "f16" ? 2 : 4;
      Guarded y(static_cast<size_t>(8 * bytes + (bytes - 1)));
      run("kernel.func @k(%y: !kernel.buffer<" + element + ">, %at: index) {\n%v = arith.constant " +
              (element[0] == 'f' ? "1.0" : "1") + " : " + element + "\nkernel.store %v, %y[%at] : " + element +
              ", !kernel.buffer<" + element + ">\nkernel.return\n}",
          {&y}, {index});
      EXPECT_EQ(y.values<char>(), std::vector<char>(y.size)) << element << " " << index;
    }
}

const char *const kCopyLanes =
    R"(kernel.func @k(%x: !kernel.buffer<i32>, %y: !kernel.buffer<i32>, %from: index, %to: index) {
  %v = kernel.load_lanes %x[%from] : !kernel.buffer<i32> -> vector<32xi32>
  kernel.store_lanes %v, %y[%to] : vector<32xi32>, !kernel.buffer<i32>
  kernel.return
})";

TEST_F(BoundsTest, LanesOutside) {
  for (int64_t index : wildIndices(40, 4)) {
    if (index > -32 && index < 40)
      continue;
    Guarded x(160, kOnes), y(128, kOnes), z(163);
    run(kCopyLanes, {&x, &y}, {index, 0});
    EXPECT_EQ(y.values<int32_t>(), std::vector<int32_t>(32)) << index;
    run(kCopyLanes, {&x, &z}, {0, index});
    EXPECT_EQ(z.values<char>(), std::vector<char>(163)) << index;
  }
}

TEST_F(BoundsTest, LanesAcrossAnEnd) {
  for (int64_t first : {-31, -5, 9, 39}) { // of 40 elements, and part of another
    Guarded x(163, kOnes), y(128, kOnes), z(163);
    run(kCopyLanes, {&x, &y}, {first, 0});
    run(kCopyLanes, {&x, &z}, {0, first});
    auto read = y.values<int32_t>(), written = z.values<int32_t>();
    for (int64_t lane = 0; lane < 32; ++lane)
      EXPECT_EQ(read[lane], first + lane >= 0 && first + lane < 40 ? -1 : 0) << first << " " << lane;
    for (int64_t index = 0; index < 40; ++index)
      EXPECT_EQ(written[index], index >= first && index < first + 32 ? -1 : 0) << first << " " << index;
  }
}

TEST_F(BoundsTest, GatherAndScatter) {
  // Offsets 16·lane - 256 from the base: with base 0, the lanes 16 to 18 reach 0, 16 and 32 of 40 elements.
  const std::string offsets = R"(
    %id = kernel.lane_id
    %c16 = arith.constant dense<16> : vector<32xi32>
    %c256 = arith.constant dense<256> : vector<32xi32>
    %scaled = arith.muli %id, %c16 : vector<32xi32>
    %offsets = arith.subi %scaled, %c256 : vector<32xi32>
    %c0 = arith.constant 0 : index)";
  const std::string gather =
      "kernel.func @k(%x: !kernel.buffer<i32>, %y: !kernel.buffer<i32>, %at: index) {" + offsets + R"(
    %v = kernel.gather %x[%at][%offsets] : !kernel.buffer<i32> -> vector<32xi32>
    kernel.store_lanes %v, %y[%c0] : vector<32xi32>, !kernel.buffer<i32>
    kernel.return
  })";
  const std::string scatter = "kernel.func @k(%y: !kernel.buffer<i32>, %at: index) {" + offsets + R"(
    %v = arith.constant dense<-1> : vector<32xi32>
    kernel.scatter %v, %y[%at][%offsets] : vector<32xi32>, !kernel.buffer<i32>
    kernel.return
  })";
  std::vector<int64_t> bases = {0, INT64_MIN, INT64_MAX, INT64_MAX - 100, int64_t(1) << 62, -(int64_t(1) << 62)};
  for (int64_t base : bases) {
    Guarded x(160, kOnes), y(128, kOnes), z(160);
    run(gather, {&x, &y}, {base});
    run(scatter, {&z}, {base});
    std::vector<int32_t> read(32), written(40);
    if (base == 0) {
      read[16] = read[17] = read[18] = -1;
      written[0] = written[16] = written[32] = -1;
    }
    EXPECT_EQ(y.values<int32_t>(), read) << base;
    EXPECT_EQ(z.values<int32_t>(), written) << base;
  }
}

TEST_F(BoundsTest, Stage) {
  for (int64_t base : {int64_t(0), int64_t(-3), int64_t(90), INT64_MIN, INT64_MAX, int64_t(1) << 62}) {
    Guarded x(96 * 4), y(3 * 128);
    for (int i = 0; i < 96; ++i) {
      float value = static_cast<float>(i + 1);
      std::memcpy(x.data() + 4 * i, &value, 4);
    }
    run(R"(kernel.func @k(%x: !kernel.buffer<f32>, %y: !kernel.buffer<f32>, %at: index) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %c3 = arith.constant 3 : index
      %c32 = arith.constant 32 : index
      %l = kernel.local 96 : !kernel.buffer<f32>
      kernel.stage %x[%at] pitch 4 to %l columns 3 : !kernel.buffer<f32> to !kernel.buffer<f32>
      scf.for %i = %c0 to %c3 step %c1 {
        %to = arith.muli %i, %c32 : index
        %v = kernel.load_lanes %l[%to] : !kernel.buffer<f32> -> vector<32xf32>
        kernel.store_lanes %v, %y[%to] : vector<32xf32>, !kernel.buffer<f32>
      }
      kernel.return
    })",
        {&x, &y}, {base});
    auto found = y.values<float>();
    for (int64_t row = 0; row < 32; ++row)
      for (int64_t column = 0; column < 3; ++column) {
        auto index = static_cast<int64_t>(static_cast<uint64_t>(base) + static_cast<uint64_t>(4 * row + column));
        EXPECT_EQ(found[32 * column + row], index >= 0 && index < 96 ? static_cast<float>(index + 1) : 0)
            << base << " " << row << " " << column;
      }
  }
}

TEST_F(BoundsTest, LocalMemory) {
  Guarded y(128, kOnes);
  for (int64_t first : {-32, 64, 1 << 20}) {
    run(R"(kernel.func @k(%y: !kernel.buffer<i32>, %at: index) {
      %c0 = arith.constant 0 : index
      %l = kernel.local 64 : !kernel.buffer<i32>
      %ones = arith.constant dense<1> : vector<32xi32>
      kernel.store_lanes %ones, %l[%at] : vector<32xi32>, !kernel.buffer<i32>
      %v = kernel.load_lanes %l[%at] : !kernel.buffer<i32> -> vector<32xi32>
      kernel.store_lanes %v, %y[%c0] : vector<32xi32>, !kernel.buffer<i32>
      kernel.return
    })",
        {&y}, {first});
    EXPECT_EQ(y.values<int32_t>(), std::vector<int32_t>(32)) << first;
  }
}

TEST_F(BoundsTest, StoreGroup) {
  // A record of i8 takes 128 bytes, one of f32 256: one whole record and half of another.
  const std::pair<const char *, size_t> cases[] = {
      {R"(kernel.func @k(%x: !kernel.activations<i8, 33>, %token: index, %group: index) {
        %v = arith.constant dense<7> : vector<32xi8>
        %s = arith.constant 0.5 : f32
        %n = arith.constant 224 : i32
        kernel.store_group %v scale %s sum %n, %x[%token, %group] : vector<32xi8>, !kernel.activations<i8, 33>
        kernel.return
      })",
       192},
      {R"(kernel.func @k(%x: !kernel.activations<f32, 33>, %token: index, %group: index) {
        %v = arith.constant dense<7.0> : vector<32xf32>
        kernel.store_group %v, %x[%token, %group] : vector<32xf32>, !kernel.activations<f32, 33>
        kernel.return
      })",
       384}};
  for (const auto &[text, size] : cases) {
    for (int64_t token : wildIndices(1, 64)) {
      Guarded x(size);
      run(text, {&x}, {token, 1});
      EXPECT_EQ(x.values<char>(), std::vector<char>(size)) << token;
    }
    for (int64_t group : {int64_t(-1), int64_t(2), INT64_MIN, INT64_MAX}) {
      Guarded x(size);
      run(text, {&x}, {0, group});
      EXPECT_EQ(x.values<char>(), std::vector<char>(size)) << group;
    }
    Guarded x(size);
    run(text, {&x}, {0, 1});
    EXPECT_NE(x.values<char>(), std::vector<char>(size));
  }
}

/// 64 x 64 weights of a format, with 4 records, against two tokens; rows, span and tokens are scalars.
std::string spanDot(const std::string &format) {
  std::string operands = "!kernel.weights<" + format + ", 64x64>, !kernel.activations<" +
                         (format[0] == 'q' ? "i8" : "f32") + std::string(", 64>");
  std::string weights = operands.substr(0, operands.find('>') + 1), activations = operands.substr(weights.size() + 2);
  return "kernel.func @k(%w: " + weights + ", %x: " + activations +
         ", %y: !kernel.buffer<f32>, %row: index, %span: index, %token: index) {\n%c0 = arith.constant 0 : index\n"
         "%d = kernel.span_dot %w rows[%row] span %span, %x tokens[%token] : " +
         operands + " -> vector<1x1x32xf32>\n%v = vector.extract %d[0, 0] : vector<32xf32> from vector<1x1x32xf32>\n" +
         "kernel.store_lanes %v, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>\nkernel.return\n}\n";
}

TEST_F(BoundsTest, SpanDot) {
  const std::pair<const char *, size_t> formats[] = {{"f32", 4096}, {"f16", 2048}, {"bf16", 2048}, {"q8", 1088},
                                                     {"q4", 576},   {"q5", 704},   {"q4_k", 704},  {"q6_k", 896}};
  for (const auto &[format, record] : formats) {
    const size_t token = format[0] == 'q' ? 128 : 256;
    auto sums = [&](size_t weightBytes, size_t tokenBytes, int64_t row, int64_t span, int64_t number) {
      Guarded w(weightBytes, std::byte(0x35)), x(tokenBytes, std::byte(0x35)), y(128, kOnes);
      run(spanDot(format), {&w, &x, &y}, {row, span, number});
      return y.values<float>();
    };
    const std::vector<float> zeros(32), whole = sums(4 * record, 2 * token, 1, 0, 1);
    EXPECT_NE(whole, zeros) << format;
    // The second group of the second row block is missing by one byte, then its first group too, then everything.
    const std::vector<float> half = sums(4 * record - 1, 2 * token, 1, 0, 1);
    EXPECT_NE(half, whole) << format;
    EXPECT_NE(half, zeros) << format;
    EXPECT_EQ(sums(3 * record - 1, 2 * token, 1, 0, 1), zeros) << format;
    EXPECT_EQ(sums(0, 2 * token, 1, 0, 1), zeros) << format;
    for (int64_t number : wildIndices(2, 64))
      EXPECT_EQ(sums(4 * record, 2 * token, 1, 0, number), zeros) << format << " " << number;
    EXPECT_EQ(sums(4 * record, 2 * token - 1, 1, 0, 1), zeros) << format;
    for (int64_t wild : {int64_t(-1), int64_t(2), INT64_MIN, INT64_MAX}) {
      EXPECT_EQ(sums(4 * record, 2 * token, wild, 0, 1), zeros) << format << " " << wild;
      EXPECT_EQ(sums(4 * record, 2 * token, 1, wild, 1), zeros) << format << " " << wild;
    }
  }
}

TEST_F(BoundsTest, SpanDotOfABank) {
  std::string text =
      R"(kernel.func @k(%w: !kernel.weights<q8, 3x32x32, stride = 4096>, %x: !kernel.activations<i8, 32>,
                        %y: !kernel.buffer<f32>, %entry: index) {
        %c0 = arith.constant 0 : index
        %d = kernel.span_dot %w entry %entry rows[%c0] span %c0, %x tokens[%c0]
             : !kernel.weights<q8, 3x32x32, stride = 4096>, !kernel.activations<i8, 32> -> vector<1x1x32xf32>
        %v = vector.extract %d[0, 0] : vector<32xf32> from vector<1x1x32xf32>
        kernel.store_lanes %v, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
        kernel.return
      })";
  for (int64_t entry : {int64_t(0), int64_t(1), int64_t(2), int64_t(3), int64_t(-1), INT64_MIN, INT64_MAX}) {
    Guarded w(2 * 4096 + 1087, std::byte(0x35)), x(64, std::byte(0x35)), y(128, kOnes); // the last entry lacks a byte
    run(text, {&w, &x, &y}, {entry});
    EXPECT_EQ(y.values<float>() == std::vector<float>(32), entry != 0 && entry != 1) << entry;
  }
  // Where the type does not say how many entries there are, only the memory bounds them.
  for (size_t at; (at = text.find("<q8, 3x")) != std::string::npos;)
    text.replace(at, 7, "<q8, ?x");
  for (int64_t entry : {int64_t(0), int64_t(4), int64_t(5), int64_t(6), int64_t(-1), INT64_MIN, INT64_MAX,
                        INT64_MAX / 4096, INT64_MAX / 4096 + 1}) {
    Guarded w(5 * 4096 + 1087, std::byte(0x35)), x(64, std::byte(0x35)), y(128, kOnes);
    run(text, {&w, &x, &y}, {entry});
    EXPECT_EQ(y.values<float>() == std::vector<float>(32), entry != 0 && entry != 4) << entry;
  }
}

TEST_F(BoundsTest, Unpack) {
  const std::string text =
      R"(kernel.func @k(%w: !kernel.weights<q4, 64x64>, %y: !kernel.buffer<f32>, %row: index, %group: index) {
    %c0 = arith.constant 0 : index
    %v = kernel.unpack %w[%row, %group] : !kernel.weights<q4, 64x64>
    kernel.store_lanes %v, %y[%c0] : vector<32xf32>, !kernel.buffer<f32>
    kernel.return
  })";
  auto unpacked = [&](size_t bytes, int64_t row, int64_t group) {
    Guarded w(bytes, std::byte(0x35)), y(128, kOnes);
    run(text, {&w, &y}, {row, group});
    return y.values<float>();
  };
  const std::vector<float> zeros(32);
  EXPECT_NE(unpacked(4 * 576, 40, 1), zeros);
  EXPECT_EQ(unpacked(4 * 576 - 1, 40, 1), zeros);
  EXPECT_NE(unpacked(4 * 576 - 1, 40, 0), zeros);
  EXPECT_EQ(unpacked(0, 0, 0), zeros);
  for (int64_t wild : {int64_t(-1), int64_t(64), INT64_MIN, INT64_MAX}) {
    EXPECT_EQ(unpacked(4 * 576, wild, 0), zeros) << wild;
    EXPECT_EQ(unpacked(4 * 576, 0, wild), zeros) << wild;
  }
}

TEST_F(BoundsTest, ReadOnlyMemoryIsNotWritten) {
  Guarded x(128, kOnes), y(128);
  run(kCopyLanes, {&x, &y}, {0, 0}, {1});
  EXPECT_EQ(y.values<int32_t>(), std::vector<int32_t>(32));
  run(kCopyLanes, {&x, &y}, {0, 0}, {0});
  EXPECT_EQ(y.values<int32_t>(), std::vector<int32_t>(32, -1));
}

/// Why a module of `functions` times the same function, whose 100 copies of a register name `operands` operands, is
/// refused.
std::string refusal(size_t functions, size_t operands) {
  flatbuffers::FlatBufferBuilder builder;
  std::vector<bytecode::Register> registers = {{bytecode::ElementType::i64, 1}};
  std::vector<bytecode::Instruction> instructions;
  for (uint32_t i = 0; i < 100; ++i)
    instructions.emplace_back(bytecode::Opcode::copy, 0, 1, 0, i % static_cast<uint32_t>(operands), 0);
  auto function = bytecode::CreateFunction(
      builder, builder.CreateString("k"), 0, builder.CreateVector(std::vector<flatbuffers::Offset<bytecode::Memory>>()),
      0, builder.CreateVectorOfStructs(registers),
      builder.CreateVector(std::vector<flatbuffers::Offset<bytecode::Constant>>()),
      builder.CreateVector(std::vector<uint32_t>(operands)), builder.CreateVectorOfStructs(instructions));
  bytecode::FinishModuleBuffer(builder,
                               bytecode::CreateModule(builder, builder.CreateVector(std::vector(functions, function))));
  auto made = Interpreter::create(std::as_bytes(std::span(builder.GetBufferPointer(), builder.GetSize())), 1);
  return made.ok() ? "" : made.status().message();
}

TEST(SharedBytecode, IsRefused) {
  EXPECT_EQ(refusal(1, 100), "");
  EXPECT_NE(refusal(1, 99).find("instruction 99 (copy): expects operands that no other instruction uses"),
            std::string::npos)
      << refusal(1, 99);
  EXPECT_NE(refusal(2, 100).find("expects functions that share nothing"), std::string::npos) << refusal(2, 100);
}

} // namespace
} // namespace freeport::reference
