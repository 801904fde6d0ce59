// What lowered kernels are written in: 32-bit integers, floats and truth values of one invocation (arith and scf, which
// a later pass turns into SPIR-V), memory through SPIR-V variables, and the exact arithmetic that Vulkan does not
// promise.
#pragma once

#include "backends/vulkan/compiler/Profile.h"
#include "dialects/kernel/Kernel.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/Dialect/SPIRV/IR/SPIRVOps.h"
#include "mlir/IR/Builders.h"

namespace freeport::vulkan {

/// One memory operand of a kernel, or its local memory.
struct Memory {
  std::string name;
  bool local = false;
  uint32_t binding = 0;        ///< arguments
  int64_t pieces = 1;          ///< bindings that show parts of it
  int64_t localElements = 0;   ///< each a word, whatever its type
  mlir::Value byteOffset = {}; ///< arguments: added to every address
};

/// A place in a Memory: a piece, and bytes from its start.
struct Address {
  mlir::Value piece; ///< null: the only one
  mlir::Value bytes;
};

class Machine {
public:
  Machine(mlir::ModuleOp module, mlir::OpBuilder &builder, mlir::Location location, const Profile &profile)
      : builder(builder), location(location), profile(profile), module(module) {}

  template <typename Op, typename... Arguments> auto create(Arguments &&...arguments) {
    return builder.create<Op>(location, std::forward<Arguments>(arguments)...);
  }

  mlir::Type i32Type() { return builder.getI32Type(); }
  mlir::Type f32Type() { return builder.getF32Type(); }
  mlir::Value i32(int64_t value);
  mlir::Value f32(float value);
  mlir::Value f32Bits(uint32_t bits);
  mlir::Value truth(bool value);

  mlir::Value add(mlir::Value a, mlir::Value b);
  mlir::Value subtract(mlir::Value a, mlir::Value b);
  mlir::Value multiply(mlir::Value a, mlir::Value b);
  mlir::Value bitAnd(mlir::Value a, mlir::Value b) { return create<mlir::arith::AndIOp>(a, b); }
  mlir::Value bitOr(mlir::Value a, mlir::Value b) { return create<mlir::arith::OrIOp>(a, b); }
  mlir::Value bitXor(mlir::Value a, mlir::Value b) { return create<mlir::arith::XOrIOp>(a, b); }
  mlir::Value shiftLeft(mlir::Value a, mlir::Value b) { return create<mlir::arith::ShLIOp>(a, b); }
  mlir::Value shiftRight(mlir::Value a, mlir::Value b) { return create<mlir::arith::ShRUIOp>(a, b); }
  mlir::Value shiftRightSigned(mlir::Value a, mlir::Value b) { return create<mlir::arith::ShRSIOp>(a, b); }
  mlir::Value compare(mlir::arith::CmpIPredicate predicate, mlir::Value a, mlir::Value b) {
    return create<mlir::arith::CmpIOp>(predicate, a, b);
  }
  mlir::Value compare(mlir::arith::CmpFPredicate predicate, mlir::Value a, mlir::Value b) {
    return create<mlir::arith::CmpFOp>(predicate, a, b);
  }
  mlir::Value equal(mlir::Value a, mlir::Value b) { return compare(mlir::arith::CmpIPredicate::eq, a, b); }
  mlir::Value less(mlir::Value a, mlir::Value b) { return compare(mlir::arith::CmpIPredicate::slt, a, b); }
  mlir::Value select(mlir::Value condition, mlir::Value a, mlir::Value b) {
    return create<mlir::arith::SelectOp>(condition, a, b);
  }
  mlir::Value toBits(mlir::Value f32) { return create<mlir::arith::BitcastOp>(i32Type(), f32); }
  mlir::Value fromBits(mlir::Value i32) { return create<mlir::arith::BitcastOp>(f32Type(), i32); }
  mlir::Value toFloat(mlir::Value i32) { return create<mlir::arith::SIToFPOp>(f32Type(), i32); }
  /// Truncation of a float that fits.
  mlir::Value truncate(mlir::Value f32) { return create<mlir::arith::FPToSIOp>(i32Type(), f32); }
  /// The low `bits` bits as a signed number.
  mlir::Value signExtend(mlir::Value value, unsigned bits);

