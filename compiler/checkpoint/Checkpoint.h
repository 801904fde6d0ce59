// A checkpoint folder as Hugging Face lays it out: config.json, one or many safetensors files, and the tokenizer's
// files. Opening reads headers only; tensors are read in pieces, by position, so that memory stays bounded.
#pragma once

#include "compiler/checkpoint/Config.h"
#include "compiler/checkpoint/Safetensors.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringMap.h"

#include <optional>

namespace freeport::checkpoint {

class Checkpoint {
public:
  /// Opens `folder`. Fails where config.json or weights are missing, or a header is not what its format says.
  static llvm::Expected<Checkpoint> open(llvm::StringRef folder);
  Checkpoint(Checkpoint &&);
  Checkpoint &operator=(Checkpoint &&) = delete;
  ~Checkpoint();

  llvm::StringRef folder() const { return folderPath; }
  Config &config() { return configuration; }
  /// In name order.
  llvm::ArrayRef<TensorInfo> tensors() const { return all; }
  const TensorInfo *find(llvm::StringRef name) const;
  /// Reads `target.size()` bytes of `tensor` from its byte `offset` on. Thread-safe.
  llvm::Error read(const TensorInfo &tensor, uint64_t offset, llvm::MutableArrayRef<uint8_t> target) const;
  /// The content of a small file of the folder (tokenizer.json, …), or nothing where it is absent.
  llvm::Expected<std::optional<std::string>> text(llvm::StringRef file) const;

private:
  Checkpoint() = default;
  std::string folderPath;
  Config configuration;
  std::vector<std::string> paths;
  std::vector<int> handles;
  std::vector<TensorInfo> all;
};

} // namespace freeport::checkpoint
