// Qwen3ForCausalLM and Qwen3MoeForCausalLM: each head of queries and keys is normed before it is rotated; in the latter
// most layers have routed experts, chosen by softmax, instead of a gated network.
#include "compiler/frontend/GraphBuilder.h"

using namespace mlir;

namespace freeport::frontend {

/// Whether all layers attend to everything.
static void requireFullAttention(checkpoint::Config &config) {
  config.require("use_sliding_window", false, "this family's layers attend to everything");
  for (const std::string &type : config.strings("layer_types"))
    if (type != "full_attention")
      config.fail("layer_types", "full_attention in every layer");
}

llvm::Expected<ImportedModel> importQwen3(GraphBuilder &b) {
  requireFullAttention(b.config());
  int64_t inner = b.config().integer("intermediate_size", 1, 1 << 22);
  return importGroupedQueryDecoder(b, {.name = "Qwen3ForCausalLM", .headNorms = true, .headSize = 128},
                                   [&](Value normed, StringRef prefix, int64_t, int64_t hidden, Value residual) {
                                     return b.gatedNetwork(normed, prefix, hidden, inner, residual);
                                   });
}

llvm::Expected<ImportedModel> importQwen3Moe(GraphBuilder &b) {
  checkpoint::Config &config = b.config();
  requireFullAttention(config);
  int64_t inner = config.integer("intermediate_size", 1, 1 << 22),
          expertInner = config.integer("moe_intermediate_size", 1, 1 << 20);
  int64_t experts = config.integer("num_experts", 1, 4096), top = config.integer("num_experts_per_tok", 1, 256);
  int64_t period = config.integerOr("decoder_sparse_step", 1, 1, 4096);
  bool normalize = config.booleanOr("norm_topk_prob", false);
  std::vector<int64_t> dense = config.integers("mlp_only_layers");
  if (top > experts)
    config.fail("num_experts_per_tok", "at most num_experts");
  return importGroupedQueryDecoder(
      b, {.name = "Qwen3MoeForCausalLM", .headNorms = true},
      [&](Value normed, StringRef prefix, int64_t layer, int64_t hidden, Value residual) -> Value {
        if (llvm::is_contained(dense, layer) || (layer + 1) % period)
          return b.gatedNetwork(normed, prefix, hidden, inner, residual);
        Routing routing{.experts = experts, .top = top, .normalize = normalize};
        return b.routedExperts(normed, prefix, routing, hidden, expertInner, {}, residual);
      });
}

} // namespace freeport::frontend
