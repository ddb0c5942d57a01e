"""Circuits that differ from each other in what one port hears, as a search tests them.

A search that goes backwards tests edges into one port at a time. What comes before that port is the
same in every test of the whole search, so it is run once. What comes after it but cannot hear the
port's node is the same in every test of this port. What can hear it keeps the same edges in every
test, so all rows are one batch (see `circuitgraph.engines.fast.alike`).
"""

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.engines.fast.alike import AlikeRows, TestedPort
from circuitgraph.engines.fast.baseline import Baseline
from circuitgraph.engines.fast.kept import KeptEdges
from circuitgraph.engines.fast.memory import rows_that_fit
from circuitgraph.engines.fast.writes import distinct_rows
from circuitgraph.engines.splitting import in_stacks
from circuitgraph.nodes import Logits, Port

__all__ = ["PortTests"]

Truth = NDArray[np.bool_]


class PortTests:
    """Measures circuits that keep the same edges into all ports but one.

    Before that port they are the circuit that the search started from. Only for blocks that add
    what their parts write, heads apart from each other, and corrupt values outside the circuit.

    Args:
        baseline: The corrupt run.
        budget: What a stack of rows may take, in bytes.
        start: The edges of the circuit that the search starts from, ``[edge]``.
    """

    def __init__(self, baseline: Baseline, budget: int, start: Bool[np.ndarray, "edge"]) -> None:
        """Run nothing yet."""
        self._baseline = baseline
        self._budget = budget
        self._start = start
        self._last: _Suffix | None = None
        self.layers_run = 0

    def measure(self, port: Port, rows: Bool[np.ndarray, "row edge"]) -> Float[Tensor, "row value"]:
        """Return the metric of every circuit, per prompt.

        Args:
            port: Where the circuits differ from each other.
            rows: Their edges. All hold the same ones into other ports, and into earlier ports those
                that the search started from.
        """
        suffix = self._suffix(port, rows[0])
        heard = rows[:, suffix.block]

        def run(numbers: Sequence[int]) -> Tensor:
            with torch.no_grad():
                return suffix.measure(heard[np.array(numbers, dtype=np.intp)])

        numbers, most = range(len(rows)), rows_that_fit(self._budget, suffix.row_bytes)
        found = torch.cat([values for _, values in in_stacks(numbers, most, run)])
        self.layers_run += len(rows) * suffix.n_layers
        return found

    def _suffix(self, port: Port, row: Truth) -> "_Suffix":
        """Return what all tests of a port share; the last port's is kept."""
        index = self._baseline.state.setup.graph.edge_index
        block = index.block(port)
        same = self._start.copy()
        same[block.stop :] = row[block.stop :]
        assert np.array_equal(row[: block.start], same[: block.start])
        last = self._last
        if last is None or last.port != port or not np.array_equal(last.given, same):
            self._last = last = None  # its tensors go before others come
            with torch.no_grad():
                last = _Suffix(self._baseline, port, same, self._prefix)
            self._last = last
        return last

    @cached_property
    def _prefix(self) -> Float[Tensor, "writer prompt query d_model"]:
        """What each writer of the starting circuit writes live, less its patched value."""
        baseline = self._baseline
        state = baseline.state
        index = state.setup.graph.edge_index
        with torch.no_grad():
            kept = KeptEdges(index, self._start[None]).that_matter(unchanged=True)
            shape = (state.n_prompts, state.n_pos - baseline.start, state.final.shape[-1])
            found = torch.zeros(
                len(index.graph.writers), *shape, dtype=state.delta_dtype, device=state.final.device
            )
            found[0] = baseline.embed_change()
            nodes = kept.used[0].copy()
            nodes[0] = False
            AlikeRows(baseline, kept, found, nodes, 1).run().share()
        return found


class _Suffix:
    """What the tests of one port share: all but the nodes that can hear the port's node."""

    def __init__(self, baseline: Baseline, port: Port, given: Truth, prefix: Tensor) -> None:
        """Run the nodes behind the port that cannot hear it."""
        self._baseline = baseline
        self.port = port
        self.given = given
        index = baseline.state.setup.graph.edge_index
        self.block = index.block(port)
        self._kept = kept = KeptEdges(index, given[None]).that_matter(unchanged=True)
        before = np.arange(len(index.graph.writers)) < int(index.heard[index.port_places[port]])
        self._affected = affected = hearing(kept, port)
        others = kept.used[0] & ~before & ~affected
        self._shared = prefix
        if others.any():
            self._shared = prefix.clone()
            AlikeRows(baseline, kept, self._shared, others, 1).run().share()
        self.n_layers = sum(
            bool(affected[kept.heads_at(layer)].any() or affected[kept.mlp_at(layer) or 0])
            for layer in range(index.graph.shape.n_layers)
        )

    @property
    def row_bytes(self) -> int:
        """What a row takes at most: live writes, and the streams of the busiest layer."""
        state, kept = self._baseline.state, self._kept
        streams = 1
        for layer in range(len(state.blocks)):
            heads = self._affected[kept.heads_at(layer)]
            reads = kept.into_heads(layer)[0][heads]
            if heads.any():
                streams = max(streams, len(distinct_rows(reads.reshape(3 * len(reads), -1))[0]))
        n_tokens = state.n_prompts * (state.n_pos - self._baseline.start)
        width, size = int(state.final.shape[-1]), state.delta_dtype.itemsize
        n_heads = self._kept.index.graph.shape.n_heads
        scores = 4 * state.n_prompts * n_heads * state.n_pos**2
        return ((int(self._affected.sum()) + 4 * streams + 24) * n_tokens * width + scores) * size

    def measure(self, heard: Bool[np.ndarray, "row writer"]) -> Float[Tensor, "row value"]:
        """Return the metric where the port hears these writers."""
        run = (self._baseline, self._kept, self._shared, self._affected)
        if not self._affected.any() and not isinstance(self.port.node, Logits):
            # Nothing on the way to the logits hears the port.
            return AlikeRows(*run, 1).run().logits().expand(len(heard), -1)
        tested = TestedPort(self.port, heard & self._kept.rows[0, self.block])
        return AlikeRows(*run, len(heard), tested).run().logits()


def hearing(kept: KeptEdges, port: Port) -> Bool[np.ndarray, "writer"]:
    """Return a port's node and all that hear it, over the edges of one circuit."""
    index = kept.index
    found = np.zeros(len(index.graph.writers), dtype=np.bool_)
    if isinstance(port.node, Logits):
        return found
    found[index.writer_places[port.node]] = True
    for layer in range(index.graph.shape.n_layers):
        heads = kept.into_heads(layer)[0]
        found[kept.heads_at(layer)] |= (heads & found[: heads.shape[-1]]).any(axis=(1, 2))
        mlp = kept.mlp_at(layer)
        if mlp is not None:
            reads = kept.into_mlp(layer)[0]
            found[mlp] |= bool((reads & found[: len(reads)]).any())
    return found & kept.used[0]
