// DeepseekV2ForCausalLM and DeepseekV3ForCausalLM: latent attention, absorbed; a few dense layers, then routed and
// shared experts. The former routes by softmax, perhaps in groups judged by their best expert; the latter by sigmoid
// scores with a selection bias and groups judged by their best two. A multi-token-prediction layer (index
// num_hidden_layers) is left out.
#include "compiler/frontend/GraphBuilder.h"

using namespace mlir;

namespace freeport::frontend {

namespace {

enum class Version { v2, v3 };

/// Norms of the compressed query and latent have this epsilon whatever rms_norm_eps says (the default of both families'
/// RMSNorm).
constexpr double kLatentEpsilon = 1e-6;

/// The router as the configuration has it.
Routing readRouting(checkpoint::Config &config, Version version) {
  Routing routing{.experts = config.integer("n_routed_experts", 1, 4096),
                  .top = config.integer("num_experts_per_tok", 1, 256)};
  if (version == Version::v3) {
    routing.groups = config.integerOr("n_group", 8, 1, 4096);
    routing.groupsKept = config.integerOr("topk_group", 4, 1, 4096);
    routing.score = graph::RouteScore::sigmoid;
    routing.groupScore = graph::GroupScore::top2_sum;
    routing.biased = true;
    routing.normalize = config.booleanOr("norm_topk_prob", true);
    routing.scale = static_cast<float>(config.numberOr("routed_scaling_factor", 2.5));
    config.require("scoring_func", "sigmoid", "this family's router");
    config.require("topk_method", "noaux_tc", "this family's router");
  } else {
    std::string method = config.stringOr("topk_method", "greedy");
    if (method == "group_limited_greedy") {
      routing.groups = config.integer("n_group", 1, 4096);
      routing.groupsKept = config.integer("topk_group", 1, 4096);
    } else if (method != "greedy") {
      config.fail("topk_method", "greedy or group_limited_greedy");
    }
    routing.scale = static_cast<float>(config.numberOr("routed_scaling_factor", 1.0));
    config.require("scoring_func", "softmax", "this family's router");
    config.require("norm_topk_prob", false, "this family's router keeps the scores");
  }
  int64_t perGroup = routing.experts / routing.groups;
  if (routing.experts % routing.groups ||
      (routing.groups > 1 && routing.groupScore == graph::GroupScore::top2_sum && perGroup < 2))
    config.fail("n_group", "a divisor of n_routed_experts that leaves groups of at least 2");
  else if (routing.groupsKept > routing.groups)
    config.fail("topk_group", "at most n_group");
  else if (routing.top > perGroup * routing.groupsKept)
    config.fail("num_experts_per_tok", "at most the experts of the kept groups");
  return routing;
}

llvm::Expected<ImportedModel> importDeepseek(GraphBuilder &b, Version version) {
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
  int64_t dense = config.integerOr("first_k_dense_replace", version == Version::v3 ? 3 : 0, 0, 4096);
  int64_t expertInner = config.integer("moe_intermediate_size", 1, 1 << 20);
  int64_t sharedDefault = version == Version::v3 ? 1 : 2;
  int64_t shared = config.integerOr("n_shared_experts", orNone("n_shared_experts", sharedDefault), 0, 1024);
  Routing routing = readRouting(config, version);
  double epsilon = config.positive("rms_norm_eps");
  bool tied = config.booleanOr("tie_word_embeddings", false);
  bool biased = config.booleanOr("attention_bias", false); // of the projections down and out, not of those up
  bool interleaved = config.booleanOr("rope_interleave", true);
  config.require("hidden_act", "silu", "the only activation of this family");
  config.require("moe_layer_freq", 1, "every layer after the dense ones has experts");
  if (rotated % 2)
    config.fail("qk_rope_head_dim", "an even number");
  b.requireKnownQuantization();
  Rope rope = readRope(config, rotated);
  if (llvm::Error error = config.takeError())
    return std::move(error);
  if (b.keyFormat())
    return llvm::createStringError(
        "expects --cache-type-k only for models that keep keys, got latent attention, which keeps "
        "what keys and values are made of; leave the option out");

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
      SmallVector<Value> both = b.linears(normed, attention + "qkv_a",
                                          {Source{attention + "q_a_proj.weight", queryRank, hidden}, keyDown}, biased);
      Value queryLatent = b.rmsNorm(both[0], b.vector(attention + "q_a_layernorm.weight", queryRank), kLatentEpsilon);
      query = b.linear(queryLatent, Source{attention + "q_b_proj.weight", heads * head, queryRank});
      compressed = both[1];
    } else if (biased) { // of the two, only the latent's projection has one
      query = b.linear(normed, Source{attention + "q_proj.weight", heads * head, hidden});
      compressed = b.linear(normed, keyDown, biased);
    } else {
      SmallVector<Value> both =
          b.linears(normed, attention + "qkv_a", {Source{attention + "q_proj.weight", heads * head, hidden}, keyDown});
      query = both[0];
      compressed = both[1];
    }
    query = b.rope(query, rope, frequencies, pairs, heads, nope);
    Value key = b.rope(b.columns(compressed, rank, rotated), rope, frequencies, pairs, 1);
    Value latent =
        b.rmsNorm(b.columns(compressed, 0, rank), b.vector(attention + "kv_a_layernorm.weight", rank), kLatentEpsilon);
    std::string expand = attention + "kv_b_proj.weight";
    int64_t headRows = nope + valueSize;
    SmallVector<Source> keyHeads, valueHeads, expansionHeads;
    // GGUF files may have the matrix cut in two, per head and absorbed already.
    bool cut = b.has(attention + "k_b_proj.0.weight");
    for (int64_t number = 0; number < heads; ++number) {
      if (cut) {
        std::string suffix = "." + std::to_string(number) + ".weight";
        keyHeads.push_back({attention + "k_b_proj" + suffix, rank, nope});
        expansionHeads.push_back({attention + "k_b_proj" + suffix, rank, nope, 0, rank, /*transposed=*/true});
        valueHeads.push_back({attention + "v_b_proj" + suffix, valueSize, rank});
        continue;
      }
      keyHeads.push_back({expand, heads * headRows, rank, number * headRows, nope, /*transposed=*/true});
      expansionHeads.push_back({expand, heads * headRows, rank, number * headRows, nope});
      valueHeads.push_back({expand, heads * headRows, rank, number * headRows + nope, valueSize});
    }
    Value attended = b.builder.create<graph::LatentAttentionOp>(
        b.location, b.rows(heads * valueSize), query, latent, key, b.positions,
        b.bank(attention + "kv_b.key", keyHeads, latentFormat),
        b.bank(attention + "kv_b.value", valueHeads, latentFormat),
        b.builder.getStringAttr("layers." + std::to_string(layer)), b.builder.getStringAttr(b.stateFormat()),
        b.builder.getI64IntegerAttr(heads), b.builder.getF32FloatAttr(scale),
        b.isFast() ? b.bank(attention + "kv_b.expansion", expansionHeads, latentFormat) : FlatSymbolRefAttr());
    std::string out = attention + "o_proj.weight";
    x = b.linear(attended, Source{out, hidden, heads * valueSize}, biased, x);
    normed = b.rmsNorm(x, b.vector(prefix + "post_attention_layernorm.weight", hidden), epsilon);
    if (layer < dense) {
      x = b.gatedNetwork(normed, prefix + "mlp.", hidden, inner, x);
      continue;
    }
    Value sharedOut;
    if (shared)
      sharedOut = b.gatedNetwork(normed, prefix + "mlp.shared_experts.", hidden, shared * expertInner, {});
    x = b.routedExperts(normed, prefix + "mlp.", routing, hidden, expertInner, sharedOut, x);
  }
  Value last = b.rmsNorm(b.selectRows(x), b.vector("model.norm.weight", hidden), epsilon);
  b.endStep(b.linear(last, tied ? embedding : b.matrix("lm_head.weight", {{"lm_head.weight", vocabulary, hidden}})));
  return b.finish(version == Version::v3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM", vocabulary, context);
}

} // namespace

llvm::Expected<ImportedModel> importDeepseekV2(GraphBuilder &b) { return importDeepseek(b, Version::v2); }
llvm::Expected<ImportedModel> importDeepseekV3(GraphBuilder &b) { return importDeepseek(b, Version::v3); }

} // namespace freeport::frontend
