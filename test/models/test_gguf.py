"""GGUF files: logits against another implementation that dequantised the same file, the same bits as the folder that a
file was made from, and files that are not what they should be."""

import json
import os
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest

import gguf_files
from command import NATIVE_CPU, ROOT, SCRATCH, checkpoint, freeport, golden, logits, package, succeed
from reference_models import read_safetensors

DATA = ROOT / "test/data/gguf"
FILES = sorted(path.stem for path in DATA.glob("*.gguf"))
QUANTISED = [name for name in FILES if not name.endswith("F16")]


def compiled(name, weights, targets=NATIVE_CPU):
    output = Path(SCRATCH.name) / f"{name}-{weights}-gguf.port"
    if not output.exists():
        succeed("compile", DATA / f"{name}.gguf", "-o", output, "--weights", weights, "--target", targets)
    return output


def write(folder, metadata, tensors):
    path = Path(folder) / "model.gguf"
    path.write_bytes(gguf_files.gguf_bytes(metadata, tensors))
    return path


def compile_file(path, *options):
    output = path.with_suffix(".port")
    done = succeed("compile", path, "-o", output, "--target", NATIVE_CPU, *options)
    return output, done.stderr


# ---- against the other implementation --------------------------------------------------------------------------------

@pytest.mark.parametrize("name", FILES)
def test_logits_of_dequantised_weights(name):
    expected = read_safetensors(DATA / f"{name}.safetensors")
    for prompt in ("prompt0", "prompt1"):
        found = logits(compiled(name, "f32"), expected[f"{prompt}.input_ids"])
        wanted = expected[f"{prompt}.logits"]
        assert np.abs(found - wanted).max() < 1e-4 * wanted.std()


@pytest.mark.parametrize("name", FILES)
def test_greedy_tokens(name):
    expected = read_safetensors(DATA / f"{name}.safetensors")
    begin, tokens = expected["prompt0.input_ids"].tolist(), expected["greedy0"].tolist()
    found = logits(compiled(name, "f32"), begin + tokens[:-1])[len(begin) - 1 :].argmax(-1)
    assert found.tolist() == tokens


@pytest.mark.parametrize("name", QUANTISED)
def test_logits_of_kept_weights(name):
    """Activations are eight-bit integers: the figures of the golden data's README for such."""
    expected = read_safetensors(DATA / f"{name}.safetensors")
    for prompt in ("prompt0", "prompt1"):
        wanted = expected[f"{prompt}.logits"]
        error = logits(compiled(name, "keep"), expected[f"{prompt}.input_ids"]) - wanted
        assert np.sqrt((error**2).mean()) < 0.08 * wanted.std()


@pytest.mark.parametrize("name", FILES)
def test_same_bits_on_reference(name):
    ids = read_safetensors(DATA / f"{name}.safetensors")["prompt1.input_ids"]
    path = compiled(name, "keep")
    expected = logits(path, ids, "reference")
    for threads, chunk in ((1, None), (2, None), (2, 7), (1, 1)):
        found = logits(path, ids, "cpu", threads, chunk)
        assert np.array_equal(found.view(np.uint32), expected.view(np.uint32)), f"{threads} threads, pieces of {chunk}"


def test_keep_is_the_default():
    output, _ = compile_to_scratch("llama-Q4_0")
    assert json.loads(succeed("inspect", output, "--json").stdout)["weights"] == "keep"


def compile_to_scratch(name, *options):
    output = Path(SCRATCH.name) / f"{name}-default.port"
    done = succeed("compile", DATA / f"{name}.gguf", "-o", output, "--target", NATIVE_CPU, *options)
    return output, done.stderr


# ---- against the folder that a file was made from --------------------------------------------------------------------

MADE = [("qwen3", "qwen3", False), ("qwen3_moe", "qwen3moe", False), ("deepseek_v2", "deepseek2", False),
        ("deepseek_v2", "deepseek2", True), ("deepseek_v3", "deepseek2", False), ("deepseek_v3", "deepseek2", True),
        ("deepseek_v2_greedy", "deepseek2", False), ("qwen3_odd_heads", "qwen3", False)]