  /// Exact arithmetic (Numerics.cpp): IEEE's nearest even, whatever the device's division and roots do.
  mlir::Value divide(mlir::Value a, mlir::Value b);
  mlir::Value squareRoot(mlir::Value a);
  /// Between an f16's bits, in the low half, and f32; by integer operations.
  mlir::Value halfToFloat(mlir::Value bits);
  mlir::Value floatToHalf(mlir::Value f32);
  /// f32 to i32; what does not fit gives the least integer.
  mlir::Value floatToInteger(mlir::Value f32);
  /// +0 that no driver sees through: many take x + 0 for x, and a sum that begins with +0 would become -0.
  mlir::Value zero() { return zeroValue; }
  mlir::Value negate(mlir::Value f32) { return fromBits(bitXor(toBits(f32), i32(INT32_MIN))); }
  /// `value + 0`: -0 becomes +0.
  mlir::Value addZero(mlir::Value value);
  /// Sum of products of the four bytes of two words, signed or `a` unsigned.
  mlir::Value dot4(mlir::Value a, bool unsignedA, mlir::Value b);

  using LoopBody = llvm::function_ref<llvm::SmallVector<mlir::Value>(mlir::Value, mlir::ValueRange)>;
  /// `for i = lower; i < upper; i += step`, carrying `initial`, with its values where there is no iteration.
  llvm::SmallVector<mlir::Value> loop(mlir::Value lower, mlir::Value upper, mlir::Value step, mlir::ValueRange initial,
                                      LoopBody body);
  using Branch = llvm::function_ref<llvm::SmallVector<mlir::Value>()>;
  llvm::SmallVector<mlir::Value> branch(mlir::Value condition, mlir::TypeRange types, Branch then, Branch otherwise);
  void when(mlir::Value condition, llvm::function_ref<void()> then);

  /// Loads what holds for the whole kernel, at its start; before anything else. `waves` of 32 invocations do a program.
  void enter(int64_t waves);
  /// The invocation's lane, 0 to 31, its place in its subgroup, and its program's place in the grid.
  mlir::Value lane() { return laneValue; }
  mlir::Value subgroupLane() { return subgroupLaneValue; }
  /// Which of the program's waves the invocation belongs to.
  mlir::Value wave() { return waveValue; }
  mlir::Value workgroup(int64_t dimension) { return workgroupValues[dimension]; }
  /// Word `number` of the dispatch's block of sizes.
  mlir::Value parameter(int64_t number);
  /// Waits for all 32 invocations and makes their writes visible.
  void barrier();

  mlir::Value loadWord(const Memory &memory, Address at);
  void storeWord(mlir::Value value, const Memory &memory, Address at);
  mlir::Value loadByte(const Memory &memory, Address at);
  void storeByte(mlir::Value value, const Memory &memory, Address at);
  mlir::Value loadHalf(const Memory &memory, Address at);
  void storeHalf(mlir::Value value, const Memory &memory, Address at);
  /// Where word `word` of local memory lies, as SPIR-V's ops on matrices want it.
  mlir::Value localPointer(const Memory &memory, int64_t word) {
    return pointer(memory, 4, {mlir::Value(), i32(4 * word)});
  }

  /// The variables that the kernel uses, for its entry point.
  llvm::SmallVector<mlir::spirv::GlobalVariableOp> variables;

  mlir::OpBuilder &builder;
  mlir::Location location;
  const Profile &profile;

private:
  mlir::spirv::GlobalVariableOp variable(llvm::StringRef name, mlir::Type pointer, std::optional<uint32_t> binding,
                                         llvm::StringRef builtin = "", bool aliased = false);
  mlir::Value builtin(llvm::StringRef name, llvm::StringRef builtin, mlir::Type type);
  /// A pointer to the element of `width` bytes at `at`.
  mlir::Value pointer(const Memory &memory, unsigned width, Address at);
  /// Calls a function of the module, which is written on first use.
  mlir::Value call(llvm::StringRef name, mlir::Type result, mlir::ValueRange arguments,
                   llvm::function_ref<mlir::Value(mlir::ValueRange)> body);

  mlir::ModuleOp module;
  mlir::Value laneValue, subgroupLaneValue, waveValue, zeroValue, workgroupValues[3];
};

/// A value for each row block and token: sums over one span (SpanDot.cpp).
struct PackedWeights {
  kernel::WeightsType type;
  const Memory &memory;
  int64_t unitsPerPiece; ///< entries of a bank or row blocks of a matrix
};
llvm::SmallVector<mlir::Value> lowerSpanDot(Machine &machine, kernel::SpanDotOp op, const PackedWeights &weights,
                                            const Memory &activations, const Memory &matrices,
                                            llvm::function_ref<mlir::Value(mlir::Value)> scalar);
/// Whether a span_dot multiplies cooperative matrices, and the words of local memory that it needs for them.
bool usesMatrices(const Profile &profile, kernel::SpanDotOp op);
constexpr int64_t kMatrixWords = 1088;
/// `weights[row, 32 * group + lane]`.
mlir::Value lowerUnpack(Machine &machine, const PackedWeights &weights, mlir::Value row, mlir::Value group);

} // namespace freeport::vulkan
