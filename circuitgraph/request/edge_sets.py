"""Many sets of edges, each patched together: many circuits are one sweep, a row each.

How to ask::

    sets = cg.EdgeSets({"a": edges_of_a, "b": edges_of_b})  # the edges that are patched
    sets = cg.EdgeSets({"a": circuit_a.edges}, kept=True)  # all edges but these are
    sets = cg.EdgeSets.of_rows(kept, names=["a", "b"])  # kept[set, edge], 0 or 1
    effects = exp.patch(sets, variant="single-pass", mode="replace")  # effects.sel(set="a")

Rows number edges as ``graph.edge_index`` does: ``index.number(edge)``, ``index.edge(number)``,
``index.rows(sets)`` and ``index.block(port)``, the numbers of the edges into one port. Every edge
outside a circuit carries the source's value (``corrupt`` unless said otherwise), every kept edge
what its sender writes live. Effects have one dimension, ``set``.

What searches over circuits stand on is one door lower and takes rows as they are: ``circuits`` of
the fast engine on one experiment, ``FastEngine.circuits(source).measure(kept)``, gives the metric
``[row, value]`` as a tensor, with no plan and no labels.

Requests hold plain data: rows are kept packed, eight edges a byte, so that they compare by value.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from circuitgraph.errors import RequestError
from circuitgraph.nodes import Edge
from circuitgraph.request.requests import Request

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from circuitgraph.graph import EdgeIndex

__all__ = ["EdgeSets"]


@dataclass(frozen=True, slots=True, init=False)
class EdgeSets(Request):
    """Sets of edges, each patched together, one set after the other.

    Args:
        sets: Edges by the name of their set.
        kept: Whether these are the edges that stay live, all others being patched.

    Raises:
        RequestError: No sets, names that are no text, or something that is no edge.

    Example:
        >>> from circuitgraph.nodes import Head, Logits
        >>> sets = EdgeSets({"one": [Edge(Head(9, 9), Logits())], "none": []})
        >>> sets.names, str(sets)
        (('one', 'none'), '2 sets of edges patched (one, none)')
    """

    names: tuple[str, ...]
    kept: bool
    sets: tuple[frozenset[Edge], ...]
    packed: tuple[bytes, ...]
    n_edges: int

    def __init__(self, sets: Mapping[str, Iterable[Edge]], *, kept: bool = False) -> None:
        """Take sets of edges by name."""
        if not isinstance(sets, Mapping):
            raise RequestError(
                "sets of edges are given by name, {'a': edges}, got " + type(sets).__name__
            )
        for name, edges in sets.items():
            if isinstance(edges, str) or not isinstance(edges, Iterable):
                raise RequestError(f"the set {name!r} must be edges, got {edges!r:.60}")
        given = {name: list(edges) for name, edges in sets.items()}
        for edges in given.values():
            if wrong := [edge for edge in edges if not isinstance(edge, Edge)]:
                raise RequestError(f"a set of edges holds {wrong[0]!r}: write cg.Edge(...)")
        found = {name: frozenset(edges) for name, edges in given.items()}
        self._fill(tuple(found), kept, tuple(found.values()), (), 0)

    @classmethod
    def of_rows(cls, kept: "NDArray[np.bool_]", names: Sequence[str] | None = None) -> "EdgeSets":
        """Return the sets that rows of kept edges say.

        Args:
            kept: 1 where an edge stays live, 0 where it is patched, numbered as in
                ``graph.edge_index``.
            names: One per row; by default ``0``, ``1`` and so on.
        """
        import numpy as np

        rows = np.asarray(kept)
        if rows.ndim != 2 or not (rows.dtype == np.bool_ or np.isin(rows, (0, 1)).all()):
            raise RequestError(
                f"kept edges are rows [set, edge] of 0 and 1, got {rows.dtype} of shape "
                f"{rows.shape}"
            )
        called = tuple(map(str, range(len(rows))) if names is None else names)
        if len(called) != len(rows):
            raise RequestError(f"{len(rows)} rows of edges, but {len(called)} names")
        request = cls.__new__(cls)
        packed = tuple(row.tobytes() for row in np.packbits(rows.astype(np.bool_), axis=1))
        request._fill(called, True, (), packed, int(rows.shape[1]))
        return request

    def _fill(self, *values: Any) -> None:
        for name, value in zip(self.__slots__, values, strict=True):
            object.__setattr__(self, name, value)
        if not self.names:
            raise RequestError("no sets of edges to patch: there are none")
        if wrong := [name for name in self.names if not isinstance(name, str) or not name]:
            raise RequestError(f"the name of a set of edges is text, got {wrong[0]!r}")
        if len(set(self.names)) < len(self.names):
            twice = next(name for name in self.names if self.names.count(name) > 1)
            raise RequestError(f"two sets of edges are named {twice!r}")

    def kept_rows(self, index: "EdgeIndex") -> "NDArray[np.bool_]":
        """Return which edges each set keeps live, ``[set edge]``.

        Raises:
            RequestError: Rows of another graph.
            NodeError: An edge that is not in the graph.
        """
        import numpy as np

        if not self.packed:
            rows = index.rows(self.sets)
            return rows if self.kept else ~rows
        if self.n_edges != len(index):
            raise RequestError(
                f"these sets of edges are of another graph: rows of {self.n_edges} edges, the "
                f"model has {len(index)}"
            )
        packed = np.array([np.frombuffer(row, dtype=np.uint8) for row in self.packed])
        return np.unpackbits(packed, axis=1, count=self.n_edges).astype(np.bool_)

    def __str__(self) -> str:
        shown = ", ".join(self.names[:3]) + ", ..." * (len(self.names) > 3)
        many = f"{len(self.names)} set{'s' * (len(self.names) != 1)} of edges"
        return f"{many} {'kept' if self.kept else 'patched'} ({shown})"
