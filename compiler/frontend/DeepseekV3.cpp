// DeepseekV3ForCausalLM: latent attention, absorbed; a few dense layers, then routed and shared experts with sigmoid
// scores, a selection bias and groups. A multi-token-prediction layer (index num_hidden_layers) is left out.
#include "compiler/frontend/GraphBuilder.h"

using namespace mlir;

namespace freeport::frontend {

/// Norms of the compressed query and latent have this epsilon whatever rms_norm_eps says (DeepseekV3RMSNorm's default).
static constexpr double kLatentEpsilon = 1e-6;

llvm::Expected<ImportedModel> importDeepseekV3(GraphBuilder &b) {
  checkpoint::Config &config = b.config();
  int64_t hidden = config.integer("hidden_size", 1, 1 << 20), layers = config.integer("num_hidden_layers", 1, 4096);
  int64_t heads = config.integer("num_attention_heads", 1, 65536);
  // Null switches a part off; what is absent has the family's default.
  auto orNone = [&](StringRef key, int64_t fallback) { return config.mentions(key) ? 0 : fallback; };
  int64_t queryRank =
      config.has("q_lora_rank") ? config.integer("q_lora_rank", 1, 1 << 20) : orNone("q_lora_rank", 1536);
  int64_t rank = config.integer("kv_lora_rank", 1, 1 << 16), nope = config.integer("qk_nope_head_dim", 1, 4096);
  int64_t rotated = config.integer("qk_rope_head_dim", 2, 4096), valueSize = config.integer("v_head_dim", 1, 4096);
  int64_t inner = config.integer("intermediate_size", 1, 1 << 22),
          vocabulary = config.integer("vocab_size", 1, 1 << 24);
  int64_t context = config.integer("max_position_embeddings", 1, 1 << 24);
  int64_t dense = config.integerOr("first_k_dense_replace", 3, 0, 4096);
  int64_t experts = config.integer("n_routed_experts", 1, 4096),
          expertInner = config.integer("moe_intermediate_size", 1, 1 << 20);
  int64_t shared = config.integerOr("n_shared_experts", orNone("n_shared_experts", 1), 0, 1024),
          top = config.integer("num_experts_per_tok", 1, 256);
  int64_t groups = config.integerOr("n_group", 8, 1, 4096), kept = config.integerOr("topk_group", 4, 1, 4096);
  double epsilon = config.positive("rms_norm_eps");
  float routedScale = static_cast<float>(config.numberOr("routed_scaling_factor", 2.5));
  bool normalize = config.booleanOr("norm_topk_prob", true), tied = config.booleanOr("tie_word_embeddings", false);
  bool biased = config.booleanOr("attention_bias", false); // of the projections down and out, not of those up
  bool interleaved = config.booleanOr("rope_interleave", true);
  config.require("hidden_act", "silu", "the only activation of this family");
  config.require("scoring_func", "sigmoid", "this family's router");
  config.require("topk_method", "noaux_tc", "this family's router");
  config.require("moe_layer_freq", 1, "every layer after the dense ones has experts");
  if (rotated % 2)
    config.fail("qk_rope_head_dim", "an even number");
  if (experts % groups || (groups > 1 && experts / groups < 2))
    config.fail("n_group", "a divisor of n_routed_experts that leaves groups of at least 2");
  else if (kept > groups)
    config.fail("topk_group", "at most n_group");
  else if (top > experts / groups * kept)
    config.fail("num_experts_per_tok", "at most the experts of the kept groups");
  checkpoint::Config quantization = config.object("quantization_config");
  quantization.require("quant_method", "fp8", "the only quantisation that this family imports");
  quantization.require("weight_block_size", nlohmann::json::array({128, 128}), "scales per 128x128 block");
  config.adopt(quantization);
  Rope rope = readRope(config, rotated);
  if (llvm::Error error = config.takeError())
    return std::move(error);

  b.beginStep();
  FlatSymbolRefAttr frequencies = b.table("rope.frequencies", rope.frequencies);
  FlatSymbolRefAttr embedding =
      b.matrix("model.embed_tokens.weight", {{"model.embed_tokens.weight", vocabulary, hidden}});
  Value x = b.embed(embedding, hidden);
  int64_t head = nope + rotated;
  float scale = static_cast<float>(rope.attentionScale / std::sqrt(static_cast<double>(head)));
  graph::RopePairs pairs = interleaved ? graph::RopePairs::interleaved : graph::RopePairs::half;
  // Absorbed products stay in float: bf16 for quantised weights (design.md §3).
  StringRef latentFormat = b.isQuantized() ? "bf16" : "";
  for (int64_t layer = 0; layer < layers && !b.hasProblem(); ++layer) {
    std::string prefix = "model.layers." + std::to_string(layer) + ".", attention = prefix + "self_attn.";
    Value normed = b.rmsNorm(x, b.vector(prefix + "input_layernorm.weight", hidden), epsilon);
    Source keyDown{attention + "kv_a_proj_with_mqa.weight", rank + rotated, hidden};
    Value query, compressed;
    if (queryRank) {
      Value both = b.linear(normed, attention + "qkv_a",
                            {Source{attention + "q_a_proj.weight", queryRank, hidden}, keyDown}, biased);
      Value queryLatent = b.rmsNorm(b.columns(both, 0, queryRank),
                                    b.vector(attention + "q_a_layernorm.weight", queryRank), kLatentEpsilon);
      std::string up = attention + "q_b_proj.weight";
      query = b.linear(queryLatent, up, Source{up, heads * head, queryRank});
      compressed = b.columns(both, queryRank, rank + rotated);
    } else if (biased) { // of the two, only the latent's projection has one
      std::string direct = attention + "q_proj.weight";
      query = b.linear(normed, direct, Source{direct, heads * head, hidden});
      compressed = b.linear(normed, keyDown.tensor, keyDown, biased);
    } else {
      Value both =
          b.linear(normed, attention + "qkv_a", {Source{attention + "q_proj.weight", heads * head, hidden}, keyDown});
      query = b.columns(both, 0, heads * head);
      compressed = b.columns(both, heads * head, rank + rotated);
    }
    query = b.rope(query, rope, frequencies, pairs, heads, nope);
    Value key = b.rope(b.columns(compressed, rank, rotated), rope, frequencies, pairs, 1);
    Value latent =
        b.rmsNorm(b.columns(compressed, 0, rank), b.vector(attention + "kv_a_layernorm.weight", rank), kLatentEpsilon);
    std::string expand = attention + "kv_b_proj.weight";
    int64_t headRows = nope + valueSize;
    SmallVector<Source> keyHeads, valueHeads;
    for (int64_t number = 0; number < heads; ++number) {
      keyHeads.push_back({expand, heads * headRows, rank, number * headRows, nope, /*transposed=*/true});
      valueHeads.push_back({expand, heads * headRows, rank, number * headRows + nope, valueSize});
    }
    Value attended = b.builder.create<graph::LatentAttentionOp>(
        b.location, b.rows(heads * valueSize), query, latent, key, b.positions,
        b.bank(attention + "kv_b.key", keyHeads, latentFormat),
        b.bank(attention + "kv_b.value", valueHeads, latentFormat),
        b.builder.getStringAttr("layers." + std::to_string(layer)), b.builder.getStringAttr(b.stateFormat()),
        b.builder.getI64IntegerAttr(heads), b.builder.getF32FloatAttr(scale));
    std::string out = attention + "o_proj.weight";
    x = b.linear(attended, out, Source{out, hidden, heads * valueSize}, biased, x);
    normed = b.rmsNorm(x, b.vector(prefix + "post_attention_layernorm.weight", hidden), epsilon);
    if (layer < dense) {
      x = b.gatedNetwork(normed, prefix + "mlp.", hidden, inner, x);
      continue;
    }
    std::string router = prefix + "mlp.gate.weight";
    Value logits = b.linear(normed, b.matrix(router, {{router, experts, hidden}}, "f32"));
    auto route = b.builder.create<graph::RouteOp>(
        b.location, RankedTensorType::get({ShapedType::kDynamic, top}, b.builder.getI32Type()), b.rows(top), logits,
        b.vector(prefix + "mlp.gate.e_score_correction_bias", experts), graph::RouteScore::sigmoid, top, groups, kept,
        graph::GroupScore::top2_sum, normalize, APFloat(routedScale));
    SmallVector<Source> gates, ups, downs;
    for (int64_t number = 0; number < experts; ++number) {
      std::string expert = prefix + "mlp.experts." + std::to_string(number) + ".";
      gates.push_back({expert + "gate_proj.weight", expertInner, hidden});
      ups.push_back({expert + "up_proj.weight", expertInner, hidden});
      downs.push_back({expert + "down_proj.weight", hidden, expertInner});
    }
    std::string record = prefix + "mlp.experts";
    Value sharedOut;
    if (shared)
      sharedOut = b.gatedNetwork(normed, prefix + "mlp.shared_experts.", hidden, shared * expertInner, {});
    x = b.builder.create<graph::ExpertsOp>(b.location, b.rows(hidden), normed, route.getIds(), route.getWeights(),
                                           b.bank(record + ".gate", gates, "", record),
                                           b.bank(record + ".up", ups, "", record),
                                           b.bank(record + ".down", downs, "", record), sharedOut, x);
  }
  Value last = b.rmsNorm(b.selectRows(x), b.vector("model.norm.weight", hidden), epsilon);
  b.endStep(b.linear(last, tied ? embedding : b.matrix("lm_head.weight", {{"lm_head.weight", vocabulary, hidden}})));
  return b.finish("DeepseekV3ForCausalLM", vocabulary, context);
}

} // namespace freeport::frontend
