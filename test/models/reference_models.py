"""The independent judge: the families in plain NumPy, expanded attention, experts in a loop.
Nothing here is shared with Freeport; test_reference_models.py holds it against the results of another implementation."""

import functools
import json
import math
import struct
from pathlib import Path

import numpy as np

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4", "U8": "u1"}
LATENT_NORM_EPSILON = 1e-6  # the family's norms inside latent attention do not follow rms_norm_eps


def read_safetensors(path):
    """name -> array; bfloat16 is widened to float32."""
    data = Path(path).read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = entry["data_offsets"]
        array = np.frombuffer(data[8 + length + begin : 8 + length + end], DTYPES[entry["dtype"]])
        if entry["dtype"] == "BF16":
            array = (array.astype(np.uint32) << 16).view(np.float32)
        tensors[name] = array.reshape(entry["shape"])
    return tensors


class Weights:
    """The parameters of a checkpoint folder (one file or shards), widened to the precision of the computation."""

    def __init__(self, folder, precision):
        self.precision, self.tensors = precision, {}
        for path in sorted(Path(folder).glob("*.safetensors")):
            if path.name != "golden.safetensors":
                self.tensors.update(read_safetensors(path))

    def __call__(self, name):
        return self.tensors[name].astype(self.precision)

    def __contains__(self, name):
        return name in self.tensors

    def linear(self, x, name):
        y = x @ self(name + ".weight").T
        return y + self(name + ".bias") if name + ".bias" in self else y


def rms_norm(x, weight, epsilon):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon) * weight


def silu(x):
    return x / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def mscale(factor, m=1.0):
    return 1.0 if factor <= 1 else 0.1 * m * math.log(factor) + 1.0


def rope_parameters(config):
    """One dictionary from the older (rope_theta, rope_scaling) and the newer (rope_parameters) way of writing it."""
    parameters = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    parameters.setdefault("rope_theta", config.get("rope_theta", 10000.0))
    parameters["rope_type"] = parameters.get("rope_type", parameters.get("type", "default"))
    return parameters


