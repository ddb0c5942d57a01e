"""Several metrics of the same runs: one result with a dimension, each as if measured alone."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.errors import EffectsError, MetricError
from tests import models
from tests.engines.asking import oracle_logits

TINY = models.tiny_gpt2()
CLEAN, CORRUPT = TINY.tokens(seed=1), TINY.tokens(seed=2)
METRIC = cg.LogitDiff([1, 2, 3], [4, 5, 6])
HOOK = "blocks.2.hook_resid_post"


def seen(value: torch.Tensor) -> torch.Tensor:
    return value[:, -1].sum(dim=-1)


METRICS = {
    "last": cg.Activation(HOOK, seen),
    "answer": METRIC,
    "surprise": cg.LogProb([1, 2, 3]),
}


@pytest.fixture(scope="module")
def experiment() -> cg.Experiment:
    return cg.Experiment(TINY.bridge, CLEAN, CORRUPT, METRIC, {"S2": [2, 1, 3]}, progress=False)


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("request_", ["0.1 => logits", "head -> 2.0.q => logits"])
def test_each_is_as_if_measured_alone(
    experiment: cg.Experiment, engine: Any, request_: str
) -> None:
    found = experiment.patch(request_, engine=engine, metrics=METRICS)
    swept = () if request_.startswith("0.1") else ("layer", "head")
    assert found.data["patched"].dims == ("metric", *swept, "prompt")
    for name in ("clean", "corrupt"):
        assert found.data[name].dims == ("metric", "prompt")
    assert found.data["metric"].to_numpy().tolist() == list(METRICS)
    for name, metric in METRICS.items():
        one = found[name]
        alone = cg.Experiment(TINY.bridge, CLEAN, CORRUPT, metric, progress=False)
        expected = alone.patch(request_, engine=engine)
        assert one.dims == expected.dims
        assert one.attrs == expected.attrs
        for values in ("patched", "clean", "corrupt"):
            np.testing.assert_allclose(one.data[values], expected.data[values], rtol=1e-9)


def test_numbers_stand_under_their_names(experiment: cg.Experiment) -> None:
    """The oracle, which knows nothing of metrics, tells which is which."""
    logits = oracle_logits(
        TINY.plain, experiment.graph, CLEAN, CORRUPT, "0.1 => logits", "mlps", "set"
    )[range(3), -1]
    found = experiment.patch("0.1 => logits", metrics=METRICS)
    difference = logits[range(3), [1, 2, 3]] - logits[range(3), [4, 5, 6]]
    np.testing.assert_allclose(found["answer"].data["patched"], difference, rtol=1e-9)
    surprise = logits.log_softmax(-1)[range(3), [1, 2, 3]]
    np.testing.assert_allclose(found["surprise"].data["patched"], surprise, rtol=1e-9)


def test_one_metric_by_name_has_the_dimension_too(experiment: cg.Experiment) -> None:
    found = experiment.patch("head -> logits", metrics={"answer": METRIC})
    assert found.data.sizes["metric"] == 1
    assert found["answer"] == experiment.patch("head -> logits")


def test_several_metrics_in_files_and_tables(experiment: cg.Experiment, tmp_path: Path) -> None:
    found = experiment.patch("head -> 2.0.q => logits", metrics=METRICS)
    assert cg.Effects.load(found.save(tmp_path / "effects.json")) == found
    assert set(found.to_dataframe()["metric"]) == set(METRICS)
    assert "answer" in repr(found)
    assert found.heatmap() is not None


def test_what_cannot_be_selected(experiment: cg.Experiment) -> None:
    with pytest.raises(EffectsError, match="no metric 'answer' to select: there is only one"):
        experiment.patch("0.1 -> logits")["answer"]
    with pytest.raises(EffectsError, match="metric has last, answer, surprise"):
        experiment.patch("0.1 => logits", metrics=METRICS)["anwser"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "no metric is given"),
        ([METRIC], "metrics are given by name"),
        ({1: METRIC}, "a metric's name is a text, got 1"),
        ({"a": cg.LogitDiff}, "LogitDiff is a class"),
        ({"a": None}, "is no metric"),
    ],
)
def test_wrong_metrics(experiment: cg.Experiment, wrong: Any, message: str) -> None:
    with pytest.raises(MetricError, match=message):
        experiment.patch("0.1 -> logits", metrics=wrong)
