"""The search of the IOI paper: who writes into the logits, who feeds those, and so on.

Level by level from the logits (Wang et al. 2022, arXiv:2211.00593, and its published search): all
writers are patched, one at a time, into each port of what was found on the level before. What
stands out becomes the next level. Standing out is a size and a test; the test is corrected over
everything that was asked in the whole search, not within one sweep, and asked again at the end.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import circuitgraph
from circuitgraph.arguments import flag
from circuitgraph.circuit import Circuit, Weight
from circuitgraph.discover.search import Search
from circuitgraph.effects import Effects
from circuitgraph.effects.statistics import Measurement
from circuitgraph.errors import CircuitError, Problems
from circuitgraph.evaluation.judge import check_experiment
from circuitgraph.nodes import Edge, Embed, Logits, Node, Port, Writer, parse_node
from circuitgraph.request import Variant

if TYPE_CHECKING:
    from circuitgraph.experiment import Experiment

__all__ = ["Form", "backward"]

Form = Literal["downstream", "path"]

LEAST_SIZE = 0.01
"""Without a threshold, an effect must exceed its sweep's standard deviation, and this."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node that was found, the position it was found at, and how it reaches the logits.

    Args:
        node: The node.
        at: The named position; None where positions are not told apart.
        way: The ports from the node's own on, as a request writes them, down to ``logits``.
    """

    node: Node
    at: str | None = None
    way: tuple[str, ...] = ("logits",)


@dataclass(frozen=True, slots=True)
class Tested:
    """One edge that was asked about."""

    edge: Edge
    at: str | None
    receiver_at: str | None
    way: tuple[str, ...]
    before: float
    after: float
    effect: float
    p: float
    large: bool


def backward(
    experiment: "Experiment",
    threshold: float | None = None,
    *,
    significant: bool = True,
    positions: Sequence[str] | None = None,
    variant: Variant = "mlps",
    depth: int | None = None,
    form: Form = "downstream",
    alpha: float = 0.05,
) -> Search:
    """Search backwards from the logits for the edges whose patching stands out.

    Args:
        experiment: The model, prompts and metric.
        threshold: How large a normalised effect must be, either sign; by default more than the
            standard deviation over the sweep it is in, and at least 0.01.
        significant: Whether an effect must also stand out from zero (t test over prompts,
            Benjamini and Hochberg over all edges asked about in the search).
        positions: Names of positions to tell apart: queries are then asked about at the node's own
            position, keys and values at every one of these. By default all together.
        variant: What direct paths may pass through.
        depth: How many levels at most; all by default.
        form: ``"downstream"``: into each port, everything after it recomputed (``=>``). ``"path"``:
            along the whole path found so far and nothing else (``->`` all the way).
        alpha: The level of the test.

    Returns:
        The circuit of what stood out, with its effects as weights, and every question asked.

    Raises:
        CircuitError: A threshold or depth that makes no sense, or positions that have no name.

    Example:
        >>> found = cg.discover.backward(exp, 0.05, depth=3)  # doctest: +SKIP
        >>> found.circuit.draw()  # doctest: +SKIP
    """
    check_experiment(experiment)
    flag("significant", significant, CircuitError)
    _check(experiment, threshold, positions, depth, form, alpha)
    tested: list[Tested] = []
    sweeps = 0
    level = [Place(Logits(), _metric_position(experiment, positions))]
    seen: set[tuple[Node, str | None]] = {(Logits(), level[0].at)}
    n_levels = 0
    while level and (depth is None or n_levels < depth):
        n_levels += 1
        asked = []
        for place in level:
            for port, at in _ports(experiment, place, positions):
                effects = _ask(experiment, place, port, at, variant, form)
                sweeps += 1
                asked += _answers(effects, port, at, place, threshold)
        tested += asked
        chosen = _stands_out(tested, significant, alpha)[len(tested) - len(asked) :]
        level = []
        for one in (one for one, kept in zip(asked, chosen, strict=True) if kept):
            key = (one.edge.sender, one.at)
            if key not in seen and not isinstance(one.edge.sender, Embed):
                seen.add(key)
                level.append(Place(one.edge.sender, one.at, one.way))
    kept = _connected(tested, _stands_out(tested, significant, alpha))
    return _as_search(experiment, tested, kept, threshold, variant, form, n_levels, sweeps)


def _check(
    experiment: "Experiment",
    threshold: object,
    positions: Sequence[str] | None,
    depth: object,
    form: object,
    alpha: object,
) -> None:
    problems = Problems()
    real = isinstance(threshold, int | float | np.number) and not isinstance(threshold, bool)
    if threshold is not None and not (real and 0 <= threshold < math.inf):  # type: ignore[operator]
        problems.add(CircuitError(f"threshold must be a number of 0 or more, got {threshold!r}"))
    whole = isinstance(depth, int | np.integer) and not isinstance(depth, bool)
    if depth is not None and not (whole and depth >= 1):  # type: ignore[operator]
        problems.add(CircuitError(f"depth must be a whole number of 1 or more, got {depth!r}"))
    if not isinstance(form, str) or form not in get_args(Form):
        problems.add(CircuitError(f"form must be 'downstream' or 'path', got {form!r}"))
    if not isinstance(alpha, float) or not 0 < alpha < 1:
        problems.add(CircuitError(f"alpha lies between 0 and 1, such as 0.05, got {alpha!r}"))
    listed = positions is None or isinstance(positions, Sequence)
    if not listed or isinstance(positions, bytes):
        problems.add(CircuitError(f"positions is a list of names, got {positions!r}"))
        positions = None
    if isinstance(positions, str):
        problems.add(CircuitError(f"positions is a list of names, such as [{positions!r}]"))
    for name in () if isinstance(positions, str) else positions or ():
        if not isinstance(name, str) or name not in experiment.positions:
            known = ", ".join(experiment.positions)
            problems.add(CircuitError(f"no position named {name!r}: known are {known}"))
    problems.raise_if_any("cannot search")


def _metric_position(experiment: "Experiment", positions: Sequence[str] | None) -> str | None:
    """Return the name of the position that the metric reads, where positions are told apart."""
    read = experiment.metric_position
    if positions is None or read is None:
        return None
    names = [*positions, *experiment.positions]
    return next(
        (name for name in names if bool((experiment.positions[name].cpu() == read.cpu()).all())),
        None,
    )


def _ports(
    experiment: "Experiment", place: Place, positions: Sequence[str] | None
) -> Iterator[tuple[Port, str | None]]:
    """Yield every port of a node, each with the positions at which it is asked about."""
    for port in experiment.graph.ports_of(place.node):
        elsewhere = port.name in ("k", "v") and positions is not None
        for at in (positions or ()) if elsewhere else (place.at,):
            yield port, at


def _ask(
    experiment: "Experiment",
    place: Place,
    port: Port,
    at: str | None,
    variant: Variant,
    form: Form,
) -> Effects:
    """Return the effects of every writer into one port."""
    here = f"@{at}" if at is not None else ""
    if isinstance(place.node, Logits):
        return experiment.patch(f"node{here} -> logits", variant)
    end = "=> logits" if form == "downstream" else "-> " + " -> ".join(place.way)
    return experiment.patch(f"node{here} -> {port}{here} {end}", variant)


def _answers(
    effects: Effects, port: Port, at: str | None, place: Place, threshold: float | None
) -> list[Tested]:
    """Return what a sweep over all writers says of each that comes before the port."""
    values = effects.normalized().to_numpy().ravel()
    names = effects.names.to_numpy().ravel()
    p = effects.measure(Measurement(correction="none"), only=np.array([], dtype=np.intp)).p
    patched = effects.data["patched"].mean("prompt").to_numpy().ravel()
    clean = float(effects.data["clean"].mean())
    filled = np.flatnonzero(np.isfinite(values))
    least = threshold
    if least is None:
        least = max(LEAST_SIZE, float(values[filled].std())) if len(filled) else LEAST_SIZE
    here = f"@{at}" if at is not None else ""
    way = ("logits",) if isinstance(place.node, Logits) else (f"{port}{here}", *place.way)
    return [
        Tested(
            Edge(_writer(str(names[cell])), port),
            at,
            place.at,
            way,
            clean,
            float(patched[cell]),
            float(values[cell]),
            float(p[cell]),
            abs(float(values[cell])) >= least,
        )
        for cell in filled
    ]


def _writer(name: str) -> Writer:
    node = parse_node(name.partition("@")[0])
    assert not isinstance(node, Logits)
    return node


def _stands_out(tested: Sequence[Tested], significant: bool, alpha: float) -> NDArray[np.bool_]:
    """Return which edges stand out, by size and by a test corrected over all of them."""
    from statsmodels.stats.multitest import multipletests

    large = np.array([one.large for one in tested], dtype=bool)
    p = np.array([one.p for one in tested])
    if not significant or not len(p):
        return large
    sure = np.zeros(len(p), dtype=bool)
    there = ~np.isnan(p)
    if there.any():
        sure[there] = multipletests(p[there], alpha=alpha, method="fdr_bh")[0]
    return large & sure


def _connected(tested: Sequence[Tested], chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the chosen edges whose receiver was itself chosen, from the logits backwards."""
    kept = np.zeros(len(chosen), dtype=bool)
    reached: set[tuple[Node, str | None]] = set()
    for number, one in enumerate(tested):  # levels stand in order
        node = one.edge.receiver.node
        if chosen[number] and (isinstance(node, Logits) or (node, one.receiver_at) in reached):
            kept[number] = True
            reached.add((one.edge.sender, one.at))
    return kept


