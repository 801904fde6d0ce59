"""Writes GGUF files (https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), and tells a checkpoint folder as one, as
llama.cpp's converter does."""

import json
import struct
from pathlib import Path

import numpy as np

from reference_models import read_safetensors

F32, F16, Q4_0, Q8_0, BF16 = 0, 1, 2, 8, 30
BYTES_PER_BLOCK = {F32: (1, 4), F16: (1, 2), BF16: (1, 2), Q4_0: (32, 18), Q8_0: (32, 34)}  # elements, bytes
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
LAYER_NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "self_attn.q_a_proj": "attn_q_a",
    "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
    "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm",
    "self_attn.kv_b_proj": "attn_kv_b", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp", "mlp.shared_experts.gate_proj": "ffn_gate_shexp",
    "mlp.shared_experts.up_proj": "ffn_up_shexp", "mlp.shared_experts.down_proj": "ffn_down_shexp"}


def text(value):
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def encode(value):
    """A metadata value: its type's number and its bytes."""
    if isinstance(value, bool):
        return BOOL, struct.pack("<?", value)
    if isinstance(value, int):
        return (UINT32, struct.pack("<I", value)) if value >= 0 else (INT32, struct.pack("<i", value))
    if isinstance(value, float):
        return FLOAT32, struct.pack("<f", value)
    if isinstance(value, (str, bytes)):
        return STRING, text(value)
    kinds = {encode(element)[0] for element in value}
    kind = kinds.pop() if kinds else STRING
    return ARRAY, struct.pack("<IQ", kind, len(value)) + b"".join(encode(element)[1] for element in value)


def gguf_bytes(metadata, tensors, alignment=32):
    """The file of `tensors`: name -> (type, shape with the innermost size last, bytes)."""
    out = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        kind, raw = encode(value)
        out += text(key) + struct.pack("<I", kind) + raw
    offset = 0
    for name, (kind, shape, data) in tensors.items():
        out += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, offset)
        offset += len(data) + -len(data) % alignment
    out += b"\0" * (-len(out) % alignment)
    for _, _, data in tensors.values():
        out += data + b"\0" * (-len(data) % alignment)
    return out


def values(array):
    array = np.ascontiguousarray(array, "<f4")
    return F32, list(array.shape), array.tobytes()


def interleaved(weight, heads):
    """Rows of llama's queries or keys as GGML rotates them: neighbours instead of halves."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def llama3_factors(config):
    """What llama.cpp's converter writes as rope_freqs.weight."""
    scaling, size = config["rope_scaling"], config["hidden_size"] // config["num_attention_heads"]
    frequencies = 1 / config["rope_theta"] ** (np.arange(0, size, 2) / size)
    wavelengths, length = 2 * np.pi / frequencies, scaling["original_max_position_embeddings"]
    low, high, factor = scaling["low_freq_factor"], scaling["high_freq_factor"], scaling["factor"]
    smooth = np.clip((length / wavelengths - low) / (high - low), 0, 1)
    return 1 / ((1 - smooth) / factor + smooth)


