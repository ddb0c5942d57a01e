"""What is rounding is told by the size of the logits and their type, not by the difference."""

import functools
from typing import Any

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.errors import EffectsError, MetricError
from circuitgraph.metrics import LogitDiff, LogProb, Probability, Prompts, Readout, rounding
from tests import models

N = 11
TINY = models.tiny_gpt2()
CLEAN, CORRUPT = TINY.tokens(N, 6, seed=1), TINY.tokens(N, 6, seed=2)


@functools.cache
def twins(dtype: torch.dtype, factor: float) -> Any:
    """A model in which token 5 is token 1 but for the last bits of its unembedding."""
    bridge = TINY.new_bridge()
    weight = bridge.unembed.original_component.weight
    noise = torch.randn(weight[1].shape, generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        weight[5] = weight[1] * (1 + factor * torch.finfo(dtype).eps * noise)
        weight *= 3
    return bridge.to(dtype)


def experiment(dtype: torch.dtype, metric: Any, factor: float = 1.0, **options: Any) -> Any:
    bridge = twins(dtype, factor)
    return cg.Experiment(bridge, CLEAN, CORRUPT, metric, progress=False, **options)


def difference(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, 1] - logits[:, -1, 5]


SAME = LogitDiff([1] * N, [5] * N)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("metric", [SAME, difference], ids=["LogitDiff", "function"])
def test_answers_equal_but_for_rounding_are_refused(dtype: torch.dtype, metric: Any) -> None:
    with pytest.raises(MetricError, match=r"measure the same \(mean .* is rounding of the model's"):
        experiment(dtype, metric)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_effects_of_rounding_are_neither_normalised_nor_significant(engine: str) -> None:
    exp = experiment(torch.float32, SAME, allow_no_difference=True)
    effects = exp.patch("head -> logits", engine=engine)
    assert 0 < np.abs(effects.difference().values).max() < 1e-5, "or there is nothing to refuse"
    with pytest.raises(EffectsError, match=r"equals, but for rounding of the model's logits"):
        effects.normalized()
    with pytest.raises(EffectsError, match="cannot be normalized"):
        effects.statistics()


def test_differences_that_are_larger_than_rounding_are_effects() -> None:
    exp = experiment(torch.float32, SAME, factor=1e4)
    effects = exp.patch("head -> logits")
    exact = cg.Experiment(
        twins(torch.float32, 1e4).double(), CLEAN, CORRUPT, SAME, progress=False
    ).patch("head -> logits")
    twins(torch.float32, 1e4).float()
    np.testing.assert_allclose(effects.normalized(), exact.normalized(), atol=0.02)


def test_one_prompt_within_rounding_beside_others_that_are_not() -> None:
    clean, corrupt = np.array([1.0, 1.0, 1.0, 1.0]), np.zeros(4)
    patched = np.array([clean - 1e-5, clean - 0.01])
    bare = cg.Effects.from_arrays(patched, clean, corrupt, {"sender": ["0.0", "0.1"]})
    assert bare.statistics()["significant"].values.tolist() == [True, True]
    data = bare.data.assign(noise=(("prompt",), np.full(4, 2e-5)))
    found = cg.Effects(data).statistics()
    assert found["p"].values[0] == 1.0
    assert found["significant"].values.tolist() == [False, True]


def test_joined_parts_keep_the_larger_rounding() -> None:
    def part(name: str, noise: float) -> cg.Effects:
        made = cg.Effects.from_arrays([[1.0, 2.0]], [2.0, 3.0], [0.0, 0.0], {"sender": [name]})
        return cg.Effects(made.data.assign(noise=(("prompt",), [noise, 0.0])))

    along = cg.Effects.concat([part("0.0", 1e-6), part("0.1", 2e-6)], "sender")
    assert along.data["noise"].values.tolist() == [2e-6, 0.0]
    filled = cg.Effects.concat([part("0.0", 1e-6), part("0.1", 2e-6)])
    assert filled.data["noise"].values.tolist() == [2e-6, 0.0]
    prompts = [part("0.0", 1e-6), part("0.0", 2e-6)]
    longer = cg.Effects.concat(prompts, "prompt")
    assert longer.data["noise"].values.tolist() == [1e-6, 0.0, 2e-6, 0.0]


def test_noise_is_a_size() -> None:
    made = cg.Effects.from_arrays([1.0], [2.0], [0.0]).data
    with pytest.raises(EffectsError, match="noise must not be negative"):
        cg.Effects(made.assign(noise=(("prompt",), [-1.0])))
    with pytest.raises(EffectsError, match="noise must have the dimensions"):
        cg.Effects(made.assign(noise=((), 1.0)))


# -- by the metric: first derivatives worked by hand ----------------------------------------------

PROMPTS = Prompts(1, 1, 3, {"end": torch.tensor([0])}, torch.tensor([1]))
EPS = torch.finfo(torch.float32).eps
LOGITS = torch.tensor([[8.0, 10.0, 1.0]])


def noise_of(metric: Any, logits: torch.Tensor) -> float:
    return float(rounding(Readout((metric.bind(PROMPTS),), PROMPTS)).measure(logits))


@pytest.mark.parametrize(
    ("metric", "logits", "slope"),
    [
        # The length of the metric's gradient, times the largest logit that it reads.
        (LogitDiff([0], [1]), LOGITS[:, :2], 10 * 2**0.5),
        (LogProb([0]), LOGITS, 10 * 0.88 * 2**0.5),
        (Probability([0]), LOGITS, 10 * 0.105 * 2**0.5),
    ],
)
def test_rounding_is_the_gradient_times_the_step(
    metric: Any, logits: torch.Tensor, slope: float
) -> None:
    assert 1.5 < noise_of(metric, logits) / (slope * EPS) < 8
    # In double precision it shrinks with the step.
    wide = Prompts(1, 1, 3, {"end": torch.tensor([0])}, torch.tensor([1]), dtype=torch.float64)
    bound = Readout((metric.bind(wide),), wide)
    assert float(rounding(bound).measure(logits.double())) < 1e-8 * noise_of(metric, logits)


def test_logits_that_were_rounded_to_half_are_known_as_such() -> None:
    half = Prompts(1, 1, 3, {"end": torch.tensor([0])}, torch.tensor([1]), dtype=torch.bfloat16)
    bound = rounding(Readout((LogitDiff([0], [1]).bind(half),), half))
    assert float(bound.measure(torch.tensor([[8.0, 10.0]]))) > 0.1
    assert float(bound.measure(torch.tensor([[8.0001, 10.0001]]))) < 1e-4
