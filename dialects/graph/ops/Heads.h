// Heads of rows, as attention takes them: normed and rotated while they are read, where nothing else needs that.
#pragma once

#include "dialects/graph/Lowering.h"

namespace freeport::graph {

inline int64_t blocksOf(int64_t width) { return (width + 31) / 32; }

/// Writes the lanes of each group of 32 elements of a row's RMS norm; `element` gives a group, flushed.
void emitRmsNorm(kernel::Emit &e, int64_t size, mlir::APFloat epsilon, mlir::Value weight,
                 llvm::function_ref<mlir::Value(mlir::Value group)> element,
                 llvm::function_ref<void(mlir::Value group, mlir::Value lanes)> write);

/// Whether only an attention reads what `op`, a norm of heads or a rotation, makes: the attention does it then while it
/// reads its heads, and `op` is no dispatch.
bool isPartOfAttention(mlir::Operation *op);

/// Heads of `size` elements that lie side by side in rows of memory, and what is done to each while it is read.
class Heads {
public:
  /// The heads of rows, as they are.
  Heads(View rows, int64_t size) : rows(rows), size(size) {}
  /// `rope`'s result, from `in` on.
  Heads(LoweringContext &context, RopeOp rope, mlir::Value in);
  /// An attention's operand, with all that is part of the attention.
  Heads(LoweringContext &context, mlir::Value operand, int64_t count);

  const View &view() const { return rows; }
  /// Of local memory that holds a head.
  int64_t localElements() const { return 32 * blocksOf(size); }
  /// What a kernel that reads them depends on.
  std::string name() const;
  /// Adds what reading them takes to a kernel's memory arguments.
  void addArguments(LoweringContext &context, llvm::SmallVectorImpl<mlir::Type> &types,
                    llvm::SmallVectorImpl<mlir::Value> &buffers);
  /// Copies heads `numbers` of row `token` to local memory, flushed.
  void read(kernel::Emit &e, mlir::ValueRange arguments, mlir::Value token, mlir::Value position,
            llvm::ArrayRef<mlir::Value> numbers, llvm::ArrayRef<mlir::Value> locals) const;

private:
  void setRope(RopeOp op);
  void rotate(kernel::Emit &e, mlir::Value frequencies, mlir::Value position, llvm::ArrayRef<mlir::Value> locals) const;

  View rows;
  int64_t size;
  RmsNormOp norm;
  RopeOp rope;
  int64_t pairs = 0;          ///< that a head's rope rotates
  unsigned firstArgument = 0; ///< rows, the norm's weight, frequencies
};

} // namespace freeport::graph
