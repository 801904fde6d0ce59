// LlamaForCausalLM: grouped-query attention with half rotary embedding, a gated network, RMS norms before both.
#include "compiler/frontend/GraphBuilder.h"

using namespace mlir;

namespace freeport::frontend {

llvm::Expected<ImportedModel> importLlama(GraphBuilder &b) {
  checkpoint::Config &config = b.config();
  int64_t hidden = config.integer("hidden_size", 1, 1 << 20), layers = config.integer("num_hidden_layers", 1, 4096);
  int64_t heads = config.integer("num_attention_heads", 1, 65536);
  int64_t keyHeads = config.integerOr("num_key_value_heads", heads, 1, heads);
  int64_t head = config.integerOr("head_dim", hidden / heads, 1, 4096);
  int64_t inner = config.integer("intermediate_size", 1, 1 << 22),
          vocabulary = config.integer("vocab_size", 1, 1 << 24);
  int64_t context = config.integer("max_position_embeddings", 1, 1 << 24);
  double epsilon = config.positive("rms_norm_eps");
  bool tied = config.booleanOr("tie_word_embeddings", false);
  bool attentionBias = config.booleanOr("attention_bias", false), mlpBias = config.booleanOr("mlp_bias", false);
  config.require("hidden_act", "silu", "the only activation of this family");
  config.require("partial_rotary_factor", 1, "this family rotates whole heads");
  checkpoint::Config quantization = config.object("quantization_config");
  quantization.require("quant_method", "fp8", "the only quantisation that this family imports");
  quantization.require("weight_block_size", nlohmann::json::array({128, 128}), "scales per 128x128 block");
  config.adopt(quantization);
  if (!config.has("head_dim") && hidden % heads)
    config.fail("hidden_size", "a multiple of num_attention_heads where head_dim is absent");
  if (heads % keyHeads)
    config.fail("num_key_value_heads", "a divisor of num_attention_heads");
  if (head % 2)
    config.fail("head_dim", "an even number");
  Rope rope = readRope(config, head);
  if (llvm::Error error = config.takeError())
    return std::move(error);

  b.beginStep();
  FlatSymbolRefAttr frequencies = b.table("rope.frequencies", rope.frequencies);
  FlatSymbolRefAttr embedding =
      b.matrix("model.embed_tokens.weight", {{"model.embed_tokens.weight", vocabulary, hidden}});
  Value x = b.embed(embedding, hidden);
  float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(head)));
  for (int64_t layer = 0; layer < layers && !b.hasProblem(); ++layer) {
    std::string prefix = "model.layers." + std::to_string(layer) + ".";
    std::string attention = prefix + "self_attn.";
    int64_t queries = heads * head, keys = keyHeads * head;
    Value normed = b.rmsNorm(x, b.vector(prefix + "input_layernorm.weight", hidden), epsilon);
    Value all =
        b.linear(normed, attention + "qkv",
                 {Source{attention + "q_proj.weight", queries, hidden},
                  Source{attention + "k_proj.weight", keys, hidden}, Source{attention + "v_proj.weight", keys, hidden}},
                 attentionBias);
    Value query = b.rope(b.columns(all, 0, queries), rope, frequencies, graph::RopePairs::half, heads);
    Value key = b.rope(b.columns(all, queries, keys), rope, frequencies, graph::RopePairs::half, keyHeads);
    Value attended = b.builder.create<graph::AttentionOp>(
        b.location, b.rows(queries), query, key, b.columns(all, queries + keys, keys), b.positions,
        "layers." + std::to_string(layer), b.stateFormat(), heads, keyHeads, APFloat(scale));
    std::string out = attention + "o_proj.weight";
    x = b.linear(attended, out, Source{out, hidden, queries}, attentionBias, x);
    normed = b.rmsNorm(x, b.vector(prefix + "post_attention_layernorm.weight", hidden), epsilon);
    x = b.gatedNetwork(normed, prefix + "mlp.", hidden, inner, x, mlpBias);
  }
  Value last = b.rmsNorm(b.selectRows(x), b.vector("model.norm.weight", hidden), epsilon);
  b.endStep(b.linear(last, tied ? embedding : b.matrix("lm_head.weight", {{"lm_head.weight", vocabulary, hidden}})));
  return b.finish("LlamaForCausalLM", vocabulary, context);
}

} // namespace freeport::frontend