def metadata_of(config, architecture):
    latent = architecture == "deepseek2"
    keys = {"block_count": config["num_hidden_layers"], "context_length": config["max_position_embeddings"],
            "embedding_length": config["hidden_size"], "feed_forward_length": config["intermediate_size"],
            "attention.head_count": config["num_attention_heads"],
            "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
            "rope.freq_base": float(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])}
    if architecture == "qwen3moe":
        keys |= {"expert_count": config["num_experts"], "expert_used_count": config["num_experts_per_tok"],
                 "expert_feed_forward_length": config["moe_intermediate_size"]}
    if not latent:
        keys |= {"attention.head_count_kv": config["num_key_value_heads"]}
        if config.get("head_dim"):
            keys |= {"attention.key_length": config["head_dim"], "attention.value_length": config["head_dim"]}
    else:
        nope, rotated = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
        keys |= {"attention.head_count_kv": 1, "attention.kv_lora_rank": config["kv_lora_rank"],
                 "attention.key_length": nope + rotated, "attention.value_length": config["v_head_dim"],
                 "rope.dimension_count": rotated, "leading_dense_block_count": config["first_k_dense_replace"],
                 "expert_count": config["n_routed_experts"], "expert_used_count": config["num_experts_per_tok"],
                 "expert_shared_count": config["n_shared_experts"] or 0,
                 "expert_feed_forward_length": config["moe_intermediate_size"],
                 "expert_weights_scale": float(config["routed_scaling_factor"]),
                 "expert_weights_norm": bool(config["norm_topk_prob"]), "expert_group_count": config["n_group"] or 1,
                 "expert_group_used_count": config["topk_group"] or 1,
                 "expert_gating_func": 2 if config["scoring_func"] == "sigmoid" else 1}
        if config["q_lora_rank"]:
            keys |= {"attention.q_lora_rank": config["q_lora_rank"]}
    if (scaling := config.get("rope_scaling")) and scaling.get("type") == "yarn":
        keys |= {"rope.scaling.type": "yarn", "rope.scaling.factor": float(scaling["factor"]),
                 "rope.scaling.original_context_length": scaling["original_max_position_embeddings"],
                 "rope.scaling.yarn_log_multiplier": 0.1 * scaling["mscale_all_dim"]}
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in keys.items()}


def from_folder(folder, architecture, cut_latent=False):
    """Metadata and float32 tensors of the folder's model. `cut_latent`: kv_b as two banks of heads, as newer files."""
    config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    metadata, weights = metadata_of(config, architecture), {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        weights |= read_safetensors(path)
    tensors, banks = {}, {}
    for name, weight in weights.items():
        plain = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                 "lm_head.weight": "output.weight"}.get(name)
        if plain:
            tensors[plain] = values(weight)
            continue
        layer, stem = name.removeprefix("model.layers.").split(".", 1)
        if int(layer) >= config["num_hidden_layers"]:  # predicts several tokens: converters leave it out
            continue
        if stem.endswith("e_score_correction_bias"):
            tensors[f"blk.{layer}.exp_probs_b.bias"] = values(weight)
            continue
        stem, kind = stem.rsplit(".", 1)
        if stem.startswith("mlp.experts."):
            number, part = stem.removeprefix("mlp.experts.").split(".")
            bank = f"blk.{layer}.ffn_{part.removesuffix('_proj')}_exps.{kind}"
            banks.setdefault(bank, {})[int(number)] = weight
        elif cut_latent and stem == "self_attn.kv_b_proj":
            heads, nope = config["num_attention_heads"], config["qk_nope_head_dim"]
            per_head = weight.reshape(heads, -1, weight.shape[-1])
            tensors[f"blk.{layer}.attn_k_b.weight"] = values(per_head[:, :nope].swapaxes(1, 2))
            tensors[f"blk.{layer}.attn_v_b.weight"] = values(per_head[:, nope:])
        else:
            heads = {"self_attn.q_proj": "num_attention_heads", "self_attn.k_proj": "num_key_value_heads"}.get(stem)
            if architecture == "llama" and heads:
                weight = interleaved(weight, config[heads])
            tensors[f"blk.{layer}.{LAYER_NAMES[stem]}.{kind}"] = values(weight)
    for bank, entries in banks.items():
        tensors[bank] = values(np.stack([entries[number] for number in range(len(entries))]))
    if cut_latent:
        metadata |= {f"{architecture}.attention.key_length_mla": metadata[f"{architecture}.attention.key_length"],
                     f"{architecture}.attention.value_length_mla": config["v_head_dim"],
                     f"{architecture}.attention.key_length": config["kv_lora_rank"] + config["qk_rope_head_dim"],
                     f"{architecture}.attention.value_length": config["kv_lora_rank"]}
    if (config.get("rope_scaling") or {}).get("rope_type") == "llama3":
        tensors["rope_freqs.weight"] = values(llama3_factors(config))
    return metadata, tensors
