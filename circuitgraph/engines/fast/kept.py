"""Rows of kept edges as the matrices that each layer's ports read by. Plain numpy."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool
from numpy.typing import NDArray

from circuitgraph.graph import EdgeIndex
from circuitgraph.nodes import MLP, Head, Logits
from circuitgraph.plan import Cell, FromSource, Plan, ReplaceSenders, SetCells

__all__ = ["KeptEdges", "kept_by_plan"]

Truth = NDArray[np.bool_]


def kept_by_plan(plan: Plan) -> Truth | None:
    """Return which edges each cell of a plan keeps, ``[cell edge]``.

    None where that does not say it all: another mode, positions, paths that pass through nodes, or
    values from an earlier run.
    """
    if plan.mode != "replace":
        return None
    index = plan.graph.edge_index
    if isinstance(plan.cells, SetCells):
        return plan.cells.kept
    rows = np.ones((len(plan.cells), len(index)), dtype=np.bool_)
    for row, cell in zip(rows, plan.cells, strict=True):
        for op in _replaced(cell):
            if op is None or op.at is not None or op.through:
                return None
            senders = [sender.node for sender in op.senders]
            if any(s.at is not None or not isinstance(s.value, FromSource) for s in op.senders):
                return None
            start = index.block(op.port).start
            row[[start + index.writer_places[node] for node in senders]] = False
    return rows


def _replaced(cell: Cell) -> list[ReplaceSenders | None]:
    """Return the ports that a cell patches; None for whatever else it does."""
    (run,) = cell.runs[-1:]
    ops = [op if isinstance(op, ReplaceSenders) else None for op in run.ops[:-1]]
    return ops if len(cell.runs) == 1 else [None]


@dataclass(frozen=True)
class KeptEdges:
    """Circuits as rows: which edges carry what their sender writes live.

    Args:
        index: The numbers of the edges.
        rows: One row per circuit, ``[row edge]``.
    """

    index: EdgeIndex
    rows: Bool[np.ndarray, "row edge"]

    def part(self, rows: NDArray[np.intp]) -> "KeptEdges":
        """Return some of the rows."""
        return KeptEdges(self.index, self.rows[rows])

    # -- which port reads which writers: views of the rows --------------------------------------

    def into_heads(self, layer: int) -> Bool[np.ndarray, "row head 3 writer"]:
        """Return what the queries, keys and values of each head of a layer read."""
        n_heads = self.index.graph.shape.n_heads
        first, last = (
            self.index.block(port) for port in (Head(layer, 0).q, Head(layer, n_heads - 1).v)
        )
        block: Truth = self.rows[:, first.start : last.stop]
        return block.reshape(len(self.rows), n_heads, 3, -1)

    def into_mlp(self, layer: int) -> Bool[np.ndarray, "row writer"]:
        """Return what a layer's MLP reads."""
        return self.rows[:, self.index.block(MLP(layer))]

    @property
    def into_logits(self) -> Bool[np.ndarray, "row writer"]:
        """What the logits read."""
        return self.rows[:, self.index.block(Logits())]

    def heads_at(self, layer: int) -> slice:
        """Return the places of a layer's heads among all writers."""
        first = self.index.writer_places[Head(layer, 0)]
        return slice(first, first + self.index.graph.shape.n_heads)

    def mlp_at(self, layer: int) -> int | None:
        """Return the place of a layer's MLP among all writers, where it has one."""
        return self.index.writer_places.get(MLP(layer))

    # -- what matters ---------------------------------------------------------------------------

    @cached_property
    def used(self) -> Bool[np.ndarray, "row writer"]:
        """Which writers a kept edge reads."""
        used: Truth = self.into_logits.copy()
        for layer in range(self.index.graph.shape.n_layers):
            heads = self.into_heads(layer).any(axis=(1, 2))
            used[:, : heads.shape[1]] |= heads
            if self.mlp_at(layer) is not None:
                mlp = self.into_mlp(layer)
                used[:, : mlp.shape[1]] |= mlp
        return used

    def that_matter(self, *, unchanged: bool) -> "KeptEdges":
        """Return the same circuits without the edges that cannot change what they compute.

        Args:
            unchanged: Whether a node that reads nothing live writes its patched value, as it does
                where that is the corrupt run's: then what it sends matters as little as what
                nothing on the way to the logits hears.
        """
        kept = KeptEdges(self.index, self.rows.copy())
        layers = range(self.index.graph.shape.n_layers)
        needed = kept.into_logits.copy()
        for layer in reversed(layers):
            mlp = kept.mlp_at(layer)
            if mlp is not None:
                reads = kept.into_mlp(layer)
                reads[~needed[:, mlp]] = False
                needed[:, : reads.shape[1]] |= reads
            heads = kept.into_heads(layer)
            heads[~needed[:, kept.heads_at(layer)]] = False
            needed[:, : heads.shape[-1]] |= heads.any(axis=(1, 2))
        if not unchanged:
            return kept
        live = np.zeros_like(needed)
        live[:, 0] = True  # the embedding
        for layer in layers:
            heads = kept.into_heads(layer)
            heads &= live[:, None, None, : heads.shape[-1]]
            live[:, kept.heads_at(layer)] = heads.any(axis=(2, 3))
            mlp = kept.mlp_at(layer)
            if mlp is not None:
                reads = kept.into_mlp(layer)
                reads &= live[:, : reads.shape[1]]
                live[:, mlp] = reads.any(axis=1)
        logits = kept.into_logits
        logits &= live
        return kept