def _as_search(
    experiment: "Experiment",
    tested: Sequence[Tested],
    kept: NDArray[np.bool_],
    threshold: float | None,
    variant: Variant,
    form: Form,
    n_levels: int,
    sweeps: int,
) -> Search:
    strongest: dict[Edge, float] = {}
    for one in tested:
        if abs(one.effect) >= abs(strongest.get(one.edge, 0.0)):
            strongest[one.edge] = one.effect
    members = frozenset(one.edge for one, inside in zip(tested, kept, strict=True) if inside)
    cost = {"edges asked about": len(tested), "sweeps": sweeps, "levels": n_levels}
    attrs = {
        "found_by": "backward",
        "threshold": threshold,
        "variant": str(variant),
        "form": form,
        "metric": experiment.metric_name,
        "quantity": "effect",
        "helps": "negative",
        "prompts": experiment.fingerprint,
        "n_prompts": len(experiment.clean_metric),
        "version": circuitgraph.__version__,
        **{key.replace(" ", "_"): value for key, value in cost.items()},
    }
    steps = pd.DataFrame(
        {
            "edge": [str(one.edge) for one in tested],
            "position": [one.at or "" for one in tested],
            "before": [one.before for one in tested],
            "after": [one.after for one in tested],
            "effect": [one.effect for one in tested],
            "p": [one.p for one in tested],
            "kept": kept,
        }
    )
    known = {edge: Weight(effect) for edge, effect in strongest.items()}
    return Search(Circuit(experiment.graph.shape, known, members, {}, attrs), steps, cost)