def inverse_frequencies(config, size):
    """(inverse frequencies [size / 2], the factor of cos and sin)."""
    p = rope_parameters(config)
    base = p["rope_theta"]
    # The definition computes in float32; its roundings matter at the thousandth token.
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    plain = np.float32(1) / (base ** exponents.astype(np.float64)).astype(np.float32)
    if p["rope_type"] == "default":
        return plain, 1.0
    factor = p["factor"]
    if p["rope_type"] == "linear":
        return plain / factor, 1.0
    original = p.get("original_max_position_embeddings") or config["max_position_embeddings"]
    if p["rope_type"] == "llama3":
        low, high = p["low_freq_factor"], p["high_freq_factor"]
        wavelength = 2 * math.pi / plain
        smooth = (original / wavelength - low) / (high - low)
        mixed = (1 - smooth) * plain / factor + smooth * plain
        result = np.where(wavelength > original / low, plain / factor, mixed)
        return np.where(wavelength < original / high, plain, result), 1.0
    if p["rope_type"] == "yarn":
        def dimension(rotations):
            return size * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

        first, last = dimension(p.get("beta_fast") or 32), dimension(p.get("beta_slow") or 1)
        if p.get("truncate", True):
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, size - 1)
        ramp = np.clip((np.arange(size // 2) - first) / ((last - first) or 0.001), 0, 1)
        if p.get("attention_factor") is not None:
            attention_factor = p["attention_factor"]
        elif p.get("mscale") and p.get("mscale_all_dim"):
            attention_factor = mscale(factor, p["mscale"]) / mscale(factor, p["mscale_all_dim"])
        else:
            attention_factor = mscale(factor)
        return plain / factor * ramp + plain * (1 - ramp), attention_factor
    raise ValueError(f"no reference for rope_type {p['rope_type']}")


def rotate(x, config, interleaved):
    """Rotary embedding of x [T, heads, size] at positions 0 … T-1; angles are float32 products, as models define them."""
    size = x.shape[-1]
    frequencies, factor = inverse_frequencies(config, size)
    positions = np.arange(x.shape[0], dtype=np.float32)
    angle = (positions[:, None] * frequencies.astype(np.float32)).astype(np.float64)[:, None, :]
    cos, sin = (np.cos(angle) * factor).astype(x.dtype), (np.sin(angle) * factor).astype(x.dtype)
    first, second = (x[..., 0::2], x[..., 1::2]) if interleaved else (x[..., : size // 2], x[..., size // 2 :])
    # Which lane a pair ends in does not matter: queries and keys meet only in dot products.
    return np.concatenate([first * cos - second * sin, second * cos + first * sin], -1)


def as_bytes(x, scale_type):
    """What x [..., d] is after each 32 elements have become integers of -127 … 127 with one scale of `scale_type`."""
    padding = [(0, 0)] * (x.ndim - 1) + [(0, -x.shape[-1] % 32)]
    groups = np.pad(x, padding).reshape(*x.shape[:-1], -1, 32)
    scale = (np.abs(groups).max(-1, keepdims=True) / 127).astype(scale_type).astype(x.dtype)
    codes = np.rint(groups / np.where(scale == 0, 1, scale)).clip(-127, 127)
    return (codes * scale).reshape(*x.shape[:-1], -1)[..., : x.shape[-1]]


def causal_attention(q, k, v, scale):
    """q [T, H, d], k [T, K, d], v [T, K, e] with H a multiple of K -> [T, H * e]."""
    tokens, heads, _ = q.shape
    k, v = (np.repeat(a, heads // a.shape[1], axis=1) for a in (k, v))
    scores = np.einsum("thd,shd->hts", q, k) * scale
    scores = np.where(np.tril(np.ones((tokens, tokens), bool)), scores, -np.inf)
    return np.einsum("hts,she->the", softmax(scores), v).reshape(tokens, -1)


def gated_mlp(weights, x, prefix):
    gate, up = weights.linear(x, prefix + "gate_proj"), weights.linear(x, prefix + "up_proj")
    return weights.linear(silu(gate) * up, prefix + "down_proj")


def grouped_query_attention(weights, config, x, prefix, quantised_keys=False):
    tokens, heads = x.shape[0], config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    q, k, v = (weights.linear(x, prefix + name).reshape(tokens, -1, size) for name in ("q_proj", "k_proj", "v_proj"))
    if prefix + "q_norm.weight" in weights:
        q, k = (rms_norm(a, weights(f"{prefix}{name}_norm.weight"), config["rms_norm_eps"])
                for a, name in ((q, "q"), (k, "k")))
    q, k = rotate(q, config, False), rotate(k, config, False)
    if quantised_keys:
        q, k = as_bytes(q, np.float32), as_bytes(k, np.float16)
    mixed = causal_attention(q, k, v, size**-0.5)
    return weights.linear(mixed, prefix + "o_proj")


def latent_attention(weights, config, x, prefix):
    tokens, heads = x.shape[0], config["num_attention_heads"]
    nope, rope = config["qk_nope_head_dim"], config["qk_rope_head_dim"]
    if config.get("q_lora_rank"):
        low = weights.linear(x, prefix + "q_a_proj")
        low = rms_norm(low, weights(prefix + "q_a_layernorm.weight"), LATENT_NORM_EPSILON)
        q = weights.linear(low, prefix + "q_b_proj")
    else:
        q = weights.linear(x, prefix + "q_proj")
    q = q.reshape(tokens, heads, nope + rope)
    compressed = weights.linear(x, prefix + "kv_a_proj_with_mqa")
    latent, key = compressed[:, : config["kv_lora_rank"]], compressed[:, None, config["kv_lora_rank"] :]
    latent = rms_norm(latent, weights(prefix + "kv_a_layernorm.weight"), LATENT_NORM_EPSILON)
    expanded = weights.linear(latent, prefix + "kv_b_proj").reshape(tokens, heads, nope + config["v_head_dim"])
    interleaved = config.get("rope_interleave", True)
    q = np.concatenate([q[..., :nope], rotate(q[..., nope:], config, interleaved)], -1)
    key = np.repeat(rotate(key, config, interleaved), heads, axis=1)
    k = np.concatenate([expanded[..., :nope], key], -1)
    scale = (nope + rope) ** -0.5
    parameters = rope_parameters(config)
    if parameters.get("mscale_all_dim"):
        scale *= mscale(parameters["factor"], parameters["mscale_all_dim"]) ** 2
    return weights.linear(causal_attention(q, k, expanded[..., nope:], scale), prefix + "o_proj")


def largest(values, count):
    """Indices of the largest values in the last dimension, descending; ties go to the lower index."""
    return np.argsort(-values, axis=-1, kind="stable")[..., :count]


def route(weights, config, x, prefix):
    """(expert ids [T, k], weights [T, k]). DeepSeek-V3: sigmoid scores, a bias for the choice only, groups by their best
    two; DeepSeek-V2 and Qwen3: softmax, the former perhaps with groups by their best."""
    tokens, logits = x.shape[0], x @ weights(prefix + "gate.weight").T
    sigmoid = config["architectures"][0] == "DeepseekV3ForCausalLM"
    grouped = sigmoid or config.get("topk_method") == "group_limited_greedy"
    groups = (config.get("n_group") or 1) if grouped else 1
    scores = 1 / (1 + np.exp(-logits)) if sigmoid else softmax(logits)
    choice = scores + weights(prefix + "gate.e_score_correction_bias") if sigmoid else scores
    by_group = choice.reshape(tokens, groups, -1)
    group_score = np.sort(by_group, axis=-1)[..., -2:].sum(-1) if sigmoid else by_group.max(-1)
    kept = np.zeros((tokens, groups), bool)
    np.put_along_axis(kept, largest(group_score, config.get("topk_group") or 1 if grouped else 1), True, axis=-1)
    choice = np.where(kept[..., None], by_group, -np.inf).reshape(tokens, -1)
    ids = largest(choice, config["num_experts_per_tok"])
    chosen = np.take_along_axis(scores, ids, axis=-1)
    if config.get("norm_topk_prob", sigmoid):
        chosen = chosen / (chosen.sum(-1, keepdims=True) + 1e-20)
    return ids, chosen * config.get("routed_scaling_factor", 1.0)


def mixture_of_experts(weights, config, x, prefix):
    ids, share = route(weights, config, x, prefix)
    result = np.zeros_like(x)
    for expert in np.unique(ids):
        rows, ranks = np.nonzero(ids == expert)
        result[rows] += share[rows, ranks, None] * gated_mlp(weights, x[rows], f"{prefix}experts.{expert}.")
    if config.get("n_shared_experts"):
        result += gated_mlp(weights, x, prefix + "shared_experts.")
    return result


class ReferenceModel:
    """A checkpoint folder of one of Freeport's families; `precision` is the type of all arithmetic, but for queries and keys
    where keys are quantised (not in latent attention)."""

    def __init__(self, folder, precision=np.float64, quantised_keys=False):
        self.config = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
        self.weights = Weights(folder, precision)
        self.latent = "kv_lora_rank" in self.config
        self.attention = latent_attention if self.latent else functools.partial(grouped_query_attention,
                                                                                quantised_keys=quantised_keys)

    def routes(self, layer):
        """Whether the layer has experts."""
        if self.latent:
            return layer >= self.config["first_k_dense_replace"]
        return "num_experts" in self.config and layer not in self.config["mlp_only_layers"] and (
            (layer + 1) % self.config["decoder_sparse_step"] == 0)

    def logits(self, ids):
        """[T, vocabulary] for a whole sequence of token ids."""
        config, weights = self.config, self.weights
        x = weights("model.embed_tokens.weight")[np.asarray(ids)]
        for layer in range(config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            norm = rms_norm(x, weights(prefix + "input_layernorm.weight"), config["rms_norm_eps"])
            x = x + self.attention(weights, config, norm, prefix + "self_attn.")
            norm = rms_norm(x, weights(prefix + "post_attention_layernorm.weight"), config["rms_norm_eps"])
            x = x + (mixture_of_experts(weights, config, norm, prefix + "mlp.") if self.routes(layer)
                     else gated_mlp(weights, norm, prefix + "mlp."))
        x = rms_norm(x, weights("model.norm.weight"), config["rms_norm_eps"])
        head = "model.embed_tokens.weight" if config.get("tie_word_embeddings") else "lm_head.weight"
        return x @ weights(head).T

    def greedy(self, ids, count):
        """The `count` tokens that follow `ids` when each is the most likely one; end tokens do not stop it."""
        sequence = list(ids)
        for _ in range(count):
            sequence.append(int(self.logits(sequence)[-1].argmax()))
        return sequence[len(ids):]
