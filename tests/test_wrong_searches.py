"""Wrong values for whatever judges and searches: refused by name before anything is run.

`test_wrong_values` does the same for the rest of the public face.
"""

import inspect
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import circuitgraph as cg
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.fast.circuits import Circuits
from circuitgraph.engines.gradient.engine import GradientEngine
from circuitgraph.errors import CircuitError, CircuitGraphError
from tests import models
from tests.test_wrong_values import wrong_values

SECONDS = 10
"""How long a refusal may take at most, on a machine that does other things too."""


class Run(BaseException):
    """Something would be run now."""


@pytest.fixture(scope="module")
def exp() -> cg.Experiment:
    tiny = models.tiny_gpt2()
    clean, corrupt = tiny.tokens(3, 5, seed=1), tiny.tokens(3, 5, seed=2)
    return cg.Experiment(tiny.new_bridge(), clean, corrupt, cg.LogitDiff([1, 2, 3], [4, 5, 6]))


@pytest.fixture(scope="module")
def effects(exp: cg.Experiment) -> cg.Effects:
    return exp.patch("node -> port => logits", "single-pass")


@pytest.fixture(scope="module")
def circuit(effects: cg.Effects) -> cg.Circuit:
    return cg.discover.cut(effects, 5)


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> Any:
        raise Run

    monkeypatch.setattr(FastEngine, "run_schedule", run)
    monkeypatch.setattr(FastEngine, "port_tests", run)
    monkeypatch.setattr(Circuits, "stacks", run)
    monkeypatch.setattr(GradientEngine, "run", run)


NAMES = [
    "evaluate",
    "curve",
    "completeness",
    "minimality",
    "test_circuit",
    "acdc",
    "backward",
    "screen",
    "stability",
    "cut",
]


def target(
    name: str, exp: cg.Experiment, effects: cg.Effects, circuit: cg.Circuit
) -> tuple[Callable[..., Any], dict[str, Any]]:
    """A function, and right values of its arguments that have no default."""
    needed: dict[str, dict[str, Any]] = {
        "curve": {"effects": effects},
        "acdc": {"experiment": exp, "threshold": 0.1},
        "backward": {"experiment": exp},
        "screen": {"experiment": exp, "request": "head -> logits", "keep": 2},
        "stability": {"effects": effects, "n_edges": 3, "resamples": 2},
        "cut": {"effects": effects, "n_edges": 3},
    }
    if hasattr(cg.discover, name):
        return getattr(cg.discover, name), needed[name]
    return getattr(exp, name), needed.get(name, {"circuit": circuit})


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.usefixtures("nothing_runs")
def test_wrong_values_are_refused_before_anything_is_run(
    name: str, exp: cg.Experiment, effects: cg.Effects, circuit: cg.Circuit
) -> None:
    function, right = target(name, exp, effects, circuit)
    values = list(wrong_values())
    assert len(values) > 40
    for argument in inspect.signature(function).parameters:
        for value in values:
            if False:
                continue
            started = time.perf_counter()
            try:
                function(**right | {argument: value})
            except (Run, CircuitGraphError):
                pass
            except Exception as error:
                raise AssertionError(f"{name}({argument}={value!r}): {error!r}") from error
            assert time.perf_counter() - started < SECONDS, (name, argument, value)


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("evaluate", "baselines"),
        ("completeness", "random_sets"),
        ("test_circuit", "randoms"),
        ("test_circuit", "permutations"),
        ("stability", "resamples"),
    ],
)
@pytest.mark.parametrize("many", [1_000_001, 2**70, np.int64(2**60)])
@pytest.mark.usefixtures("nothing_runs")
def test_counts_have_a_bound(
    name: str,
    argument: str,
    many: Any,
    exp: cg.Experiment,
    effects: cg.Effects,
    circuit: cg.Circuit,
) -> None:
    function, right = target(name, exp, effects, circuit)
    with pytest.raises(CircuitError, match=f"{argument} must be 1,000,000 at most, got"):
        function(**right | {argument: many})
