"""Small random checkpoints of the supported families whose sizes nobody would choose: odd head counts, dimensions that
leave partial blocks of 32, unusual rope and group settings. reference_models.py says what their logits must be."""

import json
import struct
from pathlib import Path

import numpy as np

LLAMA = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": False,
    "mlp_bias": False, "tie_word_embeddings": False, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "rope_scaling": None,
    "max_position_embeddings": 256, "num_hidden_layers": 2, "bos_token_id": 1, "eos_token_id": 2,
}
DEEPSEEK_V3 = {
    "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_act": "silu",
    "attention_bias": False, "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
    "rope_scaling": None, "max_position_embeddings": 256, "num_hidden_layers": 3, "bos_token_id": 0, "eos_token_id": 1,
    "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_shared_experts": 1, "norm_topk_prob": True,
    "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc", "num_nextn_predict_layers": 0,
}
YARN = {"type": "yarn", "factor": 8.0, "beta_fast": 24, "beta_slow": 2, "original_max_position_embeddings": 32}

QWEN3_MOE = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "hidden_act": "silu", "attention_bias": False,
    "tie_word_embeddings": False, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "rope_scaling": None,
    "max_position_embeddings": 256, "num_hidden_layers": 4, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "norm_topk_prob": True,
}
DEEPSEEK_V2 = {**{key: value for key, value in DEEPSEEK_V3.items() if key != "num_nextn_predict_layers"},
               "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "norm_topk_prob": False,
               "routed_scaling_factor": 1.0, "scoring_func": "softmax", "topk_method": "greedy"}

