"""Automatic circuit discovery (ACDC, Conmy et al. 2023, arXiv:2304.14997), exactly and in batches.

All edges are in. From the logits backwards, each receiver's senders are tested one by one: this
edge is patched too, with all that were removed before (mode ``replace``); if the metric moves by
less than the threshold, it stays removed. What each test finds depends on all before it, so the
outcome depends on the order, which is stated.

Sequential is not one by one. The next candidates are run as rows of one batch, "the first of them
removed", "the first two", ...: each row is the test that comes next as long as all before it were
removed. The first edge that is kept makes the later rows void, and the batch starts again there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import circuitgraph
from circuitgraph.circuit import Circuit, Weight
from circuitgraph.circuit.masks import EdgeMasks, Mask
from circuitgraph.discover.search import Search
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.judge import Judge
from circuitgraph.nodes import Edge, Logits, Node, Port

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment

__all__ = ["Pruning", "acdc", "prune_by_tests"]

MOST_ROWS = 64
"""The longest batch: later rows are void whenever an earlier edge is kept."""

Measure = Callable[[Mask], NDArray[np.float64]]
"""From circuits ``[row, edge]`` to their mean metric ``[row]``."""


def acdc(
    experiment: "Experiment",
    threshold: float,
    *,
    order: str | int = "reverse",
    metric: Any = None,
    start: Circuit | None = None,
) -> Search:
    """Remove every edge whose patching moves the metric by less than a threshold.

    Args:
        experiment: The model, prompts and, by its metric, the position that is read.
        threshold: With the default metric, how much the divergence may rise by one edge, in nats;
            with another, how far it may move either way.
        order: In which order a receiver's senders are tested: ``"reverse"``, the latest in the
            residual stream first; ``"forward"``, the earliest first; or the seed of a random order.
            Receivers always go from the logits backwards.
        metric: What is measured; by default the mean over prompts of the KL divergence of the clean
            from the patched next-token distribution, at the position that the experiment's metric
            reads (the last token where it reads several).
        start: Where to start from instead of all edges, such as the 5,000 edges that an estimate
            ranks first: edges outside it are patched from the beginning, and count as removed.

    Returns:
        The circuit and every test. A receiver from which nothing kept can be reached loses its
        edges without a test.

    Raises:
        CircuitError: A threshold that is no positive number, an unknown order, or a start that is
            of another model.

    Example:
        >>> found = cg.discover.acdc(exp, 0.01)  # doctest: +SKIP
        >>> found.circuit, found.steps  # doctest: +SKIP
    """
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.number):
        raise CircuitError(f"threshold must be a number, got {threshold!r}")
    if not np.isfinite(threshold) or threshold <= 0:
        raise CircuitError(f"threshold must be above 0, got {threshold!r}")
    judge = Judge(experiment, metric=kl_metric(experiment) if metric is None else metric)
    inside = np.ones(len(judge.masks.edges), dtype=bool)
    if start is not None:
        inside = judge.masks.of_circuit(start)
    candidates = tuple(by_receiver(judge.masks, inside, order))
    rises = metric is None

    def measure(rows: Mask) -> NDArray[np.float64]:
        means: NDArray[np.float64] = judge.values(rows).mean(axis=-1)
        return means

    found = prune_by_tests(judge.masks, inside, candidates, measure, float(threshold), rises=rises)
    return _as_search(experiment, judge, found, float(threshold), order, start)


@dataclass
class Pruning:
    """The state of a pruning: which edges are in, and what was tested.

    Args:
        inside: ``[edge]``: 1 for what is not removed.
        steps: ``(edge, before, after, kept)`` of every test, in order.
        runs: Circuits that were run, void ones among them.
    """

    inside: Mask
    steps: list[tuple[int, float, float, bool]] = field(default_factory=list)
    runs: int = 0


def by_receiver(
    masks: EdgeMasks, inside: Mask, order: str | int
) -> Iterator[tuple[Port, Sequence[int]]]:
    """Yield every port from the logits backwards, with the numbers of its edges in test order.

    Raises:
        CircuitError: An unknown order.
    """
    seeded = isinstance(order, int | np.integer) and not isinstance(order, bool)
    if not seeded and order not in ("reverse", "forward"):
        raise CircuitError(
            f"order must be 'reverse', 'forward' or the seed of a random order, got {order!r}"
        )
    generator = np.random.default_rng(int(order)) if seeded else None
    for port in reversed(masks.graph.ports):
        numbers = [masks.number[edge] for edge in masks.graph.edges_into(port)]
        edges = np.array([number for number in numbers if inside[number]], dtype=np.intp)
        if generator is not None:
            edges = generator.permutation(edges)
        yield port, edges[::-1].tolist() if order == "reverse" else edges.tolist()


def prune_by_tests(
    masks: EdgeMasks,
    inside: Mask,
    candidates: Sequence[tuple[Port, Sequence[int]]],
    measure: Measure,
    threshold: float,
    *,
    rises: bool,
) -> Pruning:
    """Return what the sequential algorithm leaves, measured in batches.

    Args:
        masks: The edges, numbered.
        inside: Where it starts.
        candidates: Receivers, from the logits backwards, with their edges in test order.
        measure: The mean metric of circuits.
        threshold: See `acdc`.
        rises: Whether only a rise of the metric counts, or any move.
    """
    state = Pruning(inside.copy())
    before = float(measure(state.inside[None])[0])
    state.runs += 1
    alive: set[Node] = {Logits()}
    n_rows = 4
    for port, edges in candidates:
        if port.node not in alive:
            state.inside[list(edges)] = False
            continue
        left = list(edges)
        while left:
            batch = left[:n_rows]
            rows = np.repeat(state.inside[None], len(batch), axis=0)
            for row, edge in enumerate(batch):
                rows[row:, edge] = False
            measured = measure(rows)
            state.runs += len(batch)
            used = 0
            for edge, after in zip(batch, measured.tolist(), strict=True):
                move = after - before if rises else abs(after - before)
                kept = not move < threshold
                state.steps.append((edge, before, after, kept))
                used += 1
                if kept:
                    break
                state.inside[edge] = False
                before = after
            left = left[used:]
            # As long as nothing is kept, longer batches pay; a kept edge voids what follows.
            kept = state.steps[-1][3]
            n_rows = max(2, 2 * used) if kept else min(MOST_ROWS, 2 * n_rows)
        alive |= {masks.edges[edge].sender for edge in edges if state.inside[edge]}
    return state


def kl_metric(experiment: "Experiment") -> Any:
    """Return the divergence from clean at the position that the experiment's metric reads."""
    from circuitgraph.metrics import KLDivergence

    read = experiment.metric_position
    return KLDivergence() if read is None else KLDivergence(position=read)


