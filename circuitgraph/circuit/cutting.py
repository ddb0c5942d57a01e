"""Cutting: from the scores of all edges to a circuit of so many."""

import heapq
import warnings
from typing import Literal, assert_never, get_args

import numpy as np
from numpy.typing import NDArray

from circuitgraph.circuit.circuit import Circuit
from circuitgraph.circuit.scores import EdgeScores, Sign, scores_of
from circuitgraph.circuit.weights import Weight
from circuitgraph.effects import Effects
from circuitgraph.errors import CircuitError, Problems
from circuitgraph.nodes import Embed, Logits

__all__ = ["CutWarning", "How", "check_cut", "chosen", "cut"]

How = Literal["top", "greedy", "ilp"]


class CutWarning(UserWarning):
    """Fewer edges than were asked for can be had."""


def cut(
    effects: Effects | Circuit,
    n_edges: int,
    how: How = "top",
    sign: Sign = "absolute",
) -> Circuit:
    """Return the circuit of the ``n_edges`` edges that scores speak for.

    The circuit knows all scored edges with their weights, so it can be cut again. Runs no model.

    Args:
        effects: Effects of a sweep over edges (measured or estimated), or a circuit that knows a
            weight for every edge, such as one read from a file of the MIB benchmark.
        n_edges: How many edges.
        how: ``"top"``: the strongest edges. ``"greedy"``: from the logits backwards, always the
            strongest edge into a node that is already in. ``"ilp"``: the edges of largest total
            strength such that each lies on a way from the embedding to the logits (an integer
            linear program).
        sign: ``"absolute"`` ranks by size; ``"signed"`` by importance, edges first whose patching
            lowers the metric.

    Returns:
        The circuit. Of equal scores the edge earlier in the residual stream comes first. Where
        fewer edges can be had (greedy, ilp: only those that lead to the logits) it holds all of
        them, with a `CutWarning`.

    Raises:
        CircuitError: A number or a word that is not allowed, or scores that name no single edges.

    Example:
        >>> from circuitgraph import Circuit, ModelShape
        >>> shape = ModelShape(n_layers=2, n_heads=1)
        >>> scored = Circuit.from_edges(
        ...     shape, {"embed -> 0.0.v": -0.1, "0.0 -> logits": -0.2, "embed -> 1.0.q": -0.9}
        ... )
        >>> [str(edge) for edge in cut(scored, 2)]
        ['embed -> 1.0.q', '0.0 -> logits']
        >>> [str(edge) for edge in cut(scored, 2, how="greedy")]
        ['embed -> 0.0.v', '0.0 -> logits']
    """
    check_cut(n_edges, how, sign)
    scores = scores_of(effects)
    picked = chosen(scores, scores.strength(sign), int(n_edges), how)
    if len(picked) < n_edges:
        warnings.warn(
            f"{n_edges} edges were asked for, but only {len(picked)} "
            + {"top": "are scored", "greedy": "lead to the logits"}.get(
                how, "are on a way from the embedding to the logits"
            )
            + ": the circuit has all of them",
            CutWarning,
            stacklevel=2,
        )
    members = frozenset(scores.edges[at] for at in picked)
    if isinstance(effects, Circuit):
        known, groups = dict(effects.known), effects.groups
    else:
        values = -scores.importance
        known = {
            edge: Weight(value) for edge, value in zip(scores.edges, values.tolist(), strict=True)
        }
        groups = {}
    attrs = {**scores.attrs, "found_by": "cut", "how": how, "sign": sign, "n_edges": int(n_edges)}
    return Circuit(scores.shape, known, members, groups, attrs)


def chosen(
    scores: EdgeScores, strength: NDArray[np.float64], n_edges: int, how: How
) -> NDArray[np.intp]:
    """Return the numbers of the chosen edges, sorted.

    Args:
        scores: The edges.
        strength: What they are ranked by, ``[edge]``; need not be the scores' own.
        n_edges: How many.
        how: The rule.
    """
    match how:
        case "top":
            picked = np.argsort(-strength, kind="stable")[:n_edges]
        case "greedy":
            picked = _greedy(scores, strength, n_edges)
        case "ilp":
            picked = _ilp(scores, strength, n_edges)
        case _:
            assert_never(how)
    return np.sort(picked)


