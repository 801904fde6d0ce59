"""Packages on an emulated aarch64 processor: the logits there are those of this processor and of the
reference, bit for bit, with each of the profiles. The kernels one by one run in test/conformance."""

import shutil
import subprocess

import numpy as np
import pytest

from command import GOLDEN, ROOT, logits, package

EMULATOR = "qemu-aarch64"
PROGRAM = ROOT / "build-aarch64/bin/freeport"
# A processor of each profile, as the emulator calls it.
PROCESSORS = {"aarch64-neon": "cortex-a72", "aarch64-dotprod": "neoverse-n1", "aarch64-i8mm": "max"}
TARGET = "cpu:aarch64"

pytestmark = pytest.mark.skipif(not (PROGRAM.exists() and shutil.which(EMULATOR)),
                                reason="expects build-aarch64/ and qemu-aarch64: ./dev setup --cross, then ./dev build")


def emulate(processor, *arguments):
    command = [str(part) for part in (EMULATOR, "-cpu", processor, PROGRAM, *arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("profile", PROCESSORS)
@pytest.mark.parametrize("name, weights, keys", [("llama", "q4", ""), ("qwen3", "q8", ""), ("deepseek_v3", "q4", ""),
                                                 ("llama_tied", "f16", ""), ("llama", "q4", "q8"), ("qwen3", "f32", "q8")])
def test_the_logits_are_this_processors(name, weights, keys, profile, tmp_path):
    ids = [(1 + 7919 * number) % 300 for number in range(37)]
    for chunk in (len(ids), 1):
        emulate(PROCESSORS[profile], "logits", package(name, weights, keys, TARGET), "--ids", ",".join(map(str, ids)), "-o",
                tmp_path / "logits.npy", "--device", "cpu", "--chunk", chunk)
        expected = logits(package(name, weights, keys), ids, chunk=chunk)
        assert np.array_equal(np.load(tmp_path / "logits.npy").view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("profile", PROCESSORS)
@pytest.mark.parametrize("name", sorted(set(GOLDEN) - {"llama_tied"}))
def test_verify_says_equal(name, profile):
    target = "cpu" if name == "llama" else TARGET  # one has the other architecture's code as well
    output = emulate(PROCESSORS[profile], "verify", package(name, "q4", target=target), "--devices", "reference,cpu", "-t", 2)
    rows = [line.split() for line in output.splitlines() if line.startswith("cpu ")]
    assert [row[:4] for row in rows] == [["cpu", profile, "equal", "equal"]]
