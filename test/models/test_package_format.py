"""The Python of docs/package-format.md is run as printed, on the bytes of a real package: the page must be enough to
write a reader from."""

import json
import re

import numpy as np

from command import ROOT, package, succeed


def test_documented_reader_of_q4(tmp_path):
    source = re.search(r"```python\n(.*?)```", (ROOT / "docs/package-format.md").read_text(encoding="utf-8"), re.DOTALL)[1]
    reader = {}
    exec(source, reader)
    path = package("llama", "q4")
    description = json.loads(succeed("inspect", path, "--json").stdout)
    matrices = [entry for entry in description["parameters"] if entry["format"] == "q4" and len(entry["shape"]) == 2]
    assert matrices
    data = path.read_bytes()
    for entry in matrices:
        succeed("inspect", path, "--tensor", entry["name"], "-o", tmp_path / "tensor.npy")
        expected = np.load(tmp_path / "tensor.npy")
        rows, inputs = expected.shape
        blocks, groups = -(-rows // 32), -(-inputs // 32)
        records = [reader["unpack_q4"](data[at : at + 576]) for at in
                   range(entry["offset"], entry["offset"] + blocks * groups * 576, 576)]
        values = np.array(records).reshape(blocks, groups, 32, 32).transpose(0, 2, 1, 3).reshape(blocks * 32, groups * 32)
        assert np.array_equal(values[:rows, :inputs], expected)
        assert not values[rows:].any() and not values[:, inputs:].any()
