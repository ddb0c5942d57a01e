"""Automatic circuit discovery (ACDC, Conmy et al. 2023, arXiv:2304.14997), exactly and in batches.

All edges are in. From the logits backwards, each receiver's senders are tested one by one: this
edge is patched too, with all that were removed before (mode ``replace``); if the metric moves by
less than the threshold, it stays removed. What each test finds depends on all before it, so the
outcome depends on the order, which is stated.

Sequential is not one by one. The outcome of the next tests is guessed, and they are run as rows of
one batch: each row is the test that comes next if all guesses before it hold. The first that does
not makes the later rows void as tests; but each still says by how much its edge moves the metric,
nearly as the real test will, and so what to guess in the next batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import circuitgraph
from circuitgraph.arguments import number
from circuitgraph.circuit import Circuit, Weight
from circuitgraph.circuit.masks import EdgeMasks, Mask
from circuitgraph.discover.search import Search
from circuitgraph.engines.fast import FastEngine
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.judge import Judge, check_experiment
from circuitgraph.experiment.progress import progress_bar
from circuitgraph.nodes import Edge, Logits, Node, Port

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment

__all__ = ["Pruning", "acdc", "prune_by_tests"]

FEWEST_ROWS, MOST_ROWS = 8, 64
"""The shortest and the longest batch: rows after a wrong guess are run in vain."""

Measure = Callable[[Port, Mask], NDArray[np.float64]]
"""From circuits ``[row, edge]`` that differ in what one port hears to their mean metric."""


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
    check_experiment(experiment)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float | np.number):
        raise CircuitError(f"threshold must be a number, got {threshold!r}")
    if not number("threshold", threshold, CircuitError) > 0:
        raise CircuitError(f"threshold must be above 0, got {threshold!r}")
    judge = Judge(experiment, metric=kl_metric(experiment) if metric is None else metric)
    inside = np.ones(len(judge.masks.edges), dtype=bool)
    if start is not None:
        inside = judge.masks.of_circuit(start)
    found = pruned(judge, inside, float(threshold), order, rises=metric is None)
    return _as_search(experiment, judge, found, float(threshold), order, start)


def pruned(
    judge: Judge,
    inside: Mask,
    threshold: float,
    order: str | int,
    *,
    rises: bool,
    stop: Callable[[], bool] = lambda: False,
) -> "Pruning":
    """Run the tests on a judge's model and prompts, which stays as it is meanwhile.

    Args:
        judge: What measures.
        inside: Where it starts.
        threshold: See `acdc`.
        order: See `acdc`.
        rises: Whether only a rise of the metric counts, or any move.
        stop: Asked before every batch whether to end here.
    """
    candidates = tuple(by_receiver(judge.masks, inside, order))
    n_edges = sum(len(edges) for _, edges in candidates)

    def search(engine: FastEngine | None) -> Pruning:
        tests = None if engine is None else engine.port_tests(inside)

        def measure(port: Port, rows: Mask) -> NDArray[np.float64]:
            if tests is None:
                values = judge.values(rows)
            else:
                values = tests.measure(port, rows).double().cpu().numpy()
            means: NDArray[np.float64] = values.mean(axis=-1)
            return means

        # Where tests are requests by themselves, each has a bar of its own.
        show = judge.experiment._progress if tests is not None else False
        with progress_bar("acdc", n_edges, show) as advance:
            found = prune_by_tests(
                judge.masks,
                inside,
                candidates,
                measure,
                threshold,
                rises=rises,
                stop=stop,
                advance=advance,
            )
        found.layers_run = 0 if tests is None else tests.layers_run
        return found

    return judge.experiment._with_fast(judge.metric, search)


@dataclass
class Pruning:
    """The state of a pruning: which edges are in, and what was tested.

    Args:
        inside: ``[edge]``: 1 for what is not removed.
        steps: ``(edge, before, after, kept)`` of every test, in order.
        runs: Circuits that were run, void ones among them.
        layers_run: Layers that were run, over all circuits; 0 where that was not counted.
        left: Edges that were not decided, where the search was stopped.
    """

    inside: Mask
    steps: list[tuple[int, float, float, bool]] = field(default_factory=list)
    runs: int = 0
    layers_run: int = 0
    left: int = 0


def by_receiver(
    masks: EdgeMasks, inside: Mask, order: str | int
) -> Iterator[tuple[Port, Sequence[int]]]:
    """Yield every port from the logits backwards, with the numbers of its edges in test order.

    Raises:
        CircuitError: An unknown order.
    """
    seeded = isinstance(order, int | np.integer) and not isinstance(order, bool)
    named = isinstance(order, str) and order in ("reverse", "forward")
    if not named and not (seeded and int(order) >= 0):
        raise CircuitError(
            f"order must be 'reverse', 'forward' or the seed of a random order, got {order!r}"
        )
    generator = np.random.default_rng(int(order)) if seeded else None
    for port in reversed(masks.graph.ports):
        block = masks.index.block(port)
        numbers = list(range(block.start, block.stop))
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
    stop: Callable[[], bool] = lambda: False,
    advance: Callable[[int], None] = lambda _: None,
) -> Pruning:
    """Return what the sequential algorithm leaves, measured in batches.

    Args:
        masks: The edges, numbered.
        inside: Where it starts.
        candidates: Receivers, from the logits backwards, with their edges in test order.
        measure: The mean metric of circuits.
        threshold: See `acdc`.
        rises: Whether only a rise of the metric counts, or any move.
        stop: Asked before every batch whether to end here.
        advance: Told of how many edges have been decided.
    """
    state = Pruning(inside.copy())
    before = float(measure(candidates[0][0], state.inside[None])[0])
    state.runs += 1
    alive: set[Node] = {Logits()}
    n_rows, keeps = FEWEST_ROWS, 0.0

    def is_kept(value: float, after: float) -> bool:
        move = after - value if rises else abs(after - value)
        return not move < threshold

    for place, (port, edges) in enumerate(candidates):
        if port.node not in alive:
            state.inside[list(edges)] = False
            advance(len(edges))
            continue
        left, guesses = list(edges), dict[int, bool]()
        while left:
            if stop():
                decided = len(edges) - len(left) + sum(len(into) for _, into in candidates[:place])
                state.left = sum(len(into) for _, into in candidates) - decided
                return state
            batch = left[:n_rows]
            guessed = [guesses.get(edge, keeps > 0.5) for edge in batch]
            measured = measure(port, _rows(state.inside, batch, guessed)).tolist()
            state.runs += len(batch)
            right, value = 0, before
            for row, (edge, after) in enumerate(zip(batch, measured, strict=True)):
                kept = is_kept(value, after)
                if right == row:  # all guesses before held, so that this is the test
                    state.steps.append((edge, value, after, kept))
                    state.inside[edge] = kept
                    before = value if kept else after
                    keeps += (kept - keeps) / 8
                    right += kept == guessed[row]
                else:
                    guesses[edge] = kept
                value = value if guessed[row] else after
            n_tested = min(right + 1, len(batch))
            left = left[n_tested:]
            advance(n_tested)
            n_rows = MOST_ROWS if right == len(batch) else 2 * n_tested
            n_rows = min(max(n_rows, FEWEST_ROWS), MOST_ROWS)
        alive |= {masks.edges[edge].sender for edge in edges if state.inside[edge]}
    return state


def _rows(inside: Mask, batch: Sequence[int], guessed: Sequence[bool]) -> Mask:
    """Return the circuits of the next tests, if each edge is kept or removed as guessed."""
    rows = np.repeat(inside[None], len(batch), axis=0)
    for row, (edge, kept) in enumerate(zip(batch, guessed, strict=True)):
        rows[row : row + 1 if kept else None, edge] = False
    return rows


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
