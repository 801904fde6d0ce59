"""Broken checkpoints, broken packages and a failing system: each must end in a clear message and a nonzero exit code,
never in a crash (command.freeport checks that) and never in a partial file."""

import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import time

import numpy as np
import pytest

import random_models
from command import FREEPORT, NATIVE_CPU, checkpoint, freeport, package, succeed
from reference_models import read_safetensors

LAYER = "model.layers.0.self_attn.q_proj.weight"


@pytest.fixture
def llama(tmp_path):
    """A writable copy of a small checkpoint folder."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoint("llama_tied"), folder)
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
    (folder / "golden.safetensors").unlink()
    return folder


def refuse(folder, message, **options):
    """Compiling `folder` fails within seconds, says `message` (a regular expression) and leaves nothing behind."""
    output = folder.parent / "out"
    output.mkdir(exist_ok=True)
    start = time.monotonic()
    done = freeport("compile", folder, "-o", output / "model.port", "--weights", "f32", **options)
    assert time.monotonic() - start < 5
    assert done.returncode != 0, "expects a failure"
    assert re.search(message, done.stderr, re.IGNORECASE), f"expects '{message}' in: {done.stderr}"
    assert list(output.iterdir()) == [], "expects no file to be left"


def read_header(path):
    data = path.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_header(path, header, body):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + body)


def edit_header(folder, edit):
    path = folder / "model.safetensors"
    header, body = read_header(path)
    edit(header)
    write_header(path, header, body)


# ---- safetensors -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [0, 4, 8, 100, -1, -1000])
def test_truncated_safetensors(llama, size):
    path = llama / "model.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refuse(llama, r"model\.safetensors")


@pytest.mark.parametrize("length", [0, 1, 2**31, 2**40, 2**63, 2**64 - 1, 2**64 - 8])
def test_wrong_header_length(llama, length):
    path = llama / "model.safetensors"
    path.write_bytes(struct.pack("<Q", length) + path.read_bytes()[8:])
    refuse(llama, r"header|JSON")


@pytest.mark.parametrize("header", [
    b"", b"{", b"[]", b"null", b'"text"', b"{}garbage", b"\xff\xfe{}", b'{"a": 1}', b'{"a": {"dtype": "F32"}}',
    b"[" * 100_000, b'{"a":' * 50_000, b'{"a": {"dtype": 5, "shape": [1], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": "x", "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [1.5], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
    b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 1e300]}}'], ids=lambda header: header[:24].decode("latin1"))
def test_malformed_header(llama, header):
    write_header(llama / "model.safetensors", header, bytes(64))
    refuse(llama, r"model\.safetensors")


def test_overlapping_offsets(llama):
    def edit(header):
        names = [name for name in header if name != "__metadata__"]
        first, second = (name for name in names if header[name]["shape"] == header[LAYER]["shape"]
                         and name in (LAYER, LAYER.replace("q_proj", "o_proj")))
        header[second]["data_offsets"] = header[first]["data_offsets"]

    edit_header(llama, edit)
    refuse(llama, r"overlap")


@pytest.mark.parametrize("offsets", [[0, 2**62], [2**62, 2**62 + 36864], [36864, 0], [2**64 - 36864, 2**64],
                                     [2**63 - 1, 2**63 + 36863]])
def test_offsets_outside_the_file(llama, offsets):
    edit_header(llama, lambda header: header[LAYER].update(data_offsets=offsets))
    refuse(llama, LAYER)


@pytest.mark.parametrize("shape", [[2**32, 2**32], [2**62, 4], [2**63, 2], [2**64, 1], [96] * 40, [0, 96], [96, 97], []])
def test_shapes_that_overflow_or_do_not_match(llama, shape):
    edit_header(llama, lambda header: header[LAYER].update(shape=shape))
    refuse(llama, LAYER)


@pytest.mark.parametrize("dtype", ["F64", "I32", "BOOL", "F33", "", "U8"])
def test_wrong_dtype(llama, dtype):
    def edit(header):
        width = {"F64": 8, "BOOL": 1, "U8": 1}.get(dtype, 4)
        begin, end = header[LAYER]["data_offsets"]
        header[LAYER].update(dtype=dtype, shape=[96 * 4 // width, 96])
        assert end - begin == 96 * 96 * 4

    edit_header(llama, edit)
    refuse(llama, f"{LAYER}.*|dtype")


def test_missing_tensor(llama):
    path = llama / "model.safetensors"
    tensors = {name: ("F32", value.shape, value.tobytes()) for name, value in read_safetensors(path).items()}
    del tensors[LAYER]
    path.write_bytes(random_models.safetensors_bytes(tensors))
    refuse(llama, LAYER)


def test_misshapen_tensor(llama):
    path = llama / "model.safetensors"
    tensors = {name: ("F32", value.shape, value.tobytes()) for name, value in read_safetensors(path).items()}
    tensors[LAYER] = ("F32", (97, 96), np.zeros((97, 96), np.float32).tobytes())
    path.write_bytes(random_models.safetensors_bytes(tensors))
    refuse(llama, rf"{LAYER}.*96.*97|{LAYER}.*97.*96")


def test_missing_weights(llama):
    (llama / "model.safetensors").unlink()
    refuse(llama, r"safetensors")


@pytest.mark.parametrize("index", ["", "{", "[]", '{"weight_map": 5}', '{"weight_map": {"a": 5}}',
                                   '{"weight_map": {"a": "../outside.safetensors"}}',
                                   '{"weight_map": {"a": "absent.safetensors"}}'])
def test_malformed_index(llama, index):
    (llama / "model.safetensors").rename(llama / "model-00001-of-00001.safetensors")
    (llama / "model.safetensors.index.json").write_text(index)
    refuse(llama, r"index|absent|outside")


# ---- config.json -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("key", ["architectures", "hidden_size", "num_hidden_layers", "num_attention_heads",
                                 "intermediate_size", "vocab_size", "rms_norm_eps"])
@pytest.mark.parametrize("change", ["missing", "text", "list"])
def test_missing_or_mistyped_key(llama, key, change):
    path = llama / "config.json"
    config = json.loads(path.read_text())
    if change == "missing":
        del config[key]
    else:
        config[key] = {"text": "many", "list": [[1]]}[change]
    path.write_text(json.dumps(config))
    refuse(llama, key)


@pytest.mark.parametrize("key, value", [
    ("architectures", ["UnknownForCausalLM"]), ("architectures", []), ("hidden_act", "swoosh"), ("hidden_size", 0),
    ("hidden_size", -96), ("hidden_size", 2**62), ("num_attention_heads", 0), ("num_key_value_heads", 4),
    ("num_key_value_heads", 0), ("head_dim", 15), ("vocab_size", 2**40), ("num_hidden_layers", 10**9),
    ("num_hidden_layers", 1.5), ("rms_norm_eps", -1), ("max_position_embeddings", 0),
    ("rope_parameters", {"rope_type": "spiral", "rope_theta": 10000.0}),
    ("rope_parameters", {"rope_type": "llama3", "rope_theta": 10000.0})], ids=str)
def test_unsupported_value(llama, key, value):
    path = llama / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    refuse(llama, r"expects|supports")


@pytest.mark.parametrize("text", ["", "{", "[]", "5", "\xff", '{"architectures": ' + "[" * 100_000])
def test_malformed_config(llama, text):
    (llama / "config.json").write_bytes(text.encode("latin1"))
    refuse(llama, r"config\.json")


@pytest.mark.parametrize("key, tensor", [("attention_bias", "self_attn.q_proj"), ("mlp_bias", "mlp.gate_proj")])
def test_missing_biases(llama, key, tensor):
    path = llama / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: True}))
    refuse(llama, rf"expects tensor 'model\.layers\.0\.{tensor}\.bias' of shape \[\d+\], found none")


def test_misshapen_bias(tmp_path):
    folder = tmp_path / "checkpoint"
    random_models.write_model(folder, "llama_biases")
    edit_header(folder, lambda header: header["model.layers.1.mlp.down_proj.bias"].update(shape=[1, 72]))
    refuse(folder, r"expects tensor 'model\.layers\.1\.mlp\.down_proj\.bias' of shape \[72\], got \[1, 72\]")


def test_missing_config(llama):
    (llama / "config.json").unlink()
    refuse(llama, r"config\.json")


def test_missing_folder(tmp_path):
    refuse(tmp_path / "nothing", r"nothing")


@pytest.mark.parametrize("text", ["", "{", "[]", '{"model": 5}', '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": [1]}}'])
def test_malformed_tokenizer(tmp_path, text):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer_config.json", "generation_config.json"):
        shutil.copyfile(checkpoint("llama") / name, folder / name)
    (folder / "tokenizer.json").write_text(text)
    refuse(folder, r"tokenizer")


# ---- packages --------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def intact():
    return package("llama", "q4").read_bytes()


@pytest.fixture(scope="module")
def weights_range(intact):
    """[begin, end) of the weights in the file: all that a load does not checksum."""
    description = json.loads(succeed("inspect", package("llama", "q4"), "--json").stdout)
    return (min(entry["offset"] for entry in description["parameters"]),
            max(entry["offset"] + entry["bytes"] for entry in description["parameters"]))


def ask(path):
    return freeport("logits", path, "--ids", "1,2,3", "-o", path.with_suffix(".npy"), "--device", "cpu")


def test_truncated_package(intact, tmp_path):
    path = tmp_path / "model.port"
    for size in sorted({0, 1, 7, 8, 16, 63, 64, 4096, len(intact) // 2, len(intact) - 4096, len(intact) - 1}):
        path.write_bytes(intact[:size])
        done = ask(path)
        assert done.returncode != 0 and "model.port" in done.stderr, f"truncated to {size}: {done.stderr}"
        assert not path.with_suffix(".npy").exists()


def test_flipped_byte_outside_the_weights(intact, weights_range, tmp_path):
    """Manifest, programs, executables and text carry checksums; `inspect --verify` also looks at padding."""
    begin, end = weights_range
    path = tmp_path / "model.port"
    generator = np.random.default_rng(5)
    outside = [at for at in generator.permutation(len(intact)).tolist() if not begin <= at < end][:60] + list(range(24))
    noticed_at_load = 0
    for at in outside:
        damaged = bytearray(intact)
        damaged[at] ^= 1 << int(generator.integers(8))
        path.write_bytes(damaged)
        noticed_at_load += ask(path).returncode != 0
        verify = freeport("inspect", path, "--verify")
        assert verify.returncode != 0, f"expects --verify to notice byte {at}"
    assert noticed_at_load > len(outside) // 4


def test_flipped_weight_never_crashes(intact, weights_range, tmp_path):
    path = tmp_path / "model.port"
    generator = np.random.default_rng(6)
    for at in generator.integers(*weights_range, 12).tolist():
        damaged = bytearray(intact)
        damaged[at] ^= 0xFF
        path.write_bytes(damaged)
        ask(path)
    assert freeport("inspect", path, "--verify").returncode != 0


@pytest.mark.parametrize("content", [b"", b"text", bytes(4096), b"\x7fELF" + bytes(4096)], ids=lambda c: str(len(c)))
def test_something_else_than_a_package(tmp_path, content):
    path = tmp_path / "model.port"
    path.write_bytes(content)
    for verb in (["run", path, "-p", "a"], ["inspect", path], ["logits", path, "--ids", "1", "-o", tmp_path / "o.npy"]):
        done = freeport(*verb)
        assert done.returncode != 0 and "model.port" in done.stderr


def test_a_pipe_or_a_folder_is_no_package(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/null"):
        for verb in (["run", path, "-p", "a"], ["inspect", path], ["tokenize", path, "-p", "a"]):
            done = freeport(*verb)
            assert done.returncode != 0 and str(path) in done.stderr and "expects" in done.stderr


@pytest.mark.parametrize("defaults", [
    {"eos_token_id": 10**6, "bos_token_id": -3}, {"eos_token_id": [1, 2**40], "top_k": -1}, {"top_k": 1e300},
    {"do_sample": True, "temperature": -1.0, "top_p": 0}], ids=str)
def test_senseless_generation_defaults(llama, defaults):
    """They cannot come true: the package does without them."""
    output = llama.parent / "model.port"
    (llama / "generation_config.json").write_text(json.dumps(defaults))
    succeed("compile", llama, "-o", output, "--target", NATIVE_CPU)
    description = json.loads(succeed("inspect", output, "--json").stdout)
    assert all(0 <= token < description["vocabulary_size"] for token in description["text"]["end_tokens"])
    assert description["generation"]["top_k"] == 0 and description["generation"]["temperature"] == 1


# ---- requests --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("ids", ["528", "-1", "1,,2", "a", "", "99999999999999999999"])
def test_ids_outside_the_vocabulary(tmp_path, ids):
    done = freeport("logits", package("llama", "q4"), f"--ids={ids}", "-o", tmp_path / "out.npy")
    assert done.returncode != 0 and done.stderr
    assert list(tmp_path.iterdir()) == []


def test_context_overflow(tmp_path):
    np.save(tmp_path / "ids.npy", np.ones(2100, np.int64))
    done = freeport("logits", package("llama", "q4"), "--ids-file", tmp_path / "ids.npy", "-o", tmp_path / "out.npy")
    assert done.returncode != 0 and re.search(r"context|2048", done.stderr)
    assert not (tmp_path / "out.npy").exists()


def test_unknown_device(tmp_path):
    done = freeport("logits", package("llama", "q4"), "--ids", "1", "-o", tmp_path / "out.npy", "--device", "abacus")
    assert done.returncode != 0 and "abacus" in done.stderr and "cpu" in done.stderr


# ---- the system ------------------------------------------------------------------------------------------------------

def limit_file_size():
    """Every write past 64 KiB fails like one to a full disk does: with an error instead of a signal."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


