"""Whole models on a Vulkan device: the bits of the other devices in every format, one token and many; nothing to say for
the validation layer; and `freeport verify`, which must name the dispatch where devices part."""

import functools
import json
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import xxhash

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "test/models"))

import random_models  # noqa: E402
from command import NATIVE_CPU, GOLDEN, SCRATCH, checkpoint, freeport, key_options, logits, succeed  # noqa: E402
from reference_models import ReferenceModel  # noqa: E402

IN_EVERY_FORMAT = ("llama", "deepseek_v3", "tiny-moe")
SHIPPED = (*GOLDEN, "tiny-moe")
CASES = [(name, weights, "") for name in IN_EVERY_FORMAT for weights in ("f32", "f16", "bf16", "q8", "q4")] + \
        [(name, weights, "") for name in GOLDEN if name not in IN_EVERY_FORMAT for weights in ("f32", "q4")] + \
        [(name, "q4", "") for name in random_models.MODELS] + \
        [("llama", "f32", "q8"), ("llama", "q4", "q8"), ("qwen3_moe", "q4", "q8"), ("llama_odd_heads", "q4", "q8")]


def unusable():
    found = [entry for entry in json.loads(succeed("devices", "--json").stdout) if entry["backend"] == "vulkan"]
    return None if any(entry["usable"] for entry in found) else found[0]["reason"]


pytestmark = pytest.mark.skipif(unusable() is not None, reason=f"no Vulkan device: {unusable()}")


@functools.cache
def package(name, weights, keys=""):
    path = Path(SCRATCH.name) / f"{name}-{weights}{keys}-vulkan.port"
    succeed("compile", checkpoint(name), "-o", path, "--weights", weights, "--target", f"{NATIVE_CPU},vulkan",
            *key_options(keys))
    return path


def prompt(name):
    vocabulary = json.loads((checkpoint(name) / "config.json").read_text())["vocab_size"]
    return [(1 + 7919 * i) % vocabulary for i in range(45)]


@pytest.mark.parametrize("name, weights, keys", CASES)
def test_same_bits(name, weights, keys):
    path, ids = package(name, weights, keys), prompt(name)
    expected = logits(path, ids, "cpu")
    assert np.isfinite(expected).all()
    for chunk in (None, 20, 1):  # a step of many tokens, of few, of one
        found = logits(path, ids, "vulkan", chunk=chunk)
        wrong = np.argwhere((found.view(np.uint32) != expected.view(np.uint32)).any(-1)).ravel()
        assert wrong.size == 0, f"chunk {chunk}: tokens {wrong.tolist()} differ from the cpu device's"


@pytest.mark.parametrize("name", ["deepseek_v2", "deepseek_v3", "tiny-moe"])
def test_fast_numerics_stay_near_the_judge(name, tmp_path):
    """With the device's own exp, and latents expanded in the step of 150 tokens."""
    ids = [*prompt(name), *reversed(prompt(name)), *prompt(name), *prompt(name)]
    succeed("compile", checkpoint(name), "-o", tmp_path / "fast.port", "--weights", "f32", "--numerics", "fast",
            "--target", "vulkan")
    expected = ReferenceModel(checkpoint(name)).logits(ids)
    found = logits(tmp_path / "fast.port", ids, "vulkan", chunk=150)
    assert np.abs(found - expected).max() < 1e-4 * expected.std()


@pytest.mark.parametrize("name, weights, keys", [
    *((name, weights, "") for name in (*SHIPPED, "llama_two_spans") for weights in ("f32", "q4")),  # spans in parallel
    ("llama", "f32", "q8")])
def test_clean_under_the_validation_layer(name, weights, keys, tmp_path):
    layers = Path("/usr/share/vulkan/explicit_layer.d/VkLayer_khronos_validation.json")
    if not layers.exists():
        pytest.skip("needs the validation layer (Debian's vulkan-validationlayers)")
    environment = {**os.environ, "FREEPORT_VULKAN_VALIDATION": "1"}
    for chunk in (40, 1):
        done = succeed("logits", package(name, weights, keys), "--ids", ",".join(map(str, prompt(name)[:40 if chunk > 1 else 3])),
                       "-o", tmp_path / "logits.npy", "--device", "vulkan", "--chunk", chunk, env=environment)
        assert done.stderr == ""


def test_verify_prints_a_table():
    done = succeed("verify", package("tiny-moe", "q4"), "--devices", "reference,cpu,vulkan")
    rows = [line.split() for line in done.stdout.splitlines() if line.split() and line.split()[0] in ("reference", "cpu", "vulkan")]
    assert [row[0] for row in rows] == ["reference", "cpu", "vulkan"]
    assert all(row[2:4] == ["equal", "equal"] for row in rows)


def test_verify_names_the_dispatch(tmp_path):
    """The epsilon of a norm is changed in the reference's bytecode, and every checksum made to agree."""
    original = package("llama", "f32")
    content = bytearray(original.read_bytes())
    reference = json.loads(succeed("inspect", original, "--json").stdout)["executables"][0]
    assert reference["backend"] == "reference"
    begin, end = reference["offset"], reference["offset"] + reference["bytes"]
    epsilon = json.loads((checkpoint("llama") / "config.json").read_text())["rms_norm_eps"]
    at = content.index(struct.pack("<f", epsilon), begin, end)
    before = xxhash.xxh3_64_intdigest(bytes(content[begin:end]))
    content[at : at + 4] = struct.pack("<f", 0.25)
    manifest, size = struct.unpack_from("<QQ", content, 16)
    place = content.index(struct.pack("<Q", before), manifest, manifest + size)
    content[place : place + 8] = struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(content[begin:end])))
    struct.pack_into("<Q", content, 32, xxhash.xxh3_64_intdigest(bytes(content[manifest : manifest + size])))
    struct.pack_into("<Q", content, 48, xxhash.xxh3_64_intdigest(bytes(content[:48])))
    path = tmp_path / "model.port"
    path.write_bytes(content)
    done = freeport("verify", path, "--devices", "reference,vulkan")
    assert done.returncode == 1
    assert "DIFFERENT" in done.stdout and "rms_norm" in done.stdout
    assert "on reference" in done.stdout and "on vulkan" in done.stdout


def test_a_package_without_spirv(tmp_path):
    path = tmp_path / "model.port"
    succeed("compile", checkpoint("llama"), "-o", path, "--target", NATIVE_CPU)
    done = freeport("logits", path, "--ids", "1,2", "-o", tmp_path / "logits.npy", "--device", "vulkan")
    assert done.returncode != 0 and "--target vulkan" in done.stderr
    for device in ("vulkan:99", "vulkan:no such device"):
        done = freeport("logits", package("llama", "q4"), "--ids", "1,2", "-o", tmp_path / "logits.npy", "--device", device)
        assert done.returncode != 0 and done.stderr
