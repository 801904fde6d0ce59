// Bytes as the header of a safetensors file: any input ends in a list of tensors or in an error that can be read.
#include "compiler/checkpoint/Safetensors.h"

#include <cstdint>
#include <cstdlib>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  llvm::StringRef header(reinterpret_cast<const char *>(data), size);
  for (uint64_t dataBytes : {uint64_t(0), uint64_t(64), uint64_t(1) << 40}) {
    auto tensors = freeport::checkpoint::parseSafetensorsHeader("fuzz", header, dataBytes, 0);
    if (!tensors) {
      if (llvm::toString(tensors.takeError()).empty())
        std::abort();
      continue;
    }
    uint64_t covered = 0;
    for (const freeport::checkpoint::TensorInfo &tensor : *tensors)
      covered += tensor.size;
    if (covered != dataBytes)
      std::abort();
  }
  return 0;
}