# name -> (config, dtype of the stored weights, number of files)
MODELS = {
    "llama_odd_heads": ({**LLAMA, "hidden_size": 100, "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 20,
                         "intermediate_size": 145, "vocab_size": 517, "num_hidden_layers": 3}, "F32", 1),
    "llama_one_key_head": ({**LLAMA, "hidden_size": 224, "num_attention_heads": 7, "num_key_value_heads": 1,
                            "intermediate_size": 97, "vocab_size": 33, "rope_theta": 1234.5}, "BF16", 2),
    "llama_rope_scaled_tied": ({**LLAMA, "hidden_size": 66, "num_attention_heads": 3, "num_key_value_heads": 3,
                                "head_dim": 34, "intermediate_size": 63, "vocab_size": 301, "tie_word_embeddings": True,
                                "rms_norm_eps": 1e-6, "rope_theta": 50000.0,
                                "rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 2.0,
                                                 "high_freq_factor": 6.0, "original_max_position_embeddings": 64}},
                               "F16", 1),
    "llama_smallest": ({**LLAMA, "hidden_size": 8, "num_attention_heads": 1, "num_key_value_heads": 1,
                        "intermediate_size": 5, "vocab_size": 19, "num_hidden_layers": 1}, "F32", 1),
    "llama_two_spans": ({**LLAMA, "hidden_size": 1060, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 64,
                         "intermediate_size": 2085, "vocab_size": 100, "num_hidden_layers": 1}, "BF16", 1),
    "llama_biases": ({**LLAMA, "hidden_size": 72, "num_attention_heads": 5, "num_key_value_heads": 5, "head_dim": 14,
                      "intermediate_size": 77, "vocab_size": 131, "attention_bias": True, "mlp_bias": True}, "BF16", 1),
    "deepseek_no_query_rank": ({**DEEPSEEK_V3, "hidden_size": 70, "num_attention_heads": 3, "num_key_value_heads": 3,
                                "q_lora_rank": None, "kv_lora_rank": 37, "qk_nope_head_dim": 10, "qk_rope_head_dim": 6,
                                "v_head_dim": 14, "intermediate_size": 101, "moe_intermediate_size": 35,
                                "n_routed_experts": 9, "n_group": 3, "topk_group": 1, "num_experts_per_tok": 2,
                                "first_k_dense_replace": 0, "n_shared_experts": 2, "vocab_size": 211,
                                "rope_scaling": {**YARN, "mscale": 0.7, "mscale_all_dim": 1.0}}, "F32", 1),
    "deepseek_one_group": ({**DEEPSEEK_V3, "hidden_size": 96, "num_attention_heads": 5, "num_key_value_heads": 5,
                            "q_lora_rank": 29, "kv_lora_rank": 64, "qk_nope_head_dim": 33, "qk_rope_head_dim": 10,
                            "v_head_dim": 31, "intermediate_size": 64, "moe_intermediate_size": 17,
                            "n_routed_experts": 5, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 5,
                            "norm_topk_prob": False, "routed_scaling_factor": 1.0, "vocab_size": 97,
                            "rope_theta": 50000.0}, "BF16", 2),
    "deepseek_many_experts": ({**DEEPSEEK_V3, "hidden_size": 130, "num_attention_heads": 1, "num_key_value_heads": 1,
                               "q_lora_rank": 65, "kv_lora_rank": 33, "qk_nope_head_dim": 16, "qk_rope_head_dim": 32,
                               "v_head_dim": 8, "intermediate_size": 31, "moe_intermediate_size": 33,
                               "n_routed_experts": 40, "n_group": 8, "topk_group": 3, "num_experts_per_tok": 7,
                               "first_k_dense_replace": 2, "vocab_size": 65, "routed_scaling_factor": 0.75,
                               "rope_scaling": {**YARN, "factor": 2.5}}, "F16", 1),
    "deepseek_biases": ({**DEEPSEEK_V3, "hidden_size": 68, "num_attention_heads": 2, "num_key_value_heads": 2,
                         "q_lora_rank": 45, "kv_lora_rank": 35, "qk_nope_head_dim": 12, "qk_rope_head_dim": 8,
                         "v_head_dim": 10, "intermediate_size": 70, "moe_intermediate_size": 33, "n_routed_experts": 6,
                         "n_group": 2, "topk_group": 1, "num_experts_per_tok": 2, "num_hidden_layers": 2,
                         "vocab_size": 99, "attention_bias": True}, "F32", 2),
    "deepseek_biases_no_query_rank": ({**DEEPSEEK_V3, "hidden_size": 40, "num_attention_heads": 3,
                                       "num_key_value_heads": 3, "q_lora_rank": None, "kv_lora_rank": 32,
                                       "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 9,
                                       "intermediate_size": 50, "num_hidden_layers": 1, "first_k_dense_replace": 1,
                                       "moe_intermediate_size": 16, "n_routed_experts": 2, "n_group": 1,
                                       "topk_group": 1, "num_experts_per_tok": 1, "vocab_size": 61,
                                       "attention_bias": True}, "BF16", 1),
    "qwen3_odd_heads": ({**QWEN3_MOE, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 76,
                         "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 46, "intermediate_size": 51,
                         "vocab_size": 103, "num_hidden_layers": 2, "attention_bias": True,
                         "tie_word_embeddings": True}, "BF16", 1),
    "qwen3_some_experts": ({**QWEN3_MOE, "hidden_size": 90, "num_attention_heads": 3, "num_key_value_heads": 1,
                            "head_dim": 18, "intermediate_size": 40, "moe_intermediate_size": 23, "num_experts": 11,
                            "num_experts_per_tok": 3, "decoder_sparse_step": 2, "mlp_only_layers": [1],
                            "norm_topk_prob": False, "vocab_size": 71}, "F16", 2),
    "deepseek_v2_greedy": ({**DEEPSEEK_V2, "hidden_size": 82, "num_attention_heads": 3, "num_key_value_heads": 3,
                            "q_lora_rank": None, "kv_lora_rank": 34, "qk_nope_head_dim": 12, "qk_rope_head_dim": 6,
                            "v_head_dim": 11, "intermediate_size": 51, "moe_intermediate_size": 27,
                            "n_routed_experts": 13, "n_group": None, "topk_group": None, "num_experts_per_tok": 3,
                            "n_shared_experts": 2, "vocab_size": 89}, "BF16", 1),
    "deepseek_v2_groups": ({**DEEPSEEK_V2, "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2,
                            "q_lora_rank": 21, "kv_lora_rank": 32, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4,
                            "v_head_dim": 8, "intermediate_size": 40, "moe_intermediate_size": 16,
                            "n_routed_experts": 12, "n_group": 6, "topk_group": 2, "num_experts_per_tok": 3,
                            "topk_method": "group_limited_greedy", "routed_scaling_factor": 16.0, "vocab_size": 53,
                            "n_shared_experts": 1}, "F32", 1),
    "llama_steep_rope": ({**{key: value for key, value in LLAMA.items() if key != "rope_scaling"}, "hidden_size": 99,
                          "num_attention_heads": 3, "num_key_value_heads": None, "head_dim": 12,
                          "intermediate_size": 31, "vocab_size": 97, "rope_theta": 100.0,
                          "rope_parameters": {"rope_type": "yarn", "factor": 16.5, "beta_fast": 16.5,
                                              "truncate": False}}, "F16", 3),
    "deepseek_twenty_experts": ({**DEEPSEEK_V3, "hidden_size": 103, "num_attention_heads": 1, "num_key_value_heads": 1,
                                 "q_lora_rank": None, "kv_lora_rank": 101, "qk_nope_head_dim": 10,
                                 "qk_rope_head_dim": 16, "v_head_dim": 8, "rope_interleave": False,
                                 "intermediate_size": 5, "moe_intermediate_size": 33, "n_routed_experts": 20,
                                 "n_group": 4, "topk_group": 4, "num_experts_per_tok": 4, "vocab_size": 211,
                                 "n_shared_experts": None, "rope_theta": 1000000,
                                 "rope_scaling": {"type": "linear", "factor": 2.0}}, "F16", 1),
}


