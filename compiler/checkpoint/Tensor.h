// A tensor of a checkpoint as a file's header describes it: what it is called, how its values are stored, where.
#pragma once

#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"

#include <cstdint>
#include <string>

namespace freeport::checkpoint {

/// Plain values, then GGML's blocks of quantised ones (https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h).
enum class DataType {
  F64,
  F32,
  F16,
  BF16,
  F8_E4M3,
  F8_E5M2,
  I64,
  I32,
  I16,
  I8,
  U8,
  BOOL,
  Q4_0,
  Q5_0,
  Q8_0,
  Q4_K,
  Q6_K
};

/// How many consecutive values of a row are stored together, and in how many bytes; 1 for plain types.
struct Block {
  unsigned elements = 1;
  unsigned bytes = 1;
};
Block blockOf(DataType type);
/// Whether the values are integers with scales.
inline bool isQuantized(DataType type) { return blockOf(type).elements > 1; }
/// Bytes of `elements` values, a multiple of the block's.
inline uint64_t byteSize(DataType type, uint64_t elements) {
  return elements / blockOf(type).elements * blockOf(type).bytes;
}
llvm::StringRef name(DataType type);

struct TensorInfo {
  std::string name;
  DataType dtype = DataType::F32;
  llvm::SmallVector<int64_t, 3> shape; ///< the last varies fastest
  unsigned file = 0;                   ///< index into the checkpoint's files
  uint64_t offset = 0;                 ///< of the first byte, in the file
  uint64_t size = 0;                   ///< in bytes
};

} // namespace freeport::checkpoint