def check_cut(n_edges: object, how: object, sign: object) -> None:
    """Raise where the settings of a cut are not allowed.

    Raises:
        CircuitError: All that is wrong.
    """
    problems = Problems()
    if isinstance(n_edges, bool) or not isinstance(n_edges, int | np.integer) or n_edges < 0:
        problems.add(CircuitError(f"n_edges must be a whole number of 0 or more, got {n_edges!r}"))
    for name, value, allowed in (("how", how, How), ("sign", sign, Sign)):
        if not isinstance(value, str) or value not in get_args(allowed):
            choices = ", ".join(map(repr, get_args(allowed)))
            problems.add(CircuitError(f"{name} must be one of {choices}, got {value!r}"))
    problems.raise_if_any("cannot cut")


def _greedy(scores: EdgeScores, strength: NDArray[np.float64], n_edges: int) -> NDArray[np.intp]:
    """Return edges from the logits backwards, always the strongest into a node that is in."""
    senders, receivers = scores.ends
    into: dict[int, list[int]] = {}
    for edge, receiver in enumerate(receivers.tolist()):
        into.setdefault(receiver, []).append(edge)
    number = {node: at for at, node in enumerate(scores.nodes)}
    queue: list[tuple[float, int]] = []
    entered: set[int] = set()

    def enter(node: int) -> None:
        entered.add(node)
        for edge in into.get(node, ()):
            heapq.heappush(queue, (-float(strength[edge]), edge))

    if Logits() in number:
        enter(number[Logits()])
    picked: list[int] = []
    while queue and len(picked) < n_edges:
        _, edge = heapq.heappop(queue)
        picked.append(edge)
        sender = int(senders[edge])
        if sender not in entered:
            enter(sender)
    return np.array(picked, dtype=np.intp)


def _ilp(scores: EdgeScores, strength: NDArray[np.float64], n_edges: int) -> NDArray[np.intp]:
    """Return the edges of largest total strength, each on a way from embedding to logits.

    A variable for each edge and node. An edge needs both its nodes; a node other than the embedding
    needs an edge into it, one other than the logits an edge out of it. In a graph without loops
    that is what being on a way means.
    """
    from scipy import optimize, sparse

    usable = _on_a_way(scores)
    if len(usable) <= n_edges:
        return usable
    if n_edges == 0:
        return usable[:0]
    senders, receivers = (ends[usable] for ends in scores.ends)
    n_usable, n_nodes = len(usable), len(scores.nodes)
    edges = np.arange(n_usable)
    ones = np.ones(n_usable)
    size = (n_usable, n_nodes)
    out_of = sparse.csr_matrix((ones, (edges, senders)), shape=size)
    into = sparse.csr_matrix((ones, (edges, receivers)), shape=size)
    every_edge = sparse.identity(n_usable, format="csr")
    every_node = sparse.identity(n_nodes, format="csr")
    begins = np.array([isinstance(node, Embed) for node in scores.nodes])
    ends = np.array([isinstance(node, Logits) for node in scores.nodes])
    rows = sparse.vstack(
        [
            sparse.hstack([every_edge, -out_of]),
            sparse.hstack([every_edge, -into]),
            sparse.hstack([-into.T, every_node]).tocsr()[~begins],
            sparse.hstack([-out_of.T, every_node]).tocsr()[~ends],
        ]
    ).tocsr()
    total = sparse.csr_matrix(np.concatenate([ones, np.zeros(n_nodes)])[None])
    # Scores of any size: the solver's tolerances are absolute.
    scale = float(np.abs(strength[usable]).max()) or 1.0
    found = optimize.milp(
        c=np.concatenate([-strength[usable] / scale, np.zeros(n_nodes)]),
        constraints=[
            optimize.LinearConstraint(rows, -np.inf, 0.0),
            optimize.LinearConstraint(total, n_edges, n_edges),
        ],
        integrality=np.ones(n_usable + n_nodes),
        bounds=optimize.Bounds(0, 1),
        options={"mip_rel_gap": 1e-6},
    )
    if found.x is None:
        raise CircuitError(
            f"no circuit of exactly {n_edges} edges leads from the embedding to the logits "
            f"({found.message}): ask for more edges"
        )
    picked: NDArray[np.intp] = usable[found.x[:n_usable] > 0.5]
    return picked


def _on_a_way(scores: EdgeScores) -> NDArray[np.intp]:
    """Return the edges that lie on some way from the embedding to the logits."""
    senders, receivers = scores.ends
    reached = np.array([isinstance(node, Embed) for node in scores.nodes])
    leads = np.array([isinstance(node, Logits) for node in scores.nodes])
    for marked, start, end in ((reached, senders, receivers), (leads, receivers, senders)):
        before = -1
        while before < (before := int(marked.sum())):
            marked[end[marked[start]]] = True
    return np.flatnonzero(reached[senders] & leads[receivers])
