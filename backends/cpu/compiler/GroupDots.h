// The integer core of span_dot: exact dots of one group of 32 inputs, for some rows of a row block and several tokens.
// One implementation for each architecture; SpanDot.cpp does everything around it.
#pragma once

#include "backends/cpu/compiler/KernelLowering.h"

#include <memory>

namespace freeport::cpu {

/// Rows of a record: where their dwords begin, and what stands behind their integers. A value is
/// step * integer - least * minimum, without what is null, and the integer is the sum of scales[half] * dot of a half.
struct Strip {
  mlir::Value dwords;
  mlir::Value step, least;        ///< floats
  mlir::Value scales[2], minimum; ///< words; one scale for both halves unless there is a second; null: 1
};

class GroupDots {
public:
  GroupDots(Machine &machine, kernel::BlockFormat format, int64_t lanes, size_t tokensTogether);
  virtual ~GroupDots() = default;

  /// One vector of `lanes` words for each token: the sums of products with its group, scales included. `codes` and
  /// `sums` are the addresses of the tokens' 32 bytes and of their sum, an i32.
  virtual llvm::SmallVector<mlir::Value> dots(const Strip &strip, llvm::ArrayRef<mlir::Value> codes,
                                              llvm::ArrayRef<mlir::Value> sums) = 0;

  const int64_t lanes;         ///< rows of a strip
  const size_t tokensTogether; ///< of a walk over several: what registers hold

protected:
  /// What codes of the format that are kept unsigned have too much.
  int64_t zeroPoint() const;
  /// Bytes of inputs 4 * word .. 4 * word + 3, as they are stored: of q8 signed, of the formats that keep nibbles
  /// unsigned, with the bits above them.
  mlir::Value bytes(const Strip &strip, int64_t word);
  /// The i32 at `pointer`, times `factor`, in each lane.
  mlir::Value splatWord(mlir::Value pointer, int64_t factor);

  Machine &m;
  const kernel::BlockFormat format;
  mlir::VectorType byteLanes, shortLanes, wordLanes; ///< four bytes, two shorts or a word for each row

private:
  mlir::Value nibbles(const Strip &strip, int64_t word);
};

/// For walks of `tokens` tokens.
std::unique_ptr<GroupDots> createX86Dots(Machine &machine, kernel::BlockFormat format, size_t tokens);
std::unique_ptr<GroupDots> createNeonDots(Machine &machine, kernel::BlockFormat format);

} // namespace freeport::cpu
