"""Variant, mode and source as one value: the same numbers as the words, and nothing to mistype."""

import pickle
from typing import Any

import pytest
import torch

import circuitgraph as cg
from circuitgraph.errors import RequestError
from tests import models

TINY = models.tiny_gpt2()
OWN = {cg.Head(0, 1): torch.linspace(-1, 1, 4, dtype=torch.float64)}
ASKED = "[0.0, 0.1] -> {2.0.q, 1.1.k} => logits"


@pytest.fixture(scope="module")
def experiment() -> cg.Experiment:
    clean, corrupt = TINY.tokens(seed=1), TINY.tokens(seed=2)
    metric = cg.LogitDiff([1, 2, 3], [4, 5, 6])
    return cg.Experiment(TINY.bridge, clean, corrupt, metric, progress=False)


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (cg.Method(), ((), {})),
        (cg.Method("single-pass", "add"), (("single-pass", "add"), {})),
        (
            cg.Method("single-pass", "replace", "zero"),
            (("single-pass", "replace"), {"source": "zero"}),
        ),
        (cg.Method(source=cg.Mean(per_position=True)), ((), {"source": "mean-position"})),
        (cg.Method(cg.Through([cg.MLP(1)])), ((cg.Through([cg.MLP(1)]),), {})),
    ],
    ids=str,
)
def test_a_method_is_what_its_words_say(experiment: cg.Experiment, method: Any, words: Any) -> None:
    said, options = words
    assert experiment.plan(ASKED, method) == experiment.plan(ASKED, *said, **options)
    assert experiment.patch(ASKED, method) == experiment.patch(ASKED, *said, **options)
    assert str(experiment.schedule(ASKED, method)) == str(experiment.schedule(ASKED, *said))


def test_values_come_with_their_method(experiment: cg.Experiment) -> None:
    found = experiment.patch("0.1 => logits", cg.Method(source=cg.Given(OWN)))
    assert found == experiment.patch("0.1 => logits", source="given", values=OWN)


def test_methods_are_compared(experiment: cg.Experiment) -> None:
    methods = [cg.Method(), cg.Method("single-pass", "add", "zero")]
    found = experiment.compare(ASKED, methods)
    assert list(found.effects) == ["mlps, set, corrupt", "single-pass, add, zero"]
    for name, method in zip(found.effects, methods, strict=True):
        assert found.effects[name] == experiment.patch(ASKED, method)


def test_methods_are_values() -> None:
    one, other = cg.Method("single-pass", "add"), cg.Method("single-pass", "add")
    assert one == other
    assert len({one, other, cg.Method()}) == 2
    assert pickle.loads(pickle.dumps(one)) == one


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"variant": "mlp"}, "no variant 'mlp': write 'mlps', 'single-pass' or cg.Through"),
        ({"mode": "sett"}, "no mode 'sett': write one of set, add, replace"),
        ({"source": "clean"}, "no source 'clean': write one of corrupt, zero, mean, mean-position"),
        ({"source": "given"}, r"source='given' brings no values: write cg.Given\(values\)"),
    ],
)
def test_a_wrong_word_is_refused_when_the_method_is_made(parts: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        cg.Method(**parts)


@pytest.mark.parametrize("more", [{"mode": "add"}, {"source": "zero"}])
def test_a_method_and_a_word_beside_it_are_refused(experiment: cg.Experiment, more: Any) -> None:
    for ask in (experiment.patch, experiment.plan):
        with pytest.raises(RequestError, match="brings its own mode and source: leave mode and"):
            ask(ASKED, cg.Method(), **more)
