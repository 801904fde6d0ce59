#!/usr/bin/env python3
"""Writes a GGUF of a real model's shapes with random weights, for speed comparisons (speed does not depend on values).
usage: make_bench_gguf.py {llama-1b,qwen3-0.6b,dsv2-lite} {Q4_0,Q8_0,F16} out.gguf [layers]"""
import sys, numpy as np, gguf
from gguf import GGMLQuantizationType as T
rng = np.random.default_rng(0)
def blocks(n_rows, n_cols, t):
    if t == T.F32: return (rng.standard_normal((n_rows, n_cols), dtype=np.float32) * 0.02)
    if t == T.F16: return (rng.standard_normal((n_rows, n_cols), dtype=np.float32) * 0.02).astype(np.float16)
    bs, ts = gguf.GGML_QUANT_SIZES[t]
    nb = n_rows * n_cols // bs
    raw = rng.integers(0, 256, size=(nb, ts), dtype=np.uint8)
    d = np.full(nb, 0.004 if t == T.Q4_0 else 0.0003, dtype=np.float16).view(np.uint8).reshape(nb, 2)
    raw[:, :2] = d
    return raw.reshape(n_rows, n_cols // bs * ts)
class W:
    def __init__(s, path, arch, t):
        s.w = gguf.GGUFWriter(path, arch, use_temp_file=True); s.t = t
    def mat(s, name, rows, cols, t=None, experts=0):
        t = s.t if t is None else t
        n = rows * max(experts, 1)
        a = blocks(n, cols, t)
        if experts: a = a.reshape(experts, rows, -1)
        s.w.add_tensor(name, a, raw_dtype=t)
    def vec(s, name, n): s.w.add_tensor(name, np.ones(n, dtype=np.float32))
    def done(s):
        s.w.write_header_to_file(); s.w.write_kv_data_to_file(); s.w.write_tensors_to_file(progress=False); s.w.close()
def common(w, name, ctx, d, L, ff, H, KV, vocab, eps=1e-5, theta=500000.0):
    g = w.w; g.add_name(name); g.add_context_length(ctx); g.add_embedding_length(d); g.add_block_count(L)
    g.add_feed_forward_length(ff); g.add_head_count(H); g.add_head_count_kv(KV); g.add_layer_norm_rms_eps(eps)
    g.add_rope_freq_base(theta); g.add_vocab_size(vocab); g.add_tokenizer_model("no_vocab")
    ft = {T.Q4_0: 2, T.Q8_0: 7, T.F16: 1}[w.t]; g.add_file_type(ft)
def dense(arch, name, path, t, d, L, ff, H, KV, hd, vocab, qknorm):
    w = W(path, arch, t); common(w, name, 4096, d, L, ff, H, KV, vocab)
    w.w.add_key_length(hd); w.w.add_value_length(hd); w.w.add_rope_dimension_count(hd)
    w.mat("token_embd.weight", vocab, d)
    w.vec("output_norm.weight", d)
    for i in range(L):
        b = f"blk.{i}."
        w.vec(b+"attn_norm.weight", d); w.vec(b+"ffn_norm.weight", d)
        w.mat(b+"attn_q.weight", H*hd, d); w.mat(b+"attn_k.weight", KV*hd, d); w.mat(b+"attn_v.weight", KV*hd, d); w.mat(b+"attn_output.weight", d, H*hd)
        if qknorm: w.vec(b+"attn_q_norm.weight", hd); w.vec(b+"attn_k_norm.weight", hd)
        w.mat(b+"ffn_gate.weight", ff, d); w.mat(b+"ffn_up.weight", ff, d); w.mat(b+"ffn_down.weight", d, ff)
    w.done()
def dsv2_lite(path, t, L=27):
    d, H, vocab, ff, mff, E, K = 2048, 16, 102400, 10944, 1408, 64, 6
    nope, rope, vh, kvl = 128, 64, 128, 512
    w = W(path, "deepseek2", t); common(w, "dsv2-lite", 4096, d, L, ff, H, 1, vocab, 1e-6, 10000.0)
    g = w.w
    g.add_leading_dense_block_count(1); g.add_kv_lora_rank(kvl); g.add_key_length(kvl+rope); g.add_value_length(kvl)
    g.add_key_length_mla(nope+rope); g.add_value_length_mla(vh); g.add_expert_feed_forward_length(mff); g.add_expert_count(E)
    g.add_expert_used_count(K); g.add_expert_shared_count(2); g.add_expert_weights_scale(1.0); g.add_expert_weights_norm(False)
    g.add_expert_gating_func(gguf.ExpertGatingFuncType.SOFTMAX); g.add_rope_dimension_count(rope)
    w.mat("token_embd.weight", vocab, d); w.vec("output_norm.weight", d); w.mat("output.weight", vocab, d)
    for i in range(L):
        b = f"blk.{i}."
        w.vec(b+"attn_norm.weight", d); w.vec(b+"ffn_norm.weight", d); w.vec(b+"attn_kv_a_norm.weight", kvl)
        w.mat(b+"attn_q.weight", H*(nope+rope), d); w.mat(b+"attn_kv_a_mqa.weight", kvl+rope, d)
        w.mat(b+"attn_k_b.weight", kvl, nope, experts=H); w.mat(b+"attn_v_b.weight", vh, kvl, experts=H)
        w.mat(b+"attn_output.weight", d, H*vh)
        if i == 0:
            w.mat(b+"ffn_gate.weight", ff, d); w.mat(b+"ffn_up.weight", ff, d); w.mat(b+"ffn_down.weight", d, ff)
        else:
            w.mat(b+"ffn_gate_inp.weight", E, d, t=T.F32)
            w.mat(b+"ffn_gate_exps.weight", mff, d, experts=E); w.mat(b+"ffn_up_exps.weight", mff, d, experts=E); w.mat(b+"ffn_down_exps.weight", d, mff, experts=E)
            w.mat(b+"ffn_gate_shexp.weight", 2*mff, d); w.mat(b+"ffn_up_shexp.weight", 2*mff, d); w.mat(b+"ffn_down_shexp.weight", d, 2*mff)
    w.done()
if __name__ == "__main__":
    m, t, out = sys.argv[1], T[sys.argv[2]], sys.argv[3]
    layers = lambda usual: int(sys.argv[4]) if len(sys.argv) > 4 else usual
    if m == "llama-1b": dense("llama", m, out, t, 2048, layers(16), 8192, 32, 8, 64, 128256, False)
    elif m == "qwen3-0.6b": dense("qwen3", m, out, t, 1024, layers(28), 3072, 16, 8, 128, 151936, True)
    elif m == "dsv2-lite": dsv2_lite(out, t, layers(27))
    else: sys.exit("unknown model")
