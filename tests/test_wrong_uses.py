"""Wrong values in every place of the experiment's face: an error of ours, or an answer; never else."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.errors import CircuitGraphError
from tests import models

TINY = models.tiny_gpt2()
CLEAN, CORRUPT = TINY.tokens(seed=1), TINY.tokens(seed=2)
METRIC = cg.LogitDiff([1, 2, 3], [4, 5, 6])
HEAD = cg.Head(0, 1)
EDGE = cg.Edge(HEAD, cg.Head(1, 0).q)


class Something:
    """Nothing that anybody could mean."""


class NoMetric:
    """What looks like a metric until it is bound."""

    def bind(self, prompts: Any) -> None:
        return None

    def measure(self, logits: Any, clean: Any = None) -> None:
        return None


def wrong_values() -> Iterator[Any]:
    yield from (None, 0, -1, 1.5, math.nan, "", "zzz", b"bytes", 2**70, ..., NotImplemented)
    yield from ([], (), {}, set(), [None], [1, 2], ["a", None], {"a": None}, {1: 2}, {None: 0})
    yield from (Something(), Something, object, len, cg, Exception("x"), range(3), slice(3))
    yield from (NoMetric(), NoMetric, cg.LogitDiff, cg.LogitDiff([1], [2]), cg.LogitDiff("a", "b"))
    yield from (cg.LogitDiff(None, None), cg.Logits(), cg.Through, cg.Through([cg.Head(9, 9)]))  # type: ignore[arg-type]
    yield from (cg.Head(0, 0), cg.Head(9, 9), [EDGE, None], iter([1]), [2**70] * 3, [math.inf] * 3)
    yield from (torch.tensor(1), torch.zeros(0), torch.zeros(3), torch.zeros(3, 6))
    yield from (torch.zeros(3, 6, dtype=torch.complex64), torch.ones(3, 6, dtype=torch.bool))
    yield from (torch.full((3, 6), 10**9), torch.full((3, 6), -1), torch.zeros(3, 6, 2).long())
    yield from (torch.zeros(3, 6, device="meta").long(), torch.zeros(3, 6).long().to_sparse())
    yield from (np.zeros((3, 6), dtype=int), np.array(["a"]), [[1, 2], [3]], [[1] * 6] * 3)
    yield from ({"a": [0, 1]}, {"each": 0}, {"a b": 0}, {"end": [9, 9, 9]}, {"a": torch.zeros(3)})
    yield from ({HEAD: None}, {HEAD: torch.zeros(5, 7)}, {"0.1": torch.zeros(4)})
    yield {HEAD: torch.zeros(4, dtype=torch.complex64)}
    yield {HEAD: torch.full((4,), math.nan)}
    yield from ("0.1 -> 9.9.q => logits", "head -> 1.0.q@zzz => logits", "->", "=>", "\x00")
    yield from ("0.1@99999999999999999999 => logits", "0.1 " * 100, "0", "-5MB", "1e400GB")


def experiment(**changes: Any) -> cg.Experiment:
    given = {"model": TINY.bridge, "clean": CLEAN, "corrupt": CORRUPT, "metric": METRIC}
    return cg.Experiment(**{"progress": False, **given, **changes})  # type: ignore[arg-type]


def places() -> Iterator[tuple[str, Callable[[cg.Experiment, Any], Any]]]:
    """Each argument of each method, as a function of what is given there."""
    for name in (
        "model",
        "clean",
        "corrupt",
        "metric",
        "positions",
        "corrupt_positions",
        "lengths",
    ):
        yield f"Experiment({name})", lambda _, value, name=name: experiment(**{name: value})  # type: ignore[misc]
    for name in ("memory_budget", "self_check", "allow_no_difference", "progress"):
        yield f"Experiment({name})", lambda _, value, name=name: experiment(**{name: value})  # type: ignore[misc]
    yield "Experiment(model, task)", lambda _, value: cg.Experiment(TINY.bridge, value)
    arguments = {
        "plan": ("request", "variant", "mode", "source"),
        "patch": ("request", "variant", "mode", "engine", "source", "values", "dataset", "metrics"),
        "compare": ("variants", "mode", "modes", "sources", "engines", "values", "dataset"),
        "schedule": ("request", "variant", "mode"),
    }
    for method, names in arguments.items():
        for name in names:

            def ask(exp: Any, value: Any, method: str = method, name: str = name) -> Any:
                return getattr(exp, method)(**{"request": "0.1 => logits", name: value})

            yield f"{method}({name})", ask
    asked = "0.1 => logits"
    yield "metrics", lambda exp, value: exp.patch(asked, metrics={"a": value})
    yield "values", lambda exp, value: exp.patch(asked, source="given", values=value)
    yield "a value", lambda exp, value: exp.patch(asked, source="given", values={HEAD: value})
    yield "mean", lambda exp, value: exp.patch(asked, source="mean", dataset=value)
    yield (
        "mean-position",
        lambda exp, value: exp.patch(asked, source="mean-position", dataset=value),
    )


@pytest.mark.parametrize("place", [pytest.param(ask, id=name) for name, ask in places()])
def test_wrong_uses_end_in_an_error_of_ours(place: Callable[[cg.Experiment, Any], Any]) -> None:
    exp = experiment()
    bare, refused = [], 0
    for value in wrong_values():
        try:
            place(exp, value)
        except CircuitGraphError:
            refused += 1
        except Exception as error:  # noqa: BLE001  # whatever else it is
            bare.append(f"{value!r:.60}: {type(error).__name__}: {error}")
    assert not bare
    assert refused > 50
