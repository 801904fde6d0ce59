"""Every SPIR-V module of test models, in all weight formats, for all profiles and other sizes of subgroups, against
spirv-val. PyPI's is taken: Debian's does not know cooperative matrices."""

import json
import re
import struct
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "test/models"))

from command import checkpoint, succeed  # noqa: E402

PROGRAMS = ROOT / "build/bin"
# The program itself: its wrapper starts Python for each module.
VALIDATOR = Path(sysconfig.get_path("purelib")) / "cmeel.prefix/bin/spirv-val"
ENVIRONMENTS = {"spirv-1.5": "vulkan1.2", "spirv-1.6": "vulkan1.3"}


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


def validate(folder, environment):
    # One shell for all: a process for each module would take longer than the validation.
    script = f'for module in *.spv; do "{VALIDATOR}" --target-env {environment} "$module" || echo "in $module"; done'
    done = subprocess.run(["sh", "-c", script], cwd=folder, capture_output=True, encoding="utf-8")
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("name", ["llama", "qwen3_moe", "deepseek_v3", "tiny-moe"])
def test_every_module_is_valid(name, tmp_path):
    found = {target: set() for target in ENVIRONMENTS}
    for weights, numerics in (*((weights, "portable") for weights in ("f32", "f16", "bf16", "q8", "q4")), ("q8", "fast")):
        path = tmp_path / "model.port"
        succeed("compile", checkpoint(name), "-o", path, "--weights", weights, "--numerics", numerics, "--target", "vulkan")
        content = path.read_bytes()
        for executable in json.loads(succeed("inspect", path, "--json").stdout)["executables"]:
            if executable["backend"] == "vulkan":
                bytes = content[executable["offset"] : executable["offset"] + executable["bytes"]]
                found[executable["target"]].update(modules(bytes))
    for target, environment in ENVIRONMENTS.items():
        assert len(found[target]) > 50
        folder = tmp_path / target
        folder.mkdir()
        for number, module in enumerate(found[target]):
            (folder / f"{number}.spv").write_bytes(module)
        validate(folder, environment)


@pytest.mark.parametrize("subgroup", [4, 16, 64])
def test_modules_of_other_subgroups_are_valid(subgroup, tmp_path):
    succeed("compile", checkpoint("tiny-moe"), "-o", tmp_path / "model.port", "--stop-after", "kernel", "--dump-stages",
            tmp_path)
    # The kernels without the program that launches them.
    kernels = re.findall(r"^  kernel\.func.*?^  }$", (tmp_path / "2-kernel.mlir").read_text(), re.MULTILINE | re.DOTALL)
    assert len(kernels) > 20
    (tmp_path / "kernels.mlir").write_text("\n".join(kernels))
    lowered = subprocess.run([PROGRAMS / "freeport-opt", tmp_path / "kernels.mlir",
                              f"--freeport-vulkan-pipeline=profile=dot subgroup={subgroup}"],
                             check=True, capture_output=True, encoding="utf-8").stdout
    found = re.findall(r"^  spirv\.module.*?^  }$", lowered, re.MULTILINE | re.DOTALL)
    assert len(found) == len(kernels)
    for number, module in enumerate(found):
        subprocess.run(["mlir-translate-19", "--no-implicit-module", "--serialize-spirv", "-o",
                        tmp_path / f"{number}.spv"], input=module, check=True, encoding="utf-8")
    validate(tmp_path, "vulkan1.2")
