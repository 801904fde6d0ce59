// Reads the header of a GGUF file (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), versions 2 and 3, and
// checks all of it before any of it is used: the file comes from outside.
#pragma once

#include "compiler/checkpoint/Tensor.h"

#include "llvm/Support/Error.h"

#include <nlohmann/json.hpp>

#include <vector>

namespace freeport::checkpoint {

struct GgufHeader {
  nlohmann::json metadata = nlohmann::json::object(); ///< key -> number, boolean, text or array of these
  std::vector<TensorInfo> tensors;                    ///< in the file's order; sizes outermost first
};

/// Whether `bytes` begin as a GGUF file does.
bool isGguf(llvm::StringRef bytes);

/// The header of the GGUF file at `path`. Errors name the file, the key or tensor, what was expected and found.
llvm::Expected<GgufHeader> readGgufHeader(llvm::StringRef path);

/// The same for bytes in memory: `bytes` are the file's first, `fileBytes` how many it has in all.
llvm::Expected<GgufHeader> parseGgufHeader(llvm::StringRef path, llvm::StringRef bytes, uint64_t fileBytes);

} // namespace freeport::checkpoint
