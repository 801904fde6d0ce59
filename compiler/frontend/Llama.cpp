// LlamaForCausalLM: a gated network in every layer.
#include "compiler/frontend/GraphBuilder.h"

using namespace mlir;

namespace freeport::frontend {

llvm::Expected<ImportedModel> importLlama(GraphBuilder &b) {
  int64_t inner = b.config().integer("intermediate_size", 1, 1 << 22);
  bool biased = b.config().booleanOr("mlp_bias", false);
  return importGroupedQueryDecoder(b, {.name = "LlamaForCausalLM"},
                                   [&](Value normed, StringRef prefix, int64_t, int64_t hidden, Value residual) {
                                     return b.gatedNetwork(normed, prefix, hidden, inner, residual, biased);
                                   });
}

} // namespace freeport::frontend