def _as_search(
    experiment: "Experiment",
    judge: Judge,
    found: Pruning,
    threshold: float,
    order: str | int,
    start: Circuit | None,
) -> Search:
    masks = judge.masks
    moved: dict[Edge, Weight] = {}
    for edge, before, after, _ in found.steps:
        moved[masks.edges[edge]] = Weight(after - before)
    considered = masks.edges if start is None else start.edges
    known = {edge: moved.get(edge, Weight()) for edge in considered}
    members = frozenset(masks.edges[at] for at in np.flatnonzero(found.inside))
    cost = {"tests": len(found.steps), "circuits run": found.runs}
    attrs = {
        "found_by": "acdc",
        "threshold": threshold,
        "order": order if isinstance(order, str) else int(order),
        "metric": judge.metric_name,
        "quantity": "move of the metric when the edge was removed",
        "source": str(judge.source),
        "mode": "replace",
        "prompts": experiment.fingerprint,
        "n_prompts": len(judge.clean),
        "start": "all edges" if start is None else f"{len(start)} edges",
        "version": circuitgraph.__version__,
        **{key.replace(" ", "_"): value for key, value in cost.items()},
    }
    steps = pd.DataFrame(
        {
            "edge": [str(masks.edges[edge]) for edge, *_ in found.steps],
            "before": [before for _, before, _, _ in found.steps],
            "after": [after for _, _, after, _ in found.steps],
            "kept": [kept for *_, kept in found.steps],
        }
    )
    return Search(Circuit(masks.graph.shape, known, members, {}, attrs), steps, cost)
