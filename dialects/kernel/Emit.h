// Writes kernels: short names for the ops that kernels are made of, and the portable definitions of exp, sine, cosine
// and int8 quantisation out of multiply, add and integer operations (design.md §4).
#pragma once

#include "dialects/kernel/Kernel.h"

#include "mlir/IR/Builders.h"
#include "mlir/Pass/Pass.h"
#include "llvm/ADT/STLFunctionalExtras.h"

namespace freeport::kernel {

/// Emits at a builder's insertion point. Arithmetic takes scalars and lane vectors alike: a scalar meets a vector as a
/// splat.
class Emit {
public:
  /// `nativeExp`: `exp` is math.exp, the target's own (`fast` numerics).
  Emit(mlir::OpBuilder &builder, mlir::Location location, bool nativeExp = false)
      : builder(builder), location(location), nativeExp(nativeExp) {}

  mlir::Value index(int64_t value);
  mlir::Value i32(int64_t value);
  mlir::Value f32(float value);
  mlir::Value f32Bits(uint32_t bits);
  /// The scalar in each of the 32 lanes; vectors pass.
  mlir::Value lanes(mlir::Value scalar);
  mlir::Value zeroLanes() { return lanes(f32(0)); }

  mlir::Value add(mlir::Value a, mlir::Value b);
  mlir::Value sub(mlir::Value a, mlir::Value b);
  mlir::Value mul(mlir::Value a, mlir::Value b);
  /// Correctly rounded for floats, rounding to zero for integers.
  mlir::Value div(mlir::Value a, mlir::Value b);
  mlir::Value ceilDiv(mlir::Value a, mlir::Value b);
  /// `a > b ? a : b`, and its twin.
  mlir::Value max(mlir::Value a, mlir::Value b);
  mlir::Value min(mlir::Value a, mlir::Value b);
  mlir::Value less(mlir::Value a, mlir::Value b);
  mlir::Value equal(mlir::Value a, mlir::Value b);
  mlir::Value differs(mlir::Value a, mlir::Value b);
  mlir::Value either(mlir::Value a, mlir::Value b);
  mlir::Value both(mlir::Value a, mlir::Value b);
  mlir::Value select(mlir::Value condition, mlir::Value a, mlir::Value b);
  mlir::Value negate(mlir::Value a) { return sub(f32(0), a); }

  mlir::Value toIndex(mlir::Value i32);
  mlir::Value toI32(mlir::Value index);
  mlir::Value toF32(mlir::Value value);
  /// f32 to the element type of a state: f16 to nearest even, saturating; f32 passes.
  mlir::Value toElement(mlir::Value value, mlir::Type element);
  mlir::Value bitcast(mlir::Value value, mlir::Type element);

  mlir::Value programId(Dimension dimension);
  mlir::Value laneId();
  mlir::Value load(mlir::Value buffer, mlir::Value base);
  mlir::Value loadLanes(mlir::Value buffer, mlir::Value base, mlir::Value mask = {});
  mlir::Value gather(mlir::Value buffer, mlir::Value base, mlir::Value offsets, mlir::Value mask = {});
  void store(mlir::Value value, mlir::Value buffer, mlir::Value base);
  void storeLanes(mlir::Value value, mlir::Value buffer, mlir::Value base, mlir::Value mask = {});
  void scatter(mlir::Value value, mlir::Value buffer, mlir::Value base, mlir::Value offsets, mlir::Value mask = {});
  mlir::Value local(int64_t elements);
  mlir::Value reduce(ReduceKind kind, mlir::Value value);
  mlir::Value broadcast(mlir::Value value, mlir::Value lane);

  /// Lanes of `group` that lie below `width`; null where all do.
  mlir::Value mask(mlir::Value group, int64_t width);

  using LoopBody = llvm::function_ref<llvm::SmallVector<mlir::Value>(mlir::Value, mlir::ValueRange)>;
  /// `for i = lower; i < upper; ++i`, carrying `initial`; the body returns the next values.
  llvm::SmallVector<mlir::Value> loop(mlir::Value lower, mlir::Value upper, mlir::ValueRange initial, LoopBody body);
  void loop(mlir::Value lower, mlir::Value upper, llvm::function_ref<void(mlir::Value)> body);
  using Branch = llvm::function_ref<llvm::SmallVector<mlir::Value>()>;
  llvm::SmallVector<mlir::Value> branch(mlir::Value condition, mlir::TypeRange types, Branch then, Branch otherwise);
  void when(mlir::Value condition, llvm::function_ref<void()> then);

  /// +0 where |x| < 2^-50, so that no product is subnormal.
  mlir::Value flush(mlir::Value x);
  /// exp on [-87, 87], clamped outside.
  mlir::Value exp(mlir::Value x);
  /// exp's portable definition for such arguments: Cody and Waite's reduction, a polynomial of degree 7, scaling by
  /// integer addition.
  mlir::Value portableExp(mlir::Value x);
  /// `1 / (1 + exp(-x))` and `x / (1 + exp(-x))`.
  mlir::Value sigmoid(mlir::Value x);
  mlir::Value silu(mlir::Value x);
  /// `flush(silu(gate)) * flush(up)`.
  mlir::Value glu(mlir::Value gate, mlir::Value up);
  mlir::Value sqrt(mlir::Value x);
  /// Nearest integer as a float, ties to even, for |x| < 2^22.
  mlir::Value round(mlir::Value x);
  /// Sine and cosine for 0 <= angle < 2^17 * pi / 2.
  std::pair<mlir::Value, mlir::Value> sineCosine(mlir::Value angle);
  /// `weights` (of `entry`, for a bank) times activations: spans added in order from +0; one vector per row block and
  /// record.
  mlir::Value spanDots(mlir::Value weights, mlir::Value entry, mlir::ValueRange blocks, mlir::Value activations,
                       mlir::ValueRange records);
  /// The 32 rows of block `block` for record `record` out of what `spanDots` returned.
  mlir::Value lanesOf(mlir::Value dots, int64_t block, int64_t record);
  /// A group of 32 values as a row of a q8 record has it, {codes, scale}: the f16 scale is max|x| / 127, to nearest
  /// even and at most 65,504; a code is x / scale to nearest even, within ±127, and 0 where the scale is.
  std::pair<mlir::Value, mlir::Value> quantizeQ8(mlir::Value value);
  /// Writes `value` as group `group` of `token`'s record: quantised to int8, or flushed f32, by the activations' type.
  void storeGroup(mlir::Value value, mlir::Value activations, mlir::Value token, mlir::Value group);

  mlir::OpBuilder &builder;
  mlir::Location location;

private:
  mlir::Value greatestMagnitude(mlir::Value lanes);
  /// Splats the scalar one of a mixed pair.
  void match(mlir::Value &a, mlir::Value &b);

  const bool nativeExp;
};

/// Replaces math.exp in `root` by the portable definition.
void expandMath(mlir::Operation *root);
std::unique_ptr<mlir::Pass> createExpandMathPass();

} // namespace freeport::kernel
