"""An experiment whose cells are run elsewhere measures what it measures by itself."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

import circuitgraph as cg
from circuitgraph.errors import RequestError, SweepError
from circuitgraph.sweeps import Cluster
from circuitgraph.sweeps.executor import Advance, Asked, Finished
from circuitgraph.sweeps.manifest import Part
from tests.sweeping import METHOD, REQUEST, make, recipe


class Elsewhere:
    """Runs parts on another experiment, the last one first."""

    workers = 3

    def __init__(self) -> None:
        self.other = recipe()
        self.parts: list[Part] = []

    def run(self, asked: Asked, parts: Sequence[Part], advance: Advance) -> Iterator[Finished]:
        self.parts += parts
        answering = self.other.answering(asked.question)
        assert answering.manifest == asked.manifest
        for part in reversed(parts):
            yield answering.measure(part, advance)


def compare(one: cg.Experiment, other: cg.Experiment) -> None:
    """Sweeps, random circuits and curves come out the same."""
    effects = one.patch(REQUEST, **METHOD)
    again = other.patch(REQUEST, **METHOD)
    np.testing.assert_allclose(again.data["patched"], effects.data["patched"], atol=1e-12)
    assert again.attrs == effects.attrs
    circuit = cg.discover.cut(effects, 40)
    found, there = (exp.evaluate(circuit, baselines=24, seed=3) for exp in (one, other))
    assert there.faithfulness == pytest.approx(found.faithfulness, abs=1e-9)
    sizes = [*range(10, 171, 8)]
    curves = [exp.curve(effects, sizes=sizes) for exp in (one, other)]
    np.testing.assert_allclose(curves[1].values, curves[0].values, atol=1e-12)


def test_parts_may_be_run_elsewhere() -> None:
    elsewhere = Elsewhere()
    compare(recipe(), make(executor=elsewhere))
    by_request: dict[str, list[range]] = {}
    for part in elsewhere.parts:
        by_request.setdefault(part.of, []).append(part.cells)
    n_edges = len(list(recipe().graph.edges()))
    counts = sorted(sum(map(len, ranges)) for ranges in by_request.values())
    # The sizes of a curve; random circuits, the circuit and the others of it; every edge.
    assert counts == [21, 26, n_edges]
    for ranges in by_request.values():
        assert len(ranges) > 1
        cells = [cell for cells in sorted(ranges, key=lambda r: r.start) for cell in cells]
        assert cells == list(range(len(cells)))


def test_what_runs_no_parts_is_refused() -> None:
    with pytest.raises(RequestError, match="runs no parts: write"):
        make(executor=3)


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
@pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed")
def test_on_ray() -> None:
    with Cluster(recipe, workers=2) as cluster:
        compare(recipe(), make(executor=cluster))
        other: Any = make(2, executor=cluster)
        with pytest.raises(
            SweepError, match=r"another one than what it is asked about.*\n?.*prompts is"
        ):
            other.patch(REQUEST, **METHOD)
