// A checkpoint: a folder as Hugging Face lays it out (config.json, one or many safetensors files, the tokenizer's
// files), or a GGUF file, told as such a folder. Opening reads headers only; tensors are read in pieces, by position,
// so that memory stays bounded.
#pragma once

#include "compiler/checkpoint/Config.h"
#include "compiler/checkpoint/Tensor.h"

#include "llvm/ADT/ArrayRef.h"
#include "llvm/ADT/StringMap.h"

#include <map>
#include <optional>
#include <vector>

namespace freeport::checkpoint {

class Checkpoint {
public:
  /// Opens the folder or GGUF file at `path`. Fails where config.json or weights are missing, or a header is not what
  /// its format says.
  static llvm::Expected<Checkpoint> open(llvm::StringRef path);
  Checkpoint(Checkpoint &&);
  Checkpoint &operator=(Checkpoint &&) = delete;
  ~Checkpoint();

  llvm::StringRef path() const { return location; }
  /// Whether it is one GGUF file.
  bool isFile() const { return single; }
  Config &config() { return configuration; }
  /// In name order.
  llvm::ArrayRef<TensorInfo> tensors() const { return all; }
  const TensorInfo *find(llvm::StringRef name) const;
  /// Reads `target.size()` bytes of `tensor` from its byte `offset` on. Thread-safe.
  llvm::Error read(const TensorInfo &tensor, uint64_t offset, llvm::MutableArrayRef<uint8_t> target) const;
  /// What a user should know of what was read.
  llvm::ArrayRef<std::string> notes() const { return remarks; }
  /// The content of a small file of the folder (tokenizer.json, …), or nothing where it is absent.
  llvm::Expected<std::optional<std::string>> text(llvm::StringRef file) const;

private:
  Checkpoint() = default;
  llvm::Error openFolder();
  llvm::Error openGguf();
  /// Opens a file of weights, which becomes the last of `paths`.
  llvm::Error openWeights(const std::string &path);
  llvm::Error sortTensors();

  std::string location;
  bool single = false;
  std::map<std::string, std::string> texts; ///< of a GGUF file, by file name
  std::vector<std::string> remarks;
  Config configuration;
  std::vector<std::string> paths;
  std::vector<int> handles;
  std::vector<TensorInfo> all;
};

} // namespace freeport::checkpoint
