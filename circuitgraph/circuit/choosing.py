"""Choosing edges by their weights, and groups by their names."""

from collections.abc import Collection, Iterable, Mapping

from circuitgraph.circuit.weights import Weight
from circuitgraph.errors import CircuitError
from circuitgraph.nodes import Edge, Node

__all__ = ["by_strength", "joined_groups", "weighted"]


def by_strength(known: Mapping[Edge, Weight], edges: Iterable[Edge]) -> list[Edge]:
    """Return edges, the largest weights first, either sign; those without weight last.

    Of equal weights the one earlier in the residual stream comes first.
    """
    return sorted(edges, key=lambda edge: (known[edge].value is None, -known[edge].size, edge))


def weighted(known: Mapping[Edge, Weight], edges: Iterable[Edge], asked: str) -> list[Edge]:
    """Return the edges, all of which must have a weight.

    Args:
        known: The weights.
        edges: The edges to choose among.
        asked: What needs the weights, for errors.

    Raises:
        CircuitError: Some have none.
    """
    found = list(edges)
    bare = sorted(edge for edge in found if known[edge].value is None)
    if bare:
        raise CircuitError(
            f"{asked} needs weights, and {len(bare)} of {len(found)} edges have none, the first "
            f"{str(bare[0])!r}: give them with Circuit.from_edges(shape, {{edge: weight}})"
        )
    return found


def joined_groups(
    first: Mapping[str, Collection[Node]], second: Mapping[str, Collection[Node]]
) -> dict[str, frozenset[Node]]:
    """Return the groups of both; a node that both name stays in the first one's group.

    Example:
        >>> from circuitgraph.nodes import Head
        >>> a, b = Head(9, 6), Head(9, 9)
        >>> joined_groups({"movers": {a}}, {"others": {a, b}}) == {"movers": {a}, "others": {b}}
        True
    """
    placed = {node for nodes in first.values() for node in nodes}
    groups = {name: set(nodes) for name, nodes in first.items()}
    for name, nodes in second.items():
        if fresh := set(nodes) - placed:
            groups.setdefault(name, set()).update(fresh)
    return {name: frozenset(nodes) for name, nodes in groups.items()}
