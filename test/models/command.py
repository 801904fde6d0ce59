"""Calls build/bin/freeport as a user would, and keeps the packages that several tests share."""

import functools
import json
import platform
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import random_models
from reference_models import read_safetensors

ROOT = Path(__file__).resolve().parents[2]
FREEPORT = ROOT / "build/bin/freeport"
GOLDEN = ("llama", "llama_tied", "qwen3", "qwen3_moe", "deepseek_v2", "deepseek_v3")
# What of the CPU's code each x86-64 processor chooses, best first, by a word of /proc/cpuinfo.
X86_PROFILES = {"avx512_vnni": "x86-64-v4-avx512vnni", "avx_vnni": "x86-64-v3-avxvnni", "avx2": "x86-64-v3"}
SCRATCH = tempfile.TemporaryDirectory(prefix="freeport-test-models-")  # removed when Python ends


def native_cpu():
    """The --target of the code that this processor chooses: most of a test's time is compiling."""
    if platform.machine() == "x86_64":
        flags = set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split())
        return next((f"cpu:{profile}" for flag, profile in X86_PROFILES.items() if flag in flags), "cpu")
    return "cpu"


NATIVE_CPU = native_cpu()


def freeport(*arguments, text="", **options):
    """The finished process: returncode, stdout and stderr as text; `text` is its standard input. A crash by a signal
    fails the test at once."""
    command = [str(part) for part in (FREEPORT, *arguments)]
    done = subprocess.run(command, input=text, capture_output=True, encoding="utf-8", errors="replace", timeout=600,
                          **options)
    assert done.returncode >= 0, f"{command} died of signal {-done.returncode}\n{done.stderr}"
    return done


def succeed(*arguments, **options):
    done = freeport(*arguments, **options)
    assert done.returncode == 0, f"freeport {' '.join(map(str, arguments))}: {done.returncode}\n{done.stderr}"
    return done


@functools.cache
def checkpoint(name):
    """The folder of a golden, bundled or random model."""
    if name in GOLDEN:
        return ROOT / "test/data/models" / name
    if name == "tiny-moe":
        return ROOT / "examples/tiny-moe"
    folder = Path(SCRATCH.name) / name
    random_models.write_model(folder, name)
    return folder


def key_options(keys):
    """What `freeport compile` is told of the format of keys, "" for that of values."""
    return ["--cache-type-k", keys] if keys else []


@functools.cache
def package(name, weights, keys="", target=NATIVE_CPU):
    path = Path(SCRATCH.name) / f"{name}-{weights}{keys}-{target.replace(':', '-')}.port"
    succeed("compile", checkpoint(name), "-o", path, "--weights", weights, "--target", target, *key_options(keys))
    return path


@functools.cache
def golden(name):
    return read_safetensors(checkpoint(name) / "golden.safetensors")


@functools.cache
def tiny_moe_golden():
    return json.loads((checkpoint("tiny-moe") / "golden.json").read_text(encoding="utf-8"))


def logits(path, ids, device="cpu", threads=None, chunk=None):
    """float32 [T, vocabulary] from `freeport logits`."""
    with tempfile.TemporaryDirectory(dir=SCRATCH.name) as folder:
        np.save(Path(folder) / "ids.npy", np.asarray(ids, np.int64))
        options = ["-t", threads] * (threads is not None) + ["--chunk", chunk] * (chunk is not None)
        succeed("logits", path, "--ids-file", Path(folder) / "ids.npy", "-o", Path(folder) / "out.npy",
                "--device", device, *options)
        result = np.load(Path(folder) / "out.npy")
    assert result.dtype == np.float32 and result.ndim == 2 and result.shape[0] == len(ids)
    return result
