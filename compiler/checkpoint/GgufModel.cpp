// Rows of llama's queries and keys stay in GGML's order: rotating neighbours (rope_interleave) is what that order is
// for.
#include "compiler/checkpoint/GgufModel.h"
#include "compiler/checkpoint/Config.h"
#include "compiler/checkpoint/GgufTokenizer.h"

#include "llvm/ADT/STLExtras.h"

#include <cmath>
#include <cstring>

namespace freeport::checkpoint {

using llvm::StringRef;
using nlohmann::json;

/// Below `blk.N.`, GGUF's name to Hugging Face's below `model.layers.N.`.
static constexpr std::pair<llvm::StringLiteral, llvm::StringLiteral> kLayerNames[] = {
    {"attn_norm", "input_layernorm"},
    {"ffn_norm", "post_attention_layernorm"},
    {"attn_q", "self_attn.q_proj"},
    {"attn_k", "self_attn.k_proj"},
    {"attn_v", "self_attn.v_proj"},
    {"attn_output", "self_attn.o_proj"},
    {"attn_q_norm", "self_attn.q_norm"},
    {"attn_k_norm", "self_attn.k_norm"},
    {"attn_q_a", "self_attn.q_a_proj"},
    {"attn_q_a_norm", "self_attn.q_a_layernorm"},
    {"attn_q_b", "self_attn.q_b_proj"},
    {"attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa"},
    {"attn_kv_a_norm", "self_attn.kv_a_layernorm"},
    {"attn_kv_b", "self_attn.kv_b_proj"},
    {"ffn_gate", "mlp.gate_proj"},
    {"ffn_up", "mlp.up_proj"},
    {"ffn_down", "mlp.down_proj"},
    {"ffn_gate_inp", "mlp.gate"},
    {"ffn_gate_shexp", "mlp.shared_experts.gate_proj"},
    {"ffn_up_shexp", "mlp.shared_experts.up_proj"},
    {"ffn_down_shexp", "mlp.shared_experts.down_proj"},
};
/// The same for banks: `#` is the entry's number.
static constexpr std::pair<llvm::StringLiteral, llvm::StringLiteral> kBankNames[] = {
    {"ffn_gate_exps", "mlp.experts.#.gate_proj"}, {"ffn_up_exps", "mlp.experts.#.up_proj"},
    {"ffn_down_exps", "mlp.experts.#.down_proj"}, {"attn_k_b", "self_attn.k_b_proj.#"},
    {"attn_v_b", "self_attn.v_b_proj.#"},
};
static constexpr std::pair<llvm::StringLiteral, llvm::StringLiteral> kModelNames[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
static constexpr llvm::StringLiteral kRopeFactors = "rope_freqs.weight";
static constexpr int64_t kMaximumBank = 65536;

/// Appends `tensor` under its Hugging Face names; what has none keeps its own.
static void rename(TensorInfo tensor, std::vector<TensorInfo> &out) {
  for (auto &[ours, theirs] : kModelNames)
    if (tensor.name == ours)
      tensor.name = theirs.str();
  auto [head, rest] = StringRef(tensor.name).split('.');
  auto [number, stem] = rest.split('.');
  auto [base, kind] = stem.split('.');
  unsigned layer;
  if (head != "blk" || number.getAsInteger(10, layer) || (kind != "weight" && kind != "bias"))
    return out.push_back(std::move(tensor));
  std::string prefix = "model.layers." + std::to_string(layer) + ".", suffix = "." + kind.str();
  if (base == "exp_probs_b") {
    tensor.name = prefix + "mlp.gate.e_score_correction_bias";
    return out.push_back(std::move(tensor));
  }
  for (auto &[ours, theirs] : kLayerNames)
    if (base == ours) {
      tensor.name = prefix + theirs.str() + suffix;
      return out.push_back(std::move(tensor));
    }
  for (auto &[ours, theirs] : kBankNames) {
    if (base != ours || tensor.shape.size() != 3 || tensor.shape[0] > kMaximumBank)
      continue;
    auto [before, after] = StringRef(theirs).split('#');
    TensorInfo entry = tensor;
    entry.shape.erase(entry.shape.begin());
    entry.size = tensor.size / tensor.shape[0];
    for (int64_t i = 0; i < tensor.shape[0]; ++i, entry.offset += entry.size) {
      entry.name = prefix + before.str() + std::to_string(i) + after.str() + suffix;
      out.push_back(entry);
    }
    return;
  }
  out.push_back(std::move(tensor));
}

namespace {

class Translator {
public:
  Translator(StringRef path, GgufHeader &header)
      : header(header), metadata(Config::of(path, std::move(header.metadata))),
        architecture(metadata.string("general.architecture")) {}

  llvm::Expected<GgufModel> translate(StringRef path, ReadTensor read);

private:
  std::string key(const char *name) const { return architecture + "." + name; }
  const TensorInfo *find(StringRef name) const {
    auto found = llvm::find_if(header.tensors, [&](const TensorInfo &tensor) { return tensor.name == name; });
    return found == header.tensors.end() ? nullptr : &*found;
  }
  int64_t integer(const char *name, int64_t maximum = INT32_MAX) { return metadata.integer(key(name), 1, maximum); }

  void common();
  void groupedQuery();
  void qwen3Moe();
  void deepseek2();
  void ropeScaling();
  llvm::Error ropeFactors(ReadTensor read);
  void tokens(GgufModel &model);

  GgufHeader &header;
  Config metadata;
  std::string architecture;
  json config = json::object();
};

void Translator::common() {
  config["hidden_size"] = integer("embedding_length");
  config["num_hidden_layers"] = integer("block_count");
  config["num_attention_heads"] = integer("attention.head_count");
  config["intermediate_size"] = integer("feed_forward_length");
  config["max_position_embeddings"] = integer("context_length");
  config["rms_norm_eps"] = metadata.positive(key("attention.layer_norm_rms_epsilon"));
  config["rope_theta"] = metadata.numberOr(key("rope.freq_base"), 10000);
  config["tie_word_embeddings"] = !find("output.weight");
  const TensorInfo *embedding = find("token_embd.weight");
  config["vocab_size"] = embedding && embedding->shape.size() == 2 ? embedding->shape[0] : 0;
  if (metadata.integerOr(key("attention.sliding_window"), 0, 0))
    metadata.fail(key("attention.sliding_window"), "0 (windows are not imported)");
}

void Translator::groupedQuery() {
  int64_t heads = integer("attention.head_count");
  config["num_key_value_heads"] = metadata.integerOr(key("attention.head_count_kv"), heads, 1);
  int64_t head =
      metadata.integerOr(key("attention.key_length"), std::max<int64_t>(1, integer("embedding_length") / heads), 1);
  config["head_dim"] = head;
  if (metadata.integerOr(key("attention.value_length"), head, 1) != head)
    metadata.fail(key("attention.value_length"), "the size of a key, " + llvm::Twine(head));
  if (metadata.integerOr(key("rope.dimension_count"), head, 1) != head)
    metadata.fail(key("rope.dimension_count"), "the size of a head, " + llvm::Twine(head));
  config["attention_bias"] = find("blk.0.attn_q.bias") != nullptr;
  config["mlp_bias"] = find("blk.0.ffn_gate.bias") != nullptr;
}

void Translator::qwen3Moe() {
  config["num_experts"] = integer("expert_count");
  config["num_experts_per_tok"] = integer("expert_used_count");
  config["moe_intermediate_size"] = integer("expert_feed_forward_length");
  config["norm_topk_prob"] = true; // what the architecture's name means
  metadata.require(key("expert_weights_norm"), true, "this architecture's router");
}

void Translator::deepseek2() {
  enum Gating : int64_t { softmax = 1, sigmoid = 2 };
  bool version3 = metadata.integerOr(key("expert_gating_func"), softmax, softmax, sigmoid) == sigmoid;
  config["architectures"] = json::array({version3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM"});
  int64_t rotated = integer("rope.dimension_count");
  // Files whose kv_b is cut in two have the sizes of the absorbed form under the plain keys.
  bool absorbed = metadata.has(key("attention.key_length_mla"));
  int64_t head = integer(absorbed ? "attention.key_length_mla" : "attention.key_length");
  if (head <= rotated)
    metadata.fail(key(absorbed ? "attention.key_length_mla" : "attention.key_length"),
                  "more than the rotated part's " + llvm::Twine(rotated));
  config["qk_rope_head_dim"] = rotated;
  config["qk_nope_head_dim"] = head - rotated;
  config["v_head_dim"] = integer(absorbed ? "attention.value_length_mla" : "attention.value_length");
  config["kv_lora_rank"] = integer("attention.kv_lora_rank");
  config["q_lora_rank"] =
      metadata.has(key("attention.q_lora_rank")) ? json(integer("attention.q_lora_rank")) : json(nullptr);
  config["first_k_dense_replace"] = metadata.integerOr(key("leading_dense_block_count"), 0, 0);
  config["n_routed_experts"] = integer("expert_count");
  config["num_experts_per_tok"] = integer("expert_used_count");
  config["n_shared_experts"] = metadata.integerOr(key("expert_shared_count"), 0, 0);
  config["moe_intermediate_size"] = integer("expert_feed_forward_length");
  double scale = metadata.numberOr(key("expert_weights_scale"), 1);
  config["routed_scaling_factor"] = scale == 0 ? 1 : scale; // 0: not given
  config["norm_topk_prob"] = metadata.booleanOr(key("expert_weights_norm"), false);
  int64_t groups = metadata.integerOr(key("expert_group_count"), 1, 1);
  config["n_group"] = groups;
  config["topk_group"] = metadata.integerOr(key("expert_group_used_count"), 1, 1);
  if (!version3)
    config["topk_method"] = groups > 1 ? "group_limited_greedy" : "greedy";
}

void Translator::ropeScaling() {
  std::string type = metadata.stringOr(key("rope.scaling.type"), "none");
  if (type == "none")
    return;
  json &scaling = config["rope_scaling"] = json::object();
  scaling["rope_type"] = type; // the frontend refuses what it does not know
  scaling["factor"] = metadata.positive(key("rope.scaling.factor"));
  if (metadata.has(key("rope.scaling.original_context_length")))
    scaling["original_max_position_embeddings"] = integer("rope.scaling.original_context_length");
  if (type != "yarn")
    return;
  for (auto [ours, theirs] : {std::pair{"rope.scaling.yarn_beta_fast", "beta_fast"},
                              {"rope.scaling.yarn_beta_slow", "beta_slow"},
                              {"rope.scaling.attn_factor", "attention_factor"}})
    if (metadata.has(key(ours)))
      scaling[theirs] = metadata.number(key(ours));
  if (metadata.has(key("rope.scaling.yarn_log_multiplier"))) { // a tenth of mscale_all_dim, rounded to float32
    double scale = 10 * metadata.number(key("rope.scaling.yarn_log_multiplier"));
    scaling["mscale"] = scaling["mscale_all_dim"] = std::round(scale * 1e6) / 1e6;
  }
}

llvm::Error Translator::ropeFactors(ReadTensor read) {
  const TensorInfo *factors = find(kRopeFactors);
  if (!factors)
    return llvm::Error::success();
  int64_t pairs = metadata.integerOr(key("rope.dimension_count"), config.value("head_dim", int64_t(0)), 1) / 2;
  if (factors->dtype != DataType::F32 || factors->shape.size() != 1 || factors->shape[0] != pairs || pairs > 4096)
    return llvm::createStringError(kRopeFactors + " expects " + llvm::Twine(pairs) + " values of F32, got " +
                                   llvm::Twine(factors->shape.back()) + " of " + name(factors->dtype));
  std::vector<float> values(pairs);
  if (llvm::Error error = read(*factors, {reinterpret_cast<uint8_t *>(values.data()), values.size() * sizeof(float)}))
    return error;
  json list = json::array();
  for (float value : values) {
    if (!std::isfinite(value) || value <= 0)
      return llvm::createStringError(kRopeFactors + " expects positive values, got " + std::to_string(value));
    list.push_back(static_cast<double>(value));
  }
  config["rope_scaling"] = {{"rope_type", "frequency_factors"}, {"frequency_factors", std::move(list)}};
  return llvm::Error::success();
}

void Translator::tokens(GgufModel &model) {
  json generation = json::object();
  if (metadata.has("tokenizer.ggml.bos_token_id"))
    generation["bos_token_id"] = metadata.integer("tokenizer.ggml.bos_token_id", 0);
  for (const char *name : {"eos", "eot", "eom"}) {
    std::string id = std::string("tokenizer.ggml.") + name + "_token_id";
    if (metadata.has(id))
      generation["eos_token_id"].push_back(metadata.integer(id, 0));
  }
  model.texts["generation_config.json"] = generation.dump();
  translateTokenizer(metadata, model);
}

llvm::Expected<GgufModel> Translator::translate(StringRef path, ReadTensor read) {
  if (llvm::Error error = metadata.takeError())
    return std::move(error);
  if (metadata.integerOr("split.count", 1, 0) > 1)
    metadata.fail("split.count", "one whole file (merge its parts first, with llama-gguf-split --merge)");
  bool latent = architecture == "deepseek2";
  if (architecture == "llama") {
    config["architectures"] = json::array({"LlamaForCausalLM"});
    config["rope_interleave"] = true;
    if (metadata.integerOr(key("expert_count"), 0, 0))
      metadata.fail(key("expert_count"), "0 (experts of mixtral's kind are not imported)");
  } else if (architecture == "qwen3") {
    config["architectures"] = json::array({"Qwen3ForCausalLM"});
  } else if (architecture == "qwen3moe") {
    config["architectures"] = json::array({"Qwen3MoeForCausalLM"});
    qwen3Moe();
  } else if (latent) {
    deepseek2();
  } else {
    metadata.fail("general.architecture", "one of llama, qwen3, qwen3moe, deepseek2");
  }
  if (llvm::Error error = metadata.takeError())
    return std::move(error);
  common();
  if (!latent)
    groupedQuery();
  ropeScaling();
  GgufModel model;
  tokens(model);
  if (llvm::Error error = metadata.takeError())
    return std::move(error);
  if (llvm::Error error = ropeFactors(read))
    return llvm::createStringError(path + ": " + llvm::toString(std::move(error)));
  model.texts["config.json"] = config.dump();
  for (TensorInfo &tensor : header.tensors)
    if (tensor.name != kRopeFactors)
      rename(std::move(tensor), model.tensors);
  return model;
}

} // namespace

llvm::Expected<GgufModel> translateGguf(StringRef path, GgufHeader header, ReadTensor read) {
  return Translator(path, header).translate(path, read);
}

} // namespace freeport::checkpoint
