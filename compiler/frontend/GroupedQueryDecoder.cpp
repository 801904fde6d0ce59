// The decoder that llama made common: grouped-query attention with rotary embedding, RMS norms before attention
// and network. Families differ in biases, in norms of the heads and in the network.
#include "compiler/frontend/GraphBuilder.h"

using namespace mlir;

namespace freeport::frontend {

llvm::Expected<ImportedModel> importGroupedQueryDecoder(GraphBuilder &b, const GroupedQueryDecoder &family,
                                                        GroupedQueryDecoder::Network network) {
  checkpoint::Config &config = b.config();
  int64_t hidden = config.integer("hidden_size", 1, 1 << 20), layers = config.integer("num_hidden_layers", 1, 4096);
  int64_t heads = config.integer("num_attention_heads", 1, 65536);
  int64_t keyHeads = config.integerOr("num_key_value_heads", heads, 1, heads);
  int64_t head = config.integerOr("head_dim", family.headSize ? family.headSize : hidden / heads, 1, 4096);
  int64_t vocabulary = config.integer("vocab_size", 1, 1 << 24);
  int64_t context = config.integer("max_position_embeddings", 1, 1 << 24);
  double epsilon = config.positive("rms_norm_eps");
  bool tied = config.booleanOr("tie_word_embeddings", false), biased = config.booleanOr("attention_bias", false);
  graph::RopePairs pairs =
      config.booleanOr("rope_interleave", false) ? graph::RopePairs::interleaved : graph::RopePairs::half;
  config.require("hidden_act", "silu", "the only activation of this family");
  config.require("partial_rotary_factor", 1, "this family rotates whole heads");
  b.requireKnownQuantization();
  if (!config.has("head_dim") && !family.headSize && hidden % heads)
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
  int64_t queries = heads * head, keys = keyHeads * head;
  for (int64_t layer = 0; layer < layers && !b.hasProblem(); ++layer) {
    std::string prefix = "model.layers." + std::to_string(layer) + ".";
    std::string attention = prefix + "self_attn.";
    Value normed = b.rmsNorm(x, b.vector(prefix + "input_layernorm.weight", hidden), epsilon);
    SmallVector<Value> projected = b.linears(normed, attention + "qkv",
                                             {Source{attention + "q_proj.weight", queries, hidden},
                                              Source{attention + "k_proj.weight", keys, hidden},
                                              Source{attention + "v_proj.weight", keys, hidden}},
                                             biased);
    Value query = projected[0], key = projected[1];
    if (family.headNorms) {
      query = b.rmsNorm(query, b.vector(attention + "q_norm.weight", head), epsilon, heads);
      key = b.rmsNorm(key, b.vector(attention + "k_norm.weight", head), epsilon, keyHeads);
    }
    query = b.rope(query, rope, frequencies, pairs, heads);
    key = b.rope(key, rope, frequencies, pairs, keyHeads);
    Value attended = b.builder.create<graph::AttentionOp>(
        b.location, b.rows(queries), query, key, projected[2], b.positions,
        b.builder.getStringAttr("layers." + std::to_string(layer)), b.builder.getStringAttr(b.stateFormat()),
        b.keyFormat(), b.builder.getI64IntegerAttr(heads), b.builder.getI64IntegerAttr(keyHeads),
        b.builder.getF32FloatAttr(scale));
    std::string out = attention + "o_proj.weight";
    x = b.linear(attended, Source{out, hidden, queries}, biased, x);
    normed = b.rmsNorm(x, b.vector(prefix + "post_attention_layernorm.weight", hidden), epsilon);
    x = network(normed, prefix + "mlp.", layer, hidden, x);
  }
  Value last = b.rmsNorm(b.selectRows(x), b.vector("model.norm.weight", hidden), epsilon);
  b.endStep(b.linear(last, tied ? embedding : b.matrix("lm_head.weight", {{"lm_head.weight", vocabulary, hidden}})));
  return b.finish(family.name, vocabulary, context);
}

} // namespace freeport::frontend
