// Bytes as a GGUF file: any input ends in a model told as a folder or in an error that can be read, and every tensor
// that is told lies inside the file.
#include "compiler/checkpoint/GgufModel.h"

#include <cstdint>
#include <cstdlib>
#include <cstring>

using namespace freeport::checkpoint;

static void requireMessage(llvm::Error error) {
  if (llvm::toString(std::move(error)).empty())
    std::abort();
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  llvm::StringRef bytes(reinterpret_cast<const char *>(data), size);
  auto header = parseGgufHeader("fuzz", bytes, size);
  if (!header) {
    requireMessage(header.takeError());
    return 0;
  }
  auto inside = [&](const TensorInfo &tensor) { return tensor.offset <= size && tensor.size <= size - tensor.offset; };
  for (const TensorInfo &tensor : header->tensors)
    if (!inside(tensor))
      std::abort();
  auto read = [&](const TensorInfo &tensor, llvm::MutableArrayRef<uint8_t> target) {
    if (!inside(tensor) || target.size() > tensor.size)
      std::abort();
    std::memcpy(target.data(), data + tensor.offset, target.size());
    return llvm::Error::success();
  };
  auto model = translateGguf("fuzz", std::move(*header), read);
  if (!model) {
    requireMessage(model.takeError());
    return 0;
  }
  for (const TensorInfo &tensor : model->tensors)
    if (!inside(tensor))
      std::abort();
  return 0;
}
