"""Cutting a sweep into parts that take about equally long, by the schedule's own cost.

Cells of early layers cost more than those of late ones, so the cost is taken from the schedules of
some stretches of cells and read off between them; a trial of a few cells says how long that takes.
What measures is cut by cells; an estimate of all cells costs as much as of one, so it is cut by
prompts.
"""

import math
import time
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from circuitgraph.experiment.work import Work, plan_part
from circuitgraph.request import EdgeSets
from circuitgraph.schedule import schedule
from circuitgraph.sweeps.executor import Cut, Sizes
from circuitgraph.sweeps.manifest import Part

__all__ = ["cut", "shares"]

STRETCHES, STRETCH = 48, 96
"""How many stretches of cells are looked at, and how long each is."""

FEW = 8
"""Fewer cells than this are no part of their own where no time is measured."""

LONG_ENOUGH = 1.0
"""Seconds that a trial should take, and that a part takes at least where parts are many."""


def cut(work: Work, sizes: Sizes) -> Cut:
    """Return the parts of a sweep.

    Args:
        work: What is asked.
        sizes: How long a part is to take.
    """
    _ = work.engine.clean_metric  # recorded before anything is timed
    if work.question.engine.is_estimate:
        return _by_prompts(work, sizes)
    costs = np.cumsum([0.0, *_costs(work)])
    total, n_cells = float(costs[-1]), len(work.plan.cells)
    per_pass = _trial(work, costs)
    if sizes.cells is not None:
        edges = [*range(0, n_cells, sizes.cells), n_cells]
    else:
        edges = _equal(costs, min(_how_many(total * per_pass, sizes), n_cells))
    of = work.manifest.digest
    parts = tuple(Part(of, range(start, stop)) for start, stop in pairwise(edges))
    return Cut(parts, total, total * per_pass)


def shares(work: Work, workers: int) -> tuple[Part, ...]:
    """Return the parts of a request that several workers share, without a trial.

    Some for each worker, so that one that is late is not waited for long; an estimate is one part,
    and so are few cells.

    Args:
        work: What is asked.
        workers: How many there are.
    """
    n_cells = len(work.plan.cells)
    many = min(4 * workers, n_cells // FEW)
    if workers == 1 or many < 2 or work.question.engine.is_estimate:
        return (work.whole,)
    of, costs = work.manifest.digest, np.cumsum([0.0, *_costs(work)])
    return tuple(Part(of, range(*ends)) for ends in pairwise(_equal(costs, many)))


def _equal(costs: NDArray[np.float64], many: int) -> list[int]:
    """Return the first cells of stretches that cost about the same, and the end of the last."""
    inner = np.searchsorted(costs, np.linspace(0, costs[-1], many + 1)[1:-1]).tolist()
    return sorted({0, *inner, len(costs) - 1})


def _how_many(seconds: float, sizes: Sizes) -> int:
    """Return how many parts there are to be: long ones, but enough for every worker."""
    shortest = max(1, int(seconds / LONG_ENOUGH))
    return max(1, math.ceil(seconds / sizes.seconds), min(sizes.least, shortest))


def _costs(work: Work) -> NDArray[np.float64]:
    """Return what each cell costs, in forward passes; equal runs within a stretch count once."""
    plan, n_cells = work.plan, len(work.plan.cells)
    if isinstance(plan.request, EdgeSets):
        return np.ones(n_cells)
    n_stretches = min(STRETCHES, math.ceil(n_cells / STRETCH))
    starts = np.linspace(0, max(0, n_cells - STRETCH), n_stretches).astype(int)
    middles, costs = [], []
    for start in starts.tolist():
        cells = range(start, min(start + STRETCH, n_cells))
        part = plan_part(plan, cells)
        if work.engine.name == "reference":
            passes = float(part.cost.forward_passes + part.cost.closed_form)
        else:
            passes = schedule(part).forward_passes
        middles.append(start + len(cells) / 2)
        costs.append(passes / len(cells))
    # Where nothing runs live there still is a sum, a norm and an unembedding.
    return np.interp(np.arange(n_cells), middles, np.maximum(costs, 0.01))


def _trial(work: Work, costs: NDArray[np.float64]) -> float:
    """Return how many seconds a forward pass takes in stacks, from some cells in the middle."""
    n_cells, size = len(work.plan.cells), 2
    while True:
        start = max(0, n_cells // 2 - size // 2)
        cells = range(start, min(start + size, n_cells))
        before = time.perf_counter()
        work.measure(Part("", cells), lambda _: None)
        took = time.perf_counter() - before
        if took >= LONG_ENOUGH or len(cells) == n_cells or size >= 4 * STRETCH:
            return took / float(costs[cells.stop] - costs[cells.start])
        size *= 4


def _by_prompts(work: Work, sizes: Sizes) -> Cut:
    """Return the parts of an estimate: some prompts each, where the metric can be cut up."""
    n_prompts, of, everything = work.setup.n_prompts, work.manifest.digest, work.whole.cells

    def timed(prompts: range | None) -> float:
        before = time.perf_counter()
        work.measure(Part("", everything, prompts), lambda _: None)
        return time.perf_counter() - before

    if n_prompts < 4 or work.setup.metric.of_prompts(slice(0, 1)) is None:
        return Cut((Part(of, everything),), float(n_prompts), timed(None))
    # What each part costs, however many prompts it has, and what each prompt adds.
    one, three = timed(range(1)), timed(range(3))
    each = max(0.0, three - one) / 2
    fixed, adding = max(0.0, one - each), each * n_prompts
    many = min(max(1, math.ceil(adding / sizes.seconds)), n_prompts)
    while many < min(sizes.least, n_prompts) and adding / (many + 1) >= max(LONG_ENOUGH, fixed):
        many += 1
    edges = np.linspace(0, n_prompts, many + 1).astype(int).tolist()
    parts = tuple(Part(of, everything, range(start, stop)) for start, stop in pairwise(edges))
    return Cut(parts, float(n_prompts), many * fixed + adding)