def parameter_shapes(config):
    """name -> shape, in the order of the forward pass."""
    hidden, heads, shapes = config["hidden_size"], config["num_attention_heads"], {}

    def linear(name, rows, inputs, biased=False):
        shapes[name + ".weight"] = [rows, inputs]
        if biased:
            shapes[name + ".bias"] = [rows]

    def mlp(prefix, width):
        for name, rows, inputs in (("gate", width, hidden), ("up", width, hidden), ("down", hidden, width)):
            linear(f"{prefix}{name}_proj", rows, inputs, config.get("mlp_bias"))

    shapes["model.embed_tokens.weight"] = [config["vocab_size"], hidden]
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}."
        attention = prefix + "self_attn."
        shapes[prefix + "input_layernorm.weight"] = shapes[prefix + "post_attention_layernorm.weight"] = [hidden]
        if "kv_lora_rank" not in config:
            size = config.get("head_dim") or hidden // heads
            keys = config["num_key_value_heads"] or heads
            for name, count in (("q", heads), ("k", keys), ("v", keys)):
                linear(f"{attention}{name}_proj", count * size, hidden, config["attention_bias"])
            linear(attention + "o_proj", hidden, heads * size, config["attention_bias"])
            if config["model_type"].startswith("qwen3"):
                shapes[attention + "q_norm.weight"] = shapes[attention + "k_norm.weight"] = [size]
            if "num_experts" not in config or layer in config["mlp_only_layers"] or (
                    layer + 1) % config["decoder_sparse_step"]:
                mlp(prefix + "mlp.", config["intermediate_size"])
                continue
            shapes[prefix + "mlp.gate.weight"] = [config["num_experts"], hidden]
            for expert in range(config["num_experts"]):
                mlp(f"{prefix}mlp.experts.{expert}.", config["moe_intermediate_size"])
            continue
        rank, rope, value = config["kv_lora_rank"], config["qk_rope_head_dim"], config["v_head_dim"]
        query = heads * (config["qk_nope_head_dim"] + rope)
        if config["q_lora_rank"]:
            linear(attention + "q_a_proj", config["q_lora_rank"], hidden, config["attention_bias"])
            shapes[attention + "q_a_layernorm.weight"] = [config["q_lora_rank"]]
            shapes[attention + "q_b_proj.weight"] = [query, config["q_lora_rank"]]
        else:
            shapes[attention + "q_proj.weight"] = [query, hidden]
        linear(attention + "kv_a_proj_with_mqa", rank + rope, hidden, config["attention_bias"])
        shapes[attention + "kv_a_layernorm.weight"] = [rank]
        shapes[attention + "kv_b_proj.weight"] = [heads * (config["qk_nope_head_dim"] + value), rank]
        linear(attention + "o_proj", hidden, heads * value, config["attention_bias"])
        if layer < config["first_k_dense_replace"]:
            mlp(prefix + "mlp.", config["intermediate_size"])
            continue
        shapes[prefix + "mlp.gate.weight"] = [config["n_routed_experts"], hidden]
        if config["topk_method"] == "noaux_tc":
            shapes[prefix + "mlp.gate.e_score_correction_bias"] = [config["n_routed_experts"]]
        for expert in range(config["n_routed_experts"]):
            mlp(f"{prefix}mlp.experts.{expert}.", config["moe_intermediate_size"])
        if config["n_shared_experts"]:
            mlp(prefix + "mlp.shared_experts.", config["moe_intermediate_size"] * config["n_shared_experts"])
    shapes["model.norm.weight"] = [hidden]
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [config["vocab_size"], hidden]
    return shapes


def random_parameter(generator, name, shape):
    """Float32 values that keep activations near one and logits near three, as trained models do."""
    values = generator.standard_normal(shape, dtype=np.float32)
    if name.endswith("e_score_correction_bias"):
        return values * np.float32(0.1)
    if name.endswith(".bias"):
        return values * np.float32(0.5)
    if len(shape) == 1:
        return 1 + values * np.float32(0.1)
    if name == "model.embed_tokens.weight":
        return values
    return values * np.float32((3.0 if name == "lm_head.weight" else 1.0) / np.sqrt(shape[1]))


def encode(values, dtype):
    if dtype == "BF16":  # to nearest even
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    return values.astype({"F32": "<f4", "F16": "<f2"}[dtype]).tobytes()


def safetensors_bytes(tensors):
    """The file of `tensors`: name -> (dtype, shape, bytes)."""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + b"".join(data for _, _, data in tensors.values())


def write_model(folder, name, seed=20251124):
    """Writes the checkpoint folder of MODELS[name]."""
    config, dtype, shards = MODELS[name]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(seed)
    tensors = {}
    for parameter, shape in parameter_shapes(config).items():
        stored = "F32" if parameter.endswith("e_score_correction_bias") else dtype
        tensors[parameter] = (stored, shape, encode(random_parameter(generator, parameter, shape), stored))
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors))
    else:
        place = {}
        for shard in range(shards):
            file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
            part = dict(list(tensors.items())[shard::shards])
            (folder / file).write_bytes(safetensors_bytes(part))
            place.update(dict.fromkeys(part, file))
        size = sum(len(data) for _, _, data in tensors.values())
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": size}, "weight_map": place}))
    stored_as = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}[dtype]
    (folder / "config.json").write_text(json.dumps({**config, "torch_dtype": stored_as}, indent=1))


def prompt(name, length, seed=7):
    """Token ids of the model's vocabulary."""
    return np.random.default_rng(seed).integers(0, MODELS[name][0]["vocab_size"], length).tolist()
