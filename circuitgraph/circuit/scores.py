"""How important each edge is, as arrays: what every way of cutting reads.

Importance is the negative of an effect: positive where patching the edge lowers the metric, so
where the edge helps. A circuit that knows weights says itself which sign helps
(``attrs["helps"]``); MIB's files carry importances.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from circuitgraph.circuit.circuit import Circuit
from circuitgraph.circuit.from_effects import scored_edges
from circuitgraph.effects import Effects
from circuitgraph.errors import CircuitError
from circuitgraph.graph import ModelShape
from circuitgraph.nodes import Edge, Node

__all__ = ["EdgeScores", "Sign", "scores_of"]

Sign = Literal["absolute", "signed"]


@dataclass(frozen=True, eq=False)
class EdgeScores:
    """Edges and their importance, in the order of the residual stream.

    Args:
        shape: The model's shape.
        edges: The edges, sorted.
        importance: ``[edge]``; positive where the edge helps.
        attrs: Where the scores come from.
    """

    shape: ModelShape
    edges: Sequence[Edge]
    importance: NDArray[np.float64]
    attrs: dict[str, Any]

    def strength(self, sign: Sign) -> NDArray[np.float64]:
        """Return what edges are ranked by, ``[edge]``: importance, or its size."""
        return self.importance if sign == "signed" else np.abs(self.importance)

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """All nodes at the edges' ends, sorted."""
        ends: set[Node] = {edge.sender for edge in self.edges}
        return tuple(sorted(ends | {edge.receiver.node for edge in self.edges}))

    @cached_property
    def ends(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The numbers of each edge's sending and receiving node among `nodes`, ``[edge]`` each."""
        number = {node: at for at, node in enumerate(self.nodes)}
        senders = [number[edge.sender] for edge in self.edges]
        receivers = [number[edge.receiver.node] for edge in self.edges]
        return np.array(senders, dtype=np.intp), np.array(receivers, dtype=np.intp)


def scores_of(source: Effects | Circuit) -> EdgeScores:
    """Return the scores of all edges that effects measured, or that a circuit knows.

    Raises:
        CircuitError: Effects that patch no single edges, or edges without a weight.
    """
    if isinstance(source, Effects):
        shape, found = scored_edges(source)
        attrs = {"quantity": "effect", "helps": "negative", **source.attrs}
        if "estimate" in attrs:  # a circuit's says by what
            attrs["estimate"] = str(attrs.get("engine", "a gradient"))
        return _sorted(shape, list(found), -np.array(list(found.values())), attrs)
    if isinstance(source, Circuit):
        bare = [edge for edge, weight in source.known.items() if weight.value is None]
        if bare:
            raise CircuitError(
                f"cutting needs a weight for every edge, and {len(bare)} of {len(source.known)} "
                f"have none, the first {str(min(bare))!r}"
            )
        sign = 1.0 if source.attrs.get("helps", _helps(source)) == "positive" else -1.0
        weights = np.array([weight.value for weight in source.known.values()], dtype=np.float64)
        return _sorted(source.shape, list(source.known), sign * weights, dict(source.attrs))
    raise CircuitError(
        f"scores come from Effects of a sweep over edges or from a Circuit that knows weights, got "
        f"{type(source).__name__}"
    )


def _helps(circuit: Circuit) -> str:
    """Return which sign helps where a circuit does not say: MIB's scores are importances."""
    return "positive" if "mib" in circuit.attrs else "negative"


def _sorted(
    shape: ModelShape, edges: list[Edge], importance: NDArray[np.float64], attrs: dict[str, Any]
) -> EdgeScores:
    order = sorted(range(len(edges)), key=edges.__getitem__)
    return EdgeScores(shape, [edges[at] for at in order], importance[order], attrs)
