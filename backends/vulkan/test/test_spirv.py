"""Every SPIR-V module of every test model, in all weight formats and for all profiles, against spirv-val."""

import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "test/models"))

from command import GOLDEN, checkpoint, succeed  # noqa: E402


def modules(data):
    """The SPIR-V of an executable (executable.fbs): the kernels' `code`, field 1, in the root's `kernels`, field 0."""
    def word(at):
        return struct.unpack_from("<I", data, at)[0]

    def field(table, number):
        vtable = table - struct.unpack_from("<i", data, table)[0]
        offset = struct.unpack_from("<H", data, vtable + 4 + 2 * number)[0]
        assert offset, "expects the field to be there"
        return table + offset + word(table + offset)  # a reference

    kernels = field(word(0), 0)
    for number in range(word(kernels)):
        at = kernels + 4 + 4 * number
        code = field(at + word(at), 1)
        yield data[code + 4 : code + 4 + 4 * word(code)]


@pytest.mark.skipif(not shutil.which("spirv-val"), reason="needs spirv-val (Debian's spirv-tools)")
@pytest.mark.parametrize("name", [*GOLDEN, "tiny-moe"])
def test_every_module_is_valid(name, tmp_path):
    found = set()
    for weights in ("f32", "f16", "bf16", "q8", "q4"):
        path = tmp_path / "model.port"
        succeed("compile", checkpoint(name), "-o", path, "--weights", weights, "--target", "vulkan")
        content = path.read_bytes()
        for executable in json.loads(succeed("inspect", path, "--json").stdout)["executables"]:
            if executable["backend"] == "vulkan":
                found.update(modules(content[executable["offset"] : executable["offset"] + executable["bytes"]]))
    assert len(found) > 50
    for number, module in enumerate(found):
        (tmp_path / f"{number}.spv").write_bytes(module)
    # One shell for all: a process for each module would take longer than the validation.
    script = 'for module in *.spv; do spirv-val --target-env vulkan1.2 "$module" || echo "in $module"; done'
    done = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, encoding="utf-8")
    assert done.stdout + done.stderr == ""