@pytest.mark.parametrize("name, architecture, cut", MADE)
def test_same_bits_as_the_folder(name, architecture, cut, tmp_path):
    path = write(tmp_path, *gguf_files.from_folder(checkpoint(name), architecture, cut))
    output, notes = compile_file(path, "--weights", "f32")
    assert "no vocabulary" in notes
    ids = np.arange(40) * 7 % 50
    found, expected = logits(output, ids), logits(package(name, "f32"), ids)
    assert np.array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_matrices_cut_in_two_expand_the_same_keys(tmp_path):
    """In fast numerics, whose prompts need the absorbed matrix the other way around."""
    path = write(tmp_path, *gguf_files.from_folder(checkpoint("deepseek_v3"), "deepseek2", True))
    options = ("--weights", "f32", "--numerics", "fast", "--target", NATIVE_CPU)
    succeed("compile", path, "-o", tmp_path / "cut.port", *options)
    succeed("compile", checkpoint("deepseek_v3"), "-o", tmp_path / "whole.port", *options)
    ids = np.arange(140) * 7 % 50
    np.testing.assert_array_equal(logits(tmp_path / "cut.port", ids), logits(tmp_path / "whole.port", ids))


@pytest.mark.parametrize("name", ["llama", "llama_tied"])
def test_llama_made_from_a_folder(name, tmp_path):
    """Queries and keys lie in another order, so sums may differ in their last bits."""
    path = write(tmp_path, *gguf_files.from_folder(checkpoint(name), "llama"))
    output, _ = compile_file(path, "--weights", "f32")
    expected = golden(name)["prompt1.logits"]
    assert np.abs(logits(output, golden(name)["prompt1.input_ids"]) - expected).max() < 1e-4 * expected.std()


# ---- blocks are moved, not made anew ---------------------------------------------------------------------------------

def block(kind, scale, codes):
    if kind == gguf_files.Q8_0:
        return struct.pack("<e32b", scale, *codes)
    nibbles = [code + 8 for code in codes]
    return struct.pack("<e16B", scale, *(low | high << 4 for low, high in zip(nibbles[:16], nibbles[16:])))


@pytest.mark.parametrize("kind, name, least, most",
                         [(gguf_files.Q4_0, "q4", -8, 7), (gguf_files.Q8_0, "q8", -128, 127)])
