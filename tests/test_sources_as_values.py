"""Sources of the patched value, as values: the same numbers as the words, and nothing to forget."""

from typing import Any

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.errors import RequestError
from tests import models

TINY = models.tiny_gpt2()
CLEAN, CORRUPT = TINY.tokens(seed=1), TINY.tokens(seed=2)
DATASET = TINY.tokens(n_prompts=4, n_pos=6, seed=3)
HEAD = cg.Head(0, 1)
OWN = {HEAD: torch.linspace(-1, 1, 4, dtype=torch.float64)}
ASKED = "0.1 => logits"


@pytest.fixture(scope="module")
def experiment() -> cg.Experiment:
    metric = cg.LogitDiff([1, 2, 3], [4, 5, 6])
    return cg.Experiment(TINY.bridge, CLEAN, CORRUPT, metric, progress=False)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (cg.Mean(), {"source": "mean"}),
        (cg.Mean(per_position=True), {"source": "mean-position"}),
        (cg.Mean(DATASET), {"source": "mean", "dataset": DATASET}),
        (
            cg.Mean(DATASET, per_position=True),
            {"source": "mean-position", "dataset": DATASET},
        ),
        (cg.Given(OWN), {"source": "given", "values": OWN}),
    ],
    ids=repr,
)
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_values_are_what_the_words_say(
    experiment: cg.Experiment, value: Any, words: dict[str, Any], engine: Any
) -> None:
    found = experiment.patch(ASKED, engine=engine, source=value)
    assert found == experiment.patch(ASKED, engine=engine, **words)
    assert experiment.plan(ASKED, source=value) == experiment.plan(ASKED, source=words["source"])


def test_a_mean_is_the_mean_of_the_models_own_values(experiment: cg.Experiment) -> None:
    """TransformerLens hooks the mean in, independently of the engines."""
    name = "blocks.0.attn.hook_z"
    _, cache = TINY.bridge.run_with_cache(DATASET, names_filter=lambda found: found == name)
    mean = cache[name][:, :, 1].mean(dim=(0, 1))

    def hook(z: torch.Tensor, hook: Any) -> torch.Tensor:
        z = z.clone()
        z[:, :, 1] = mean
        return z

    logits = TINY.bridge.run_with_hooks(CLEAN, fwd_hooks=[(name, hook)])[range(3), -1]
    expected = logits[range(3), [1, 2, 3]] - logits[range(3), [4, 5, 6]]
    found = experiment.patch(ASKED, source=cg.Mean(DATASET))
    np.testing.assert_allclose(found.data["patched"], expected.detach().numpy(), rtol=1e-9)


def test_buffers_are_copied(experiment: cg.Experiment) -> None:
    tokens, own = DATASET.clone(), {HEAD: OWN[HEAD].clone()}
    sources = cg.Mean(tokens), cg.Given(own)
    tokens.zero_()
    own[HEAD].zero_()
    own.clear()
    for source, fresh in zip(sources, (cg.Mean(DATASET), cg.Given(OWN)), strict=True):
        assert experiment.patch(ASKED, source=source) == experiment.patch(ASKED, source=fresh)


def test_sources_are_compared_by_value(experiment: cg.Experiment) -> None:
    compared = experiment.compare(ASKED, sources=("corrupt", cg.Mean(DATASET), cg.Given(OWN)))
    assert compared.names == ("corrupt", "Mean(tokens [4, 6])", "Given(0.1)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"source": cg.Mean(DATASET), "dataset": DATASET}, "brings its own"),
        ({"source": cg.Given(OWN), "values": OWN}, "brings its own"),
        ({"source": cg.Mean}, "source=Mean is a class"),
        ({"source": cg.Given({})}, "no value given for 0.1"),
        ({"source": cg.Given({"0.1": OWN[HEAD]})}, "its keys are senders"),  # type: ignore[dict-item]
        ({"source": cg.Mean(DATASET.double())}, "token ids are integers"),
    ],
)
def test_what_cannot_be_a_source(
    experiment: cg.Experiment, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        experiment.patch(ASKED, **options)


def test_values_that_cannot_be_made() -> None:
    for make in (lambda: cg.Mean([1]), lambda: cg.Mean(per_position=1), lambda: cg.Given([1])):  # type: ignore[arg-type]
        with pytest.raises(RequestError):
            make()
