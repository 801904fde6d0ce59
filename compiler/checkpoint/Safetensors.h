// Reads the header of a safetensors file (https://github.com/huggingface/safetensors#format) and checks all of it
// before any of it is used: the file comes from outside.
#pragma once

#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"

#include <string>
#include <vector>

namespace freeport::checkpoint {

enum class DataType { F64, F32, F16, BF16, F8_E4M3, F8_E5M2, I64, I32, I16, I8, U8, BOOL };

/// Bytes of one element.
unsigned byteWidth(DataType type);
llvm::StringRef name(DataType type);

struct TensorInfo {
  std::string name;
  DataType dtype = DataType::F32;
  llvm::SmallVector<int64_t, 3> shape;
  unsigned file = 0;   ///< index into Checkpoint::files()
  uint64_t offset = 0; ///< of the first byte, in the file
  uint64_t size = 0;   ///< in bytes
};

/// The tensors of the safetensors file at `path`, in name order. Errors name the file, the tensor, what was expected
/// and found.
llvm::Expected<std::vector<TensorInfo>> readSafetensorsHeader(llvm::StringRef path, unsigned file);

/// The same for bytes in memory: `header` is the JSON text, `dataBytes` what follows it in the file.
llvm::Expected<std::vector<TensorInfo>> parseSafetensorsHeader(llvm::StringRef path, llvm::StringRef header,
                                                               uint64_t dataBytes, unsigned file);

} // namespace freeport::checkpoint