def test_blocks_keep_every_bit(kind, name, least, most, tmp_path):
    """Scales that no quantiser of ours would choose, codes that do not reach the ends."""
    metadata, tensors = gguf_files.from_folder(checkpoint("llama_tied"), "llama")
    random, original = np.random.default_rng(3), "blk.0.ffn_down.weight"
    rows, inputs = tensors[original][1]
    assert inputs % 32 == 0
    scales = (random.standard_normal((rows, inputs // 32)) * 0.01).astype(np.float16)
    codes = random.integers(least, most + 1, (rows, inputs // 32, 32))
    tensors[original] = (kind, [rows, inputs], b"".join(
        block(kind, scale, row) for scale, row in zip(scales.ravel(), codes.reshape(-1, 32).tolist())))
    output, _ = compile_file(write(tmp_path, metadata, tensors))
    entry = next(parameter for parameter in json.loads(succeed("inspect", output, "--json").stdout)["parameters"]
                 if parameter["name"] == "model.layers.0.mlp.down_proj.weight")
    assert entry["format"] == name
    record = {"q4": 576, "q8": 1088}[name]
    raw = np.frombuffer(output.read_bytes(), np.uint8)[entry["offset"] :][: entry["bytes"]]
    raw = raw.reshape(-(-rows // 32), inputs // 32, record)
    codes_end = record - 64
    found_scales = np.ascontiguousarray(raw[:, :, codes_end:]).view(np.float16)  # [row block, group, row]
    assert np.array_equal(found_scales.transpose(0, 2, 1).reshape(-1, inputs // 32)[:rows].view(np.uint16),
                          scales.view(np.uint16))
    payload = raw[:, :, :codes_end]
    if name == "q8":  # [k / 4][row][k % 4]
        found = payload.reshape(*payload.shape[:2], 8, 32, 4).view(np.int8).transpose(0, 3, 1, 2, 4)
    else:  # [k / 8][row][k % 4], low nibbles the first four of eight
        bytes_ = payload.reshape(*payload.shape[:2], 4, 32, 4).astype(int).transpose(0, 3, 1, 2, 4)
        found = np.stack([(bytes_ & 15) - 8, (bytes_ >> 4) - 8], axis=-2)
    assert np.array_equal(found.reshape(-1, inputs // 32, 32)[:rows], codes)
    ids = np.arange(40) * 5 % 60
    expected = logits(output, ids, "reference")
    assert np.array_equal(logits(output, ids).view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("kind, name", [(gguf_files.F16, "f16"), (gguf_files.BF16, "bf16")])
def test_halves_are_kept(kind, name, tmp_path):
    """Against the same values as float32, rounded by the compiler."""
    metadata, halves = gguf_files.from_folder(checkpoint("llama_tied"), "llama")
    singles = dict(halves)
    for tensor, (_, shape, data) in halves.items():
        if len(shape) == 2:
            raw = np.frombuffer(data, "<f4").astype(np.float16) if name == "f16" else np.frombuffer(data, "<u2")[1::2]
            exact = raw.astype("<f4") if name == "f16" else (raw.astype("<u4") << 16).view("<f4")
            halves[tensor], singles[tensor] = (kind, shape, raw.tobytes()), (gguf_files.F32, shape, exact.tobytes())
    (tmp_path / "singles").mkdir()
    kept, _ = compile_file(write(tmp_path, metadata, halves))
    rounded, _ = compile_file(write(tmp_path / "singles", metadata, singles), "--weights", name)
    formats = [[(each["name"], each["format"]) for each in json.loads(succeed("inspect", path, "--json").stdout)["parameters"]]
               for path in (kept, rounded)]
    assert formats[0] == formats[1] and ("model.layers.0.mlp.down_proj.weight", name) in formats[0]
    ids = np.arange(40) * 5 % 60
    np.testing.assert_array_equal(logits(kept, ids).view(np.uint32), logits(rounded, ids).view(np.uint32))


# ---- tokenizers ------------------------------------------------------------------------------------------------------

def tokenizer_metadata(folder, pre):
    """A tokenizer.json as GGUF keeps it."""
    file = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["id"]: token for token in file["added_tokens"]}
    names = {identifier: name for name, identifier in file["model"]["vocab"].items()}
    names |= {identifier: token["content"] for identifier, token in special.items()}
    tokens = [names.get(identifier, f"[PAD{identifier}]") for identifier in range(max(names) + 1)]
    kinds = [3 if identifier in special and special[identifier]["special"] else
             4 if identifier in special else 1 if identifier in names else 5 for identifier in range(len(tokens))]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in file["model"]["merges"]]
    return {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": kinds, "tokenizer.ggml.merges": merges}


@pytest.mark.parametrize("folder, pre", [("llama3", "llama-bpe"), ("qwen2", "qwen2"), ("deepseek_v3", "deepseek-v3"),
                                         ("deepseek_digits", "deepseek-llm")])
def test_tokenizers(folder, pre, tmp_path):
    data = ROOT / "test/data/tokenizers" / folder
    metadata, tensors = gguf_files.from_folder(checkpoint("llama_tied"), "llama")
    metadata |= tokenizer_metadata(data, pre) | {"tokenizer.ggml.add_bos_token": False}
    output, notes = compile_file(write(tmp_path, metadata, tensors))
    assert "refuse" not in notes
    golden_cases = json.loads((data / "cases.json").read_text(encoding="utf-8"))
    cases = golden_cases["cases"]
    done = succeed("tokenize", output, "--jsonl", text="".join(json.dumps(case["text"]) + "\n" for case in cases))
    for case, line in zip(cases, done.stdout.splitlines(), strict=True):
        assert json.loads(line) == case["ids"], case["text"]


def test_begin_token_and_chat_template(tmp_path):
    data = ROOT / "test/data/tokenizers/llama3"
    metadata, tensors = gguf_files.from_folder(checkpoint("llama_tied"), "llama")
    metadata |= tokenizer_metadata(data, "llama-bpe") | {
        "tokenizer.ggml.bos_token_id": 5, "tokenizer.ggml.eos_token_id": 6, "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": "{{ messages[0].content }}"}
    output, _ = compile_file(write(tmp_path, metadata, tensors))
    description = json.loads(succeed("inspect", output, "--json").stdout)["text"]
    assert description["begin_token"] == 5 and description["end_tokens"] == [6] and description["chat_template"]
    assert json.loads(succeed("tokenize", output, "--special", "-p", "a").stdout)[0] == 5


def test_unknown_tokenizers_compile(tmp_path):
    metadata, tensors = gguf_files.from_folder(checkpoint("llama_tied"), "llama")
    for keys in ({"tokenizer.ggml.model": "llama"}, {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "abacus"}):
        output, notes = compile_file(write(tmp_path, metadata | keys, tensors))
        assert "verbs that read or write text will refuse" in notes
        assert "verbs that read or write text will refuse" in succeed("inspect", output).stdout
        assert freeport("run", output, "-p", "a").returncode == 1
        assert logits(output, [1, 2]).shape[0] == 2


# ---- files that are not what they should be --------------------------------------------------------------------------

def refuse(path, message):
    """Compiling `path` fails within seconds, says `message` (a regular expression) and leaves nothing behind."""
    folder = path.parent / "out"
    folder.mkdir(exist_ok=True)
    start = time.monotonic()
    done = freeport("compile", path, "-o", folder / "model.port")
    assert time.monotonic() - start < 5
    assert done.returncode != 0, "expects a failure"
    assert re.search(message, done.stderr, re.IGNORECASE), f"expects '{message}' in: {done.stderr}"
    assert list(folder.iterdir()) == [], "expects no file to be left"


@pytest.fixture
def llama():
    return gguf_files.from_folder(checkpoint("llama_tied"), "llama")


def raw_file(tmp_path, tensor_count, key_count, rest):
    path = tmp_path / "model.gguf"
    path.write_bytes(struct.pack("<4sIQQ", b"GGUF", 3, tensor_count, key_count) + rest)
    return path


def test_files_that_are_not_gguf(tmp_path):
    path = tmp_path / "model.gguf"
    for content in (b"", b"GG", b"PK\3\4" + bytes(100)):
        path.write_bytes(content)
        refuse(path, "expects a checkpoint folder .* or a GGUF file")
    path.write_bytes(b"GGUF")
    refuse(path, "the file ends")
    for version, message in ((1, "version 2 or 3, got 1"), (0x03000000, "big-endian")):
        path.write_bytes(struct.pack("<4sIQQ", b"GGUF", version, 0, 0))
        refuse(path, message)


@pytest.mark.parametrize("part", [0.0001, 0.001, 0.01, 0.3, 0.999])
def test_truncated_files(part, llama, tmp_path):
    data = gguf_files.gguf_bytes(*llama)
    path = tmp_path / "model.gguf"
    path.write_bytes(data[: 24 + int(len(data) * part)])
    refuse(path, "the file ends|truncated")


@pytest.mark.parametrize("count", [2**21, 2**32, 2**63, 2**64 - 1])
def test_huge_counts(count, tmp_path):
    refuse(raw_file(tmp_path, count, 0, b""), "at most|the file ends")
    refuse(raw_file(tmp_path, 0, count, b""), "the file ends")
    key = gguf_files.text("a")
    refuse(raw_file(tmp_path, 0, 1, struct.pack("<Q", count)), "the file ends")
    refuse(raw_file(tmp_path, 0, 1, key + struct.pack("<IQ", gguf_files.STRING, count)), "key 'a'.*the file ends")
    refuse(raw_file(tmp_path, 0, 1, key + struct.pack("<IIQ", gguf_files.ARRAY, gguf_files.UINT32, count)),
           "key 'a'.*(at most|the file ends)")


def test_metadata_of_wrong_types(tmp_path):
    key = gguf_files.text("a")
    refuse(raw_file(tmp_path, 0, 1, key + struct.pack("<I", 13)), "type of value from 0 to 12, got 13")
    refuse(raw_file(tmp_path, 0, 1, key + struct.pack("<IB", gguf_files.BOOL, 2)), "a boolean of 0 or 1")
    nested = b"".join(struct.pack("<IQ", gguf_files.ARRAY, 1) for _ in range(9))
    refuse(raw_file(tmp_path, 0, 1, key + struct.pack("<I", gguf_files.ARRAY) + nested), "levels of arrays")
    refuse(raw_file(tmp_path, 0, 1, key + struct.pack("<I", gguf_files.STRING) + gguf_files.text(b"\xff\xfe")), "UTF-8")
    twice = (key + struct.pack("<II", gguf_files.UINT32, 1)) * 2
    refuse(raw_file(tmp_path, 0, 2, twice), "each key once")


@pytest.mark.parametrize("key, value, message", [
    ("general.architecture", "mamba", "one of llama, qwen3, qwen3moe, deepseek2"),
    ("general.architecture", 7, "expects text at 'general.architecture'"),
    ("general.architecture", None, "general.architecture"),
    ("general.alignment", 3, "power of two"),
    ("split.count", 4, "one whole file"),
    ("llama.block_count", 0, "block_count"),
    ("llama.block_count", "two", "block_count"),
    ("llama.block_count", 4000, "expects tensor 'model.layers"),
    ("llama.embedding_length", 2**31, "embedding_length"),
    ("llama.embedding_length", 33, "expects tensor"),
    ("llama.attention.head_count", [1, 2], "head_count"),
    ("llama.attention.head_count_kv", 3, "k_proj.weight"),
    ("llama.attention.layer_norm_rms_epsilon", float("nan"), "epsilon"),
    ("llama.attention.sliding_window", 4096, "sliding_window"),
    ("llama.expert_count", 8, "expert_count"),
    ("llama.rope.scaling.type", "longrope", "rope.scaling.factor"),
    ("llama.rope.dimension_count", 2, "dimension_count"),
    ("tokenizer.ggml.model", ["gpt2"], "tokenizer.ggml.model"),
    ("tokenizer.ggml.bos_token_id", -1, "bos_token_id"),
])
def test_metadata_that_makes_no_model(key, value, message, llama, tmp_path):
    metadata, tensors = llama
    metadata[key] = value
    refuse(write(tmp_path, {name: each for name, each in metadata.items() if each is not None}, tensors), message)


@pytest.mark.parametrize("keys, message", [
    ({"tokenizer.ggml.tokens": "abc"}, "tokens"),
    ({"tokenizer.ggml.tokens": [1, 2]}, "tokens"),
    ({"tokenizer.ggml.tokens": ["a", "b"], "tokenizer.ggml.token_type": [1]}, "one type for each"),
    ({"tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.bos_token_id": 9}, "bos_token_id"),
    ({"tokenizer.ggml.tokens": ["a"], "tokenizer.ggml.add_bos_token": True}, "bos_token_id"),
])
def test_broken_tokenizers(keys, message, llama, tmp_path):
    metadata, tensors = llama
    refuse(write(tmp_path, metadata | {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "qwen2"} | keys, tensors),
           message)


def one_tensor(tmp_path, shape, kind=0, offset=0, data=b"", name="t", count=1):
    entry = gguf_files.text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return raw_file(tmp_path, count, 0, entry * count + bytes(64) + data)


@pytest.mark.parametrize("shape, kind, offset, message", [
    ((), 0, 0, "1 to 4 sizes"),
    ((1,) * 5, 0, 0, "1 to 4 sizes"),
    ((0, 4), 0, 0, "sizes from 1"),
    ((2**63, 1), 0, 0, "sizes from 1"),
    ((2**32, 2**32), 0, 0, "fits 64 bits"),
    ((2**62, 1), 0, 0, "fits 64 bits"),
    ((2**31, 2**31, 2**31, 2**31), 0, 0, "fits 64 bits"),
    ((2**40,), 0, 0, "truncated"),
    ((8,), 0, 2**63, "truncated"),
    ((8,), 0, 2**64 - 32, "truncated"),
    ((8,), 0, 4, "a multiple of 32"),
    ((33,), 2, 0, "a multiple of 32 values for Q4_0"),
    ((128,), 12, 0, "a multiple of 256 values for Q4_K"),
    ((32,), 10, 0, "got Q2_K"),
    ((32,), 12345, 0, "got type 12345"),
])
def test_impossible_tensors(shape, kind, offset, message, tmp_path):
    refuse(one_tensor(tmp_path, shape, kind, offset, bytes(256)), message)


def test_tensors_twice(tmp_path):
    refuse(one_tensor(tmp_path, (8,), data=bytes(256), count=2), "each tensor once")


def test_tensors_that_overlap(llama, tmp_path):
    metadata, tensors = llama
    data = bytearray(gguf_files.gguf_bytes(metadata, tensors))
    name = gguf_files.text("blk.0.ffn_up.weight")
    place = data.index(name) + len(name) + 4 + 16 + 4
    struct.pack_into("<Q", data, place, 0)
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    refuse(path, "expects data of its own")


@pytest.mark.parametrize("name, change, message", [
    ("blk.0.attn_q.weight", None, "q_proj.weight.*found none"),
    ("token_embd.weight", None, "vocab_size|embed_tokens"),
    ("blk.0.attn_norm.weight", lambda tensor: (gguf_files.Q8_0, [64], bytes(68)), "F32, F16 or BF16|shape"),
    ("rope_freqs.weight", lambda tensor: gguf_files.values(np.zeros(3)), "rope_freqs.weight expects"),
])
def test_missing_and_misshapen_tensors(name, change, message, llama, tmp_path):
    metadata, tensors = llama
    tensor = tensors.pop(name, None)
    if change:
        tensors[name] = change(tensor)
    refuse(write(tmp_path, metadata, tensors), message)


def test_a_pipe(tmp_path):
    path = tmp_path / "pipe.gguf"
    os.mkfifo(path)
    refuse(path, "got something else")
