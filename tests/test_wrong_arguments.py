"""Wrong arguments of the public face have errors of ours."""

from typing import Any

import pytest

import circuitgraph as cg
from circuitgraph.errors import CircuitError, EffectsError, ModelError

EFFECTS = cg.Effects.from_arrays(
    [[3.0, 1.0]], [4.0, 2.0], [0.0, -2.0], {"sender": ["9.9"]}, request="[9.9] -> logits"
)
SHAPE = cg.ModelShape(12, 12)


@pytest.mark.parametrize("n", [1.5, None, "3", float("nan"), True, 0, -1])
def test_how_many_are_asked_for(n: Any) -> None:
    with pytest.raises(EffectsError, match="n must be a whole number of at least 1, got"):
        EFFECTS.top(n)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), "0.1", [0.1]])
def test_thresholds_are_finite_numbers(threshold: Any) -> None:
    with pytest.raises(CircuitError, match="threshold must be a finite number, got"):
        cg.Circuit.from_effects(EFFECTS, threshold=threshold, shape=SHAPE)


@pytest.mark.parametrize("top", [1.5, "3", float("nan"), True])
def test_how_many_edges_are_kept(top: Any) -> None:
    with pytest.raises(CircuitError, match="top must be a whole number of at least 0, got"):
        cg.Circuit.from_effects(EFFECTS, top=top, shape=SHAPE)


@pytest.mark.parametrize("device", ["zzz", 1.5, []])
def test_devices_that_are_none(device: Any) -> None:
    with pytest.raises(ModelError, match="no device .*: write cpu, cuda, cuda:1 or mps"):
        cg.load_model("gpt2", device=device)
