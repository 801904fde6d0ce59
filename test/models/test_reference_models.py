"""The NumPy judge must itself be right: its logits and tokens against those that another implementation computed."""

import json
from pathlib import Path

import numpy as np
import pytest

from command import GOLDEN
from reference_models import ReferenceModel, read_safetensors

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "test/data/models"


@pytest.mark.parametrize("precision", [np.float32, np.float64])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_logits(name, precision):
    golden = read_safetensors(MODELS / name / "golden.safetensors")
    model = ReferenceModel(MODELS / name, precision)
    for prompt in ("prompt0", "prompt1", "prompt2"):
        if prompt + ".logits" not in golden:
            continue
        expected = golden[prompt + ".logits"]
        error = np.abs(model.logits(golden[prompt + ".input_ids"]) - expected).max()
        assert error < 1e-4 * expected.std(), f"{prompt}: expects an error below 1e-4 of the deviation, got {error}"


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_greedy(name):
    golden = read_safetensors(MODELS / name / "golden.safetensors")
    expected = golden["greedy0"].tolist()
    assert ReferenceModel(MODELS / name).greedy(golden["prompt0.input_ids"].tolist(), len(expected)) == expected


def test_tiny_moe():
    folder = ROOT / "examples/tiny-moe"
    model = ReferenceModel(folder, np.float32)
    for case in json.loads((folder / "golden.json").read_text(encoding="utf-8"))["greedy"]["prompts"]:
        prompt, expected = case["prompt_ids"], case["ids"]
        logits = model.logits(prompt + expected[:-1])[len(prompt) - 1 :]
        assert logits.argmax(-1).tolist() == expected
        for entry in case["first_step_top5"]:
            assert abs(logits[0, entry["id"]] - entry["logit"]) < 1e-3
