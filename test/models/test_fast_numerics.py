"""`--numerics fast` against the judge and against `portable`: whole prompts, pieces, single tokens. Steps of 128 tokens or
more expand latents; on the reference device exp stays the portable one, so that expansion is all that differs there."""

import numpy as np
import pytest

from command import NATIVE_CPU, checkpoint, logits, package, succeed
from reference_models import ReferenceModel

EXPANDED_TOKENS = 128
LATENT = ("deepseek_v2", "deepseek_v3", "tiny-moe")


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    folder, made = tmp_path_factory.mktemp("fast"), {}

    def compiled(name, weights):
        if (name, weights) not in made:
            made[name, weights] = folder / f"{name}-{weights}.port"
            succeed("compile", checkpoint(name), "-o", made[name, weights], "--weights", weights, "--numerics", "fast",
                    "--target", NATIVE_CPU)
        return made[name, weights]

    return compiled


@pytest.mark.parametrize("device", ["cpu", "reference"])
@pytest.mark.parametrize("name", [*LATENT, "llama", "qwen3_moe"])
def test_near_the_judge(name, device, fast):
    ids = np.random.default_rng(1).integers(3, 50, 200)
    expected = ReferenceModel(checkpoint(name)).logits(ids)
    for chunk in (None, 150, 1) if device == "cpu" else (150,):
        error = np.abs(logits(fast(name, "f32"), ids, device, chunk=chunk) - expected).max()
        assert error < 1e-4 * expected.std(), f"in pieces of {chunk}: {error}"


@pytest.mark.parametrize("name", LATENT)
def test_expansion_begins_at_128_tokens(name, fast):
    """Below, the reference device has the bits of portable numerics; from there on it is near them."""
    ids = np.random.default_rng(2).integers(3, 50, EXPANDED_TOKENS)
    expected = logits(package(name, "f32"), ids, "reference")
    found = logits(fast(name, "f32"), ids, "reference")
    assert not np.array_equal(found, expected)
    np.testing.assert_allclose(found, expected, atol=1e-4 * expected.std())
    np.testing.assert_array_equal(logits(fast(name, "f32"), ids[:-1], "reference"), expected[:-1])


@pytest.mark.parametrize("weights, least, most", [("f32", 0, 1e-6), ("q8", 1e-5, 2e-3)])
def test_compare_reports_a_small_deviation(weights, least, most, fast):
    """Of a trained model over a text, in windows of 511 tokens. In q8 rounding to int8 and the routers amplify what is
    last bits in f32, too little there for compare to show."""
    out = succeed("compare", package("tiny-moe", weights), fast("tiny-moe", weights), "-f",
                  checkpoint("tiny-moe") / "eval.txt").stdout
    portable, approximate, _, mean, _, agreement, _ = (float(line.rsplit(" ", 1)[1]) for line in out.splitlines())
    assert abs(approximate / portable - 1) < 1e-3
    assert least <= mean < most and agreement > 98
