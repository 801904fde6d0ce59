"""`freeport tune`: other tile sizes, the same bits, and nothing left behind where it fails."""

import json
import re
import shutil
import signal
import struct
import subprocess
import time

import pytest
import xxhash

from command import FREEPORT, NATIVE_CPU, checkpoint, freeport, logits, package, succeed
from test_command_line import has_vulkan

IDS = [(7 * i + 3) % 90 for i in range(45)]  # many tokens, and with pieces of 7 also few


def parameters(path):
    return json.loads(succeed("inspect", path, "--json").stdout)["parameters"]


@pytest.mark.parametrize("name, weights, options", [
    ("llama", "q4", []), ("tiny-moe", "q8", []), ("qwen3_moe", "f32", []), ("llama", "q8", ["--numerics", "fast"])],
    ids=str)
def test_tuning_keeps_bits_and_weights(name, weights, options, tmp_path):
    path, tuned = tmp_path / "model.port", tmp_path / "tuned.port"
    succeed("compile", checkpoint(name), "-o", path, "--weights", weights, "--target", NATIVE_CPU, *options)
    before = path.read_bytes()
    table = succeed("tune", path, "-o", tuned).stdout
    assert path.read_bytes() == before and sorted(each.name for each in tmp_path.iterdir()) == ["model.port", "tuned.port"]
    for what, values in (("tokens per tile, steps of 2 to 31", ("2", "8")), ("tokens per tile, longer steps", ("8", "32")),
                         ("prefetch distance in bytes", ("none", "2304", "4608", "9216"))):
        for value in values:
            assert re.search(rf"\| {what} \| {value} instead of [\w ]+ \| [\d.]+ instead of [\d.]+ \| [+-][\d.]+ % \|", table)
    succeed("inspect", tuned, "--verify")
    assert parameters(tuned) == parameters(path)
    description = succeed("inspect", tuned, "--json").stdout
    assert re.search(r"--weights \w+( --numerics fast)? --tune tokens \d+,\d+ prefetch [\w ]+ on ", description)
    if options:
        return
    succeed("verify", tuned, "--devices", "reference,cpu")
    for device in ("cpu", "reference"):
        for chunk in (None, 7, 1):
            expected, got = (logits(each, IDS, device=device, chunk=chunk) for each in (path, tuned))
            assert expected.tobytes() == got.tobytes()


def test_tuned_code_for_vulkan(tmp_path):
    """A package's other devices get kernels of the same tile sizes."""
    if not has_vulkan():
        pytest.skip("no Vulkan device here")
    path = tmp_path / "model.port"
    succeed("compile", checkpoint("llama"), "-o", path, "--weights", "q4", "--target", f"{NATIVE_CPU},vulkan")
    expected = logits(path, IDS, device="reference")
    succeed("tune", path)
    for device in ("reference", "cpu", "vulkan"):
        for chunk in (None, 7, 1):
            assert logits(path, IDS, device=device, chunk=chunk).tobytes() == expected.tobytes()


def test_tuning_in_place_and_again(tmp_path):
    path = tmp_path / "model.port"
    shutil.copyfile(package("llama", "q4"), path)
    expected = logits(path, IDS)
    for _ in range(2):
        succeed("tune", path, "-t", 1)
        assert [each.name for each in tmp_path.iterdir()] == ["model.port"]
        assert succeed("inspect", path, "--json").stdout.count("--tune") == 1
    assert logits(path, IDS).tobytes() == expected.tobytes()


def test_ctrl_c_leaves_the_package(tmp_path):
    path = tmp_path / "model.port"
    shutil.copyfile(package("llama", "q4"), path)
    before = path.read_bytes()
    for delay in (0.3, 1.0, 2.0):
        process = subprocess.Popen([FREEPORT, "tune", path], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["model.port"]


def test_expects_code_for_cpu(tmp_path):
    path = tmp_path / "model.port"
    succeed("compile", checkpoint("llama"), "-o", path, "--target", "reference")
    done = freeport("tune", path)
    assert done.returncode == 1 and "--target cpu" in done.stderr


def test_expects_all_profiles_of_vulkan(tmp_path):
    path = tmp_path / "model.port"
    succeed("compile", checkpoint("llama"), "-o", path, "--target", f"{NATIVE_CPU},vulkan:dot")
    before = path.read_bytes()
    done = freeport("tune", path)
    assert done.returncode == 1 and "all profiles of vulkan" in done.stderr and "--target vulkan" in done.stderr
    assert path.read_bytes() == before


def test_unwritable_output(tmp_path):
    output = tmp_path / "absent/model.port"
    done = freeport("tune", package("llama", "q4"), "-o", output)
    assert done.returncode == 1 and str(output) in done.stderr


def with_graph(path, edit):
    """Writes `edit(graph)`, of the same length, as the package's graph, with checksums that match."""
    data = bytearray(path.read_bytes())
    begin = data.index(b"module {")
    end = data.index(b"\0", begin)  # segments are padded
    old = bytes(data[begin:end])
    new = edit(old)
    assert len(new) == len(old) and new != old
    data[begin:end] = new
    def checksum(content):
        return struct.pack("<Q", xxhash.xxh3_64_intdigest(bytes(content)))

    manifest, size = struct.unpack_from("<QQ", data, 16)
    at = data.index(struct.pack("<QQ", begin, end - begin) + checksum(old), manifest)
    data[at + 16:at + 24] = checksum(new)
    data[32:40] = checksum(data[manifest:manifest + size])
    data[48:56] = checksum(data[:48])
    path.write_bytes(data)


@pytest.mark.parametrize("edit, message", [
    (lambda text: text.replace(b"graph.", b"grave.", 1), "does not parse"),
    (lambda text: b"(" * len(text), "does not parse"),
    (lambda text: b"\0" * len(text), "parameters"),
    (lambda text: text[:len(text) // 2].ljust(len(text)), "does not parse"),
    (lambda text: b"module {}".ljust(len(text)), "parameters"),
    (lambda text: text.replace(b"@step", b"@stop"), "@step"),
    (lambda text: re.sub(rb"(graph\.parameter @\"?)m", rb"\1n", text, count=1), "parameter")],
    ids=["dialect", "parentheses", "zeros", "half", "empty", "function", "name"])
def test_hostile_graph(edit, message, tmp_path):
    path = tmp_path / "model.port"
    shutil.copyfile(package("llama", "q4"), path)
    with_graph(path, edit)
    before = path.read_bytes()
    done = freeport("tune", path)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert path.read_bytes() == before and [each.name for each in tmp_path.iterdir()] == ["model.port"]
