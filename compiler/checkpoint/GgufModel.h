// A GGUF file told as the Hugging Face folder that it was made from: configuration, tokenizer files and names of
// tensors, so that each model family is imported by one frontend wherever its weights come from.
#pragma once

#include "compiler/checkpoint/Gguf.h"

#include "llvm/ADT/STLFunctionalExtras.h"

#include <map>

namespace freeport::checkpoint {

struct GgufModel {
  std::map<std::string, std::string> texts; ///< content by file name: config.json, tokenizer.json, …
  /// With Hugging Face's names; banks of experts and of heads are cut into matrices (`….experts.7.up_proj.weight`,
  /// `….k_b_proj.7.weight`).
  std::vector<TensorInfo> tensors;
  std::vector<std::string> notes; ///< what a user should know
};

/// Fills a small tensor's bytes.
using ReadTensor = llvm::function_ref<llvm::Error(const TensorInfo &, llvm::MutableArrayRef<uint8_t>)>;

/// Translates architectures llama, qwen3, qwen3moe and deepseek2; others are an error. `path` is for messages.
llvm::Expected<GgufModel> translateGguf(llvm::StringRef path, GgufHeader header, ReadTensor read);

} // namespace freeport::checkpoint
