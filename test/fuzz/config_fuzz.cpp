// Bytes as config.json: every typed question has an answer, and the rotary embedding is read from any object.
#include "compiler/checkpoint/Config.h"
#include "compiler/frontend/Rope.h"

#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  auto config =
      freeport::checkpoint::Config::parse("fuzz", llvm::StringRef(reinterpret_cast<const char *>(data), size));
  if (!config) {
    llvm::consumeError(config.takeError());
    return 0;
  }
  freeport::frontend::readRope(*config, 64);
  config->integerOr("hidden_size", 1, 1);
  config->firstString("architectures");
  config->require("hidden_act", "silu", "fuzz");
  llvm::consumeError(config->takeError());
  return 0;
}
