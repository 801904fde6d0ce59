// Writes the machine-near IR that kernel ops become: addresses as LLVM pointers, everything else in arith, vector and
// scf on vectors of one dimension, which the upstream conversions take from there. Shared by KernelToLLVM.cpp and
// SpanDot.cpp.
#pragma once

#include "backends/cpu/compiler/Profile.h"
#include "compiler/offload/Backend.h"
#include "dialects/kernel/Kernel.h"

#include "mlir/Dialect/LLVMIR/LLVMDialect.h"
#include "mlir/IR/Builders.h"
#include "llvm/ADT/STLFunctionalExtras.h"

namespace freeport::cpu {

/// How many bytes ahead a single token's dot products ask for weights, or 0: an i64 of the shared object, 0 until the
/// runtime half sets it to what suits the processor.
constexpr llvm::StringLiteral kPrefetchDistance = "freeport_prefetch_distance";

/// Emits at a builder's insertion point. Addresses are `!llvm.ptr`, sizes and offsets i64, in bytes unless said
/// otherwise.
class Machine {
public:
  Machine(mlir::OpBuilder &builder, mlir::Location location, const Profile &profile)
      : builder(builder), location(location), profile(profile) {}

  template <typename OpType, typename... Arguments> OpType create(Arguments &&...arguments) {
    return builder.create<OpType>(location, std::forward<Arguments>(arguments)...);
  }

  mlir::Type f32() { return builder.getF32Type(); }
  mlir::VectorType lanes(int64_t count, mlir::Type element) { return mlir::VectorType::get({count}, element); }
  mlir::Value i64(int64_t value);
  mlir::Value i32(int64_t value);
  /// An `index` as i64.
  mlir::Value toI64(mlir::Value index);
  mlir::Value add(mlir::Value a, mlir::Value b);
  mlir::Value multiply(mlir::Value a, mlir::Value b);
  /// The value in each of `count` lanes.
  mlir::Value splat(mlir::Value scalar, int64_t count);
  /// A vector constant with `value` in each lane.
  mlir::Value splatConstant(mlir::VectorType type, int64_t value);
  mlir::Value zero(mlir::Type type);

  mlir::Value address(mlir::Value pointer, mlir::Value bytes);
  mlir::Value address(mlir::Value pointer, int64_t bytes);
  /// The address of element `index` (an `index`) of a buffer.
  mlir::Value element(mlir::Value pointer, mlir::Type type, mlir::Value index);
  /// Loads and stores assume the alignment of one element only.
  mlir::Value load(mlir::Type type, mlir::Value pointer);
  void store(mlir::Value value, mlir::Value pointer);
  /// `bytes` of the stack, 64-aligned, for the whole program.
  mlir::Value stack(int64_t bytes);

  mlir::Value shuffle(mlir::Value a, mlir::Value b, llvm::ArrayRef<int64_t> mask);
  mlir::Value slice(mlir::Value vector, int64_t first, int64_t count);
  /// Vectors of equal length side by side; their number is a power of two.
  mlir::Value concatenate(llvm::ArrayRef<mlir::Value> vectors);
  mlir::Value bitcast(mlir::Value value, mlir::Type type);
  /// f16 to f32, scalars and vectors.
  mlir::Value widen(mlir::Value value);
  mlir::Value intrinsic(llvm::StringRef name, mlir::Type result, mlir::ValueRange operands);

  using Branch = llvm::function_ref<llvm::SmallVector<mlir::Value>()>;
  /// What `yes` returns where `condition`, an i1, holds, else what `no` does.
  llvm::SmallVector<mlir::Value> choose(mlir::Value condition, Branch yes, Branch no);
  /// The address of the module's variable of that name, an i64 that is `initial` until someone sets it; adds it where
  /// it is missing. Weak: the objects of a module's kernels share one.
  mlir::Value globalAddress(llvm::StringRef name, int64_t initial);

  using LoopBody = llvm::function_ref<llvm::SmallVector<mlir::Value>(mlir::Value, mlir::ValueRange)>;
  /// `for i = first; i < last; i += step` on i64, carrying `initial`; the body returns the next values.
  llvm::SmallVector<mlir::Value> loop(mlir::Value first, mlir::Value last, int64_t step, mlir::ValueRange initial,
                                      LoopBody body);

  mlir::OpBuilder &builder;
  mlir::Location location;
  const Profile &profile;
};

/// The value of a kernel.span_dot whose memory operands lie at the given addresses.
mlir::Value lowerSpanDot(Machine &machine, kernel::SpanDotOp op, mlir::Value weights, mlir::Value activations);

} // namespace freeport::cpu
