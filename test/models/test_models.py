"""Whole models through the command line: logits and tokens against other implementations, and the promise that the bits
do not depend on the device, the number of threads or the pieces in which a prompt arrives."""

import json

import numpy as np
import pytest

import random_models
from command import GOLDEN, checkpoint, golden, logits, package, succeed, tiny_moe_golden
from reference_models import ReferenceModel

EVERY_MODEL = (*GOLDEN, "tiny-moe", *random_models.MODELS)
WITH_KEYS = [name for name in EVERY_MODEL if name.startswith(("llama", "qwen3"))]  # the others keep latents
TOLERANCE = 1e-4  # of the standard deviation of the logits: what float32 arithmetic in another order may differ
PROMPT_LENGTH = 75  # more than two pages of 32 tokens


def assert_close(actual, expected):
    error, limit = np.abs(actual - expected).max(), TOLERANCE * expected.std()
    assert actual.shape == expected.shape
    assert error < limit, f"expects logits within {limit:.2e}, got {error:.2e}"


def prompt(name):
    if name in GOLDEN:
        return golden(name)["prompt1.input_ids"].tolist()
    if name == "tiny-moe":
        case = tiny_moe_golden()["greedy"]["prompts"][0]
        return case["prompt_ids"] + case["ids"]
    return random_models.prompt(name, PROMPT_LENGTH)


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("name", GOLDEN)
def test_golden_logits(name, device):
    expected = golden(name)
    for key in (key for key in expected if key.endswith(".logits")):
        ids = expected[key.replace("logits", "input_ids")]
        assert_close(logits(package(name, "f32"), ids, device), expected[key])


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_greedy(name):
    """Fed with the expected tokens, the model must find each next one the most likely."""
    begin, expected = golden(name)["prompt0.input_ids"].tolist(), golden(name)["greedy0"].tolist()
    found = logits(package(name, "f32"), begin + expected[:-1])[len(begin) - 1 :].argmax(-1)
    assert found.tolist() == expected


@pytest.mark.parametrize("case", tiny_moe_golden()["greedy"]["prompts"], ids=lambda case: case["prompt_text"][:20])
def test_tiny_moe_writes_the_golden_text(case):
    text = case["prompt_text"].removeprefix("<｜begin▁of▁sentence｜>")  # added by the tokenizer
    done = succeed("run", package("tiny-moe", "f32"), "-p", text, "-n", len(case["ids"]), "--temp", 0, "--device", "cpu",
                   "--ignore-eos", "--json")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    assert result["prompt_ids"] == case["prompt_ids"]
    assert result["ids"] == case["ids"]
    assert result["text"] == case["text"]


def test_tiny_moe_first_step():
    for case in tiny_moe_golden()["greedy"]["prompts"]:
        last = logits(package("tiny-moe", "f32"), case["prompt_ids"])[-1]
        for entry in case["first_step_top5"]:
            assert abs(last[entry["id"]] - entry["logit"]) < 1e-3


@pytest.mark.parametrize("weights, tolerance", [("f32", 0.001), ("bf16", 0.001), ("q8", 0.005), ("q4", 0.02)])
def test_tiny_moe_perplexity(weights, tolerance):
    """The whole of eval.txt against the other implementation's figure. The checkpoint is bfloat16, so bf16 loses nothing."""
    done = succeed("perplexity", package("tiny-moe", weights), "-f", checkpoint("tiny-moe") / "eval.txt")
    golden_figure = tiny_moe_golden()["perplexity"]
    assert done.stdout.startswith(f"{golden_figure['tokens']} tokens in {golden_figure['windows']} windows of 511: ")
    assert abs(float(done.stdout.split()[-1]) / golden_figure["perplexity"] - 1) < tolerance


@pytest.mark.parametrize("name", random_models.MODELS)
def test_random_models(name):
    expected = ReferenceModel(checkpoint(name), np.float64).logits(prompt(name))
    assert_close(logits(package(name, "f32"), prompt(name)), expected)


@pytest.mark.parametrize("weights, limit", [("q8", 0.1), ("q4", 0.7)])
@pytest.mark.parametrize("name", [name for name in random_models.MODELS if name.startswith("llama")])
def test_quantised_random_models_stay_near(name, weights, limit):
    expected = ReferenceModel(checkpoint(name), np.float64).logits(prompt(name))
    error = logits(package(name, weights), prompt(name)) - expected
    assert np.sqrt((error**2).mean()) < limit * expected.std()


def root_mean_square(x):
    return np.sqrt((x**2).mean())


@pytest.mark.parametrize("name", WITH_KEYS)
def test_quantised_keys(name):
    """What q8 keys change is what they change for the judge: a thirtieth of that is what float32 makes of it when now and then
    a value rounds to the neighbouring integer."""
    plain, expected = (ReferenceModel(checkpoint(name), quantised_keys=keys).logits(prompt(name)) for keys in (False, True))
    found = logits(package(name, "f32", "q8"), prompt(name))
    assert root_mean_square(found - expected) < 0.1 * root_mean_square(expected - plain)
    assert root_mean_square(found - plain) < 0.02 * plain.std()


@pytest.mark.parametrize("name", ["llama", "qwen3", "qwen3_moe"])
def test_perplexity_with_quantised_keys(name):
    text = checkpoint("tiny-moe") / "eval.txt"
    figures = [float(succeed("perplexity", package(name, "q8", keys), "-f", text).stdout.split()[-1]) for keys in ("", "q8")]
    assert figures[0] != figures[1] and abs(figures[1] / figures[0] - 1) < 0.005


@pytest.mark.parametrize("name, weights, keys", [
    *((name, weights, "") for name in EVERY_MODEL for weights in ("f32", "q8", "q4", "bf16", "f16")),
    *((name, weights, "q8") for name in WITH_KEYS for weights in ("f32", "q4"))])
def test_same_bits(name, weights, keys):
    path, ids = package(name, weights, keys), prompt(name)
    expected = logits(path, ids, "reference")
    assert np.isfinite(expected).all()
    ways = {"whole, 1 thread": ("cpu", 1, None), "whole, 2 threads": ("cpu", 2, None), "pieces of 7": ("cpu", 2, 7),
            "token by token": ("cpu", 1, 1), "reference in pieces of 7": ("reference", None, 7)}
    for way, (device, threads, chunk) in ways.items():
        found = logits(path, ids, device, threads, chunk)
        wrong = np.argwhere((found.view(np.uint32) != expected.view(np.uint32)).any(-1)).ravel()
        assert wrong.size == 0, f"{way}: tokens {wrong.tolist()} differ from the reference device's"


def test_tokens_of_one_tile_may_end_in_different_spans():
    """Attention takes two of these tokens at a time; in steps of 33, one pair ends at keys 1023 and 1024, a span's border."""
    ids = [(37 * i + 11) % 60 for i in range(1060)]
    for keys in ("", "q8"):
        path = package("qwen3", "q4", keys)
        expected = logits(path, ids, device="reference", chunk=33)
        for chunk in (1, 33, 512):
            np.testing.assert_array_equal(logits(path, ids, chunk=chunk), expected)