def test_full_disk(llama):
    refuse(llama, r"writ|space|large", preexec_fn=limit_file_size)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root; test_full_disk covers the rest")
def test_full_file_system(llama, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("this system lets nobody mount a file system")
    try:
        done = freeport("compile", llama, "-o", small / "model.port", "--target", NATIVE_CPU)
        assert done.returncode != 0 and re.search("space", done.stderr)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


def test_full_output_device():
    done = freeport("logits", package("llama", "q4"), "--ids", "1,2", "-o", "/dev/full")
    assert done.returncode != 0 and done.stderr


@pytest.mark.parametrize("arguments", [["--help"], ["inspect"], ["inspect", "--json"], ["tokenize", "-p", "a"],
                                       ["detokenize", "--ids", "1"], ["run", "-p", "a", "-n", "2"]], ids=" ".join)
def test_full_standard_output(arguments):
    model = [] if arguments == ["--help"] else [package("tiny-moe", "q4")]
    command = [FREEPORT, *arguments[:1], *model, *arguments[1:]]
    with open("/dev/full", "wb") as full:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=full, stderr=subprocess.PIPE, timeout=60)
    assert done.returncode == 1 and b"No space left" in done.stderr


def test_unwritable_output(llama, tmp_path):
    for output in (tmp_path / "absent/model.port", llama, "/proc/model.port"):
        done = freeport("compile", llama, "-o", output)
        assert done.returncode != 0 and str(output) in done.stderr


def test_failure_keeps_the_old_package(llama, tmp_path):
    output = tmp_path / "model.port"
    succeed("compile", llama, "-o", output, "--weights", "f32", "--target", NATIVE_CPU)
    before = output.read_bytes()
    (llama / "config.json").write_text("{}")
    assert freeport("compile", llama, "-o", output, "--weights", "q8").returncode != 0
    assert output.read_bytes() == before


def test_killed_compile_leaves_no_partial_file(tmp_path):
    """Killed at many moments, a compile leaves a whole package or none; the next one removes what was left over."""
    output, expected = tmp_path / "model.port", package("llama", "f32").read_bytes()
    command = [FREEPORT, "compile", checkpoint("llama"), "-o", output, "--weights", "f32", "--target", NATIVE_CPU]
    start = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    duration = time.monotonic() - start
    assert output.read_bytes() == expected
    killed = 0
    for moment in np.linspace(0.02, 1.0, 15) * duration:
        output.unlink(missing_ok=True)
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(moment)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        if output.exists():
            assert output.read_bytes() == expected, f"a partial file after {moment:.2f} s"
    assert killed > 5
    subprocess.run(command, check=True, capture_output=True)
    assert [path.name for path in tmp_path.iterdir()] == ["model.port"]
