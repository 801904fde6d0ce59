// Reads the header of a safetensors file (https://github.com/huggingface/safetensors#format) and checks all of it
// before any of it is used: the file comes from outside.
#pragma once

#include "compiler/checkpoint/Tensor.h"

#include "llvm/Support/Error.h"

#include <vector>

namespace freeport::checkpoint {

/// The tensors of the safetensors file at `path`, in name order. Errors name the file, the tensor, what was expected
/// and found.
llvm::Expected<std::vector<TensorInfo>> readSafetensorsHeader(llvm::StringRef path, unsigned file);

/// The same for bytes in memory: `header` is the JSON text, `dataBytes` what follows it in the file.
llvm::Expected<std::vector<TensorInfo>> parseSafetensorsHeader(llvm::StringRef path, llvm::StringRef header,
                                                               uint64_t dataBytes, unsigned file);

} // namespace freeport::checkpoint
