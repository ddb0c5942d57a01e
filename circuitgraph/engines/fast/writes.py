"""What ports of circuits read: the patched stream, with what kept edges bring put back in.

Where blocks add what their parts write, that is one product of the 0/1 matrix of kept edges and
what each sender's live write differs by from its patched one. Where a block norms what its heads
write together, what it adds is made anew for every set of its nodes that some port hears live.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.engines.fast.baseline import Baseline, added_by_block
from circuitgraph.engines.fast.kept import KeptEdges

__all__ = ["AddedWrites", "MixedWrites", "Writes", "distinct_rows"]

Patterns = Bool[np.ndarray, "stream writer"]
HeadValues = Float[Tensor, "head prompt query d_head"]
Streams = Float[Tensor, "stream prompt query d_model"]


class Writes(Protocol):
    """What the nodes of each row write live, as far as a kept edge reads it."""

    def saw_heads(
        self,
        row: int,
        layer: int,
        heads: NDArray[np.intp],
        z: Float[Tensor, "head prompt query d_head"],
    ) -> None:
        """Take note of some heads' values, less their patched values."""

    def saw_mlp(self, row: int, layer: int, write: Float[Tensor, "prompt query d_model"]) -> None:
        """Take note of what an MLP writes, less its patched value."""

    def read(self, row: int, point: int, patterns: Patterns, out: Streams) -> None:
        """Put into ``out`` what ports of a row read at a point.

        Args:
            row: Which row.
            point: The point of the residual stream.
            patterns: For each stream wanted, the writers whose live write is in it.
            out: Where the streams go.
        """


class AddedWrites:
    """For blocks that add what their parts write.

    Args:
        baseline: The patched stream.
        kept: The rows' kept edges, of which only writes that are read are held.
    """

    def __init__(self, baseline: Baseline, kept: KeptEdges) -> None:
        """Nothing has run yet but the embedding."""
        self._baseline = baseline
        self._kept = kept
        state = baseline.state
        shape = (state.n_prompts, state.n_pos - baseline.start, state.final.shape[-1])
        self._places = [np.flatnonzero(used) for used in kept.used]
        self._held = [
            torch.empty(len(places), *shape, dtype=state.delta_dtype, device=state.final.device)
            for places in self._places
        ]
        embed = baseline.embed_change()
        for places, held in zip(self._places, self._held, strict=True):
            if len(places) and places[0] == 0:
                held[0] = embed

    def saw_heads(
        self,
        row: int,
        layer: int,
        heads: NDArray[np.intp],
        z: Float[Tensor, "head prompt query d_head"],
    ) -> None:
        """Take note of some heads' values, less their patched values."""
        weight = self._baseline.state.blocks.output_weights[layer]
        at = np.searchsorted(self._places[row], self._kept.heads_at(layer).start + heads)
        if not len(at):
            return
        chosen = weight[torch.from_numpy(heads).to(weight.device)].to(z.dtype)
        # The heads of a layer stand together, so that their writes are made in their place.
        held = self._held[row][at[0] : at[-1] + 1].flatten(1, 2)
        torch.bmm(z.flatten(1, 2), chosen, out=held)

    def saw_mlp(self, row: int, layer: int, write: Float[Tensor, "prompt query d_model"]) -> None:
        """Take note of what an MLP writes, less its patched value."""
        place = self._kept.mlp_at(layer)
        assert place is not None
        self._held[row][np.searchsorted(self._places[row], place)] = write

    def read(self, row: int, point: int, patterns: Patterns, out: Streams) -> None:
        """Put into ``out`` what ports of a row read at a point."""
        places = self._places[row]
        places = places[places < patterns.shape[1]]
        held = self._held[row][: len(places)]
        picks = torch.from_numpy(patterns[:, places]).to(held)
        torch.mm(picks, held.flatten(1), out=out.flatten(1))
        out += self._baseline.stream(point)


class MixedWrites:
    """For blocks in which what a head adds depends on what its layer's other heads write.

    Args:
        baseline: The patched stream.
        kept: The rows' kept edges.
    """

    def __init__(self, baseline: Baseline, kept: KeptEdges) -> None:
        """Nothing has run yet."""
        self._baseline = baseline
        self._kept = kept
        self._z: dict[tuple[int, int], Tensor] = {}
        self._mlp: dict[tuple[int, int], Tensor] = {}

    def saw_heads(
        self,
        row: int,
        layer: int,
        heads: NDArray[np.intp],
        z: Float[Tensor, "head prompt query d_head"],
    ) -> None:
        """Take note of some heads' values, less their patched values."""
        n_heads = self._kept.index.graph.shape.n_heads
        whole = z.new_zeros(n_heads, *z.shape[1:])
        whole[torch.from_numpy(heads).to(z.device)] = z
        self._z[row, layer] = whole

    def saw_mlp(self, row: int, layer: int, write: Float[Tensor, "prompt query d_model"]) -> None:
        """Take note of what an MLP writes, less its patched value."""
        self._mlp[row, layer] = write

    def read(self, row: int, point: int, patterns: Patterns, out: Streams) -> None:
        """Put into ``out`` what ports of a row read at a point."""
        out[:] = self._baseline.stream(point)
        hears_embed = torch.from_numpy(patterns[:, :1].copy()).to(out)[..., None, None]
        out += hears_embed * self._baseline.embed_change()
        for layer in range((point + 1) // 2):
            heads, mlp = self._kept.heads_at(layer), self._kept.mlp_at(layer)
            places = np.arange(heads.start, heads.stop)
            in_the_middle = point == 2 * layer + 1
            if mlp is not None and not in_the_middle:
                places = np.append(places, mlp)
            chosen, which = distinct_rows(patterns[:, places])
            some = np.flatnonzero(chosen.any(axis=1))
            if len(some):
                added = self._added(row, layer, chosen[some], in_the_middle)
                for number, live in zip(some, added, strict=True):
                    out[torch.from_numpy(which == number).to(out.device)] += live

    def _added(
        self, row: int, layer: int, live: Bool[np.ndarray, "set node"], in_the_middle: bool
    ) -> Streams:
        """Return by how much what a block adds changes where some of its nodes are live."""
        baseline, state = self._baseline, self._baseline.state
        n_heads = self._kept.index.graph.shape.n_heads
        # The last set is empty, so that the difference is taken of two runs of one kind.
        picks = torch.from_numpy(np.vstack([live, np.zeros_like(live[:1])]))
        base = baseline.z(layer)
        z = base.expand(len(picks), *base.shape)
        if (row, layer) in self._z:
            change = self._z[row, layer]
            picked = picks[:, :n_heads].to(change)[..., None, None, None] * change
            z = (base + picked.permute(0, 2, 3, 1, 4).flatten(-2)).to(base.dtype)
        mlp: Tensor | None = None
        if state.blocks.has_mlp(layer):
            write = baseline.mlp(layer)
            mlp = write.expand(len(picks), *write.shape)
            if (row, layer) in self._mlp and picks.shape[1] > n_heads:
                change = self._mlp[row, layer]
                mlp = (write + picks[:, -1].to(change)[:, None, None, None] * change).to(
                    write.dtype
                )
        mid, out = added_by_block(state, layer, z, mlp)
        found = mid if in_the_middle else out
        return found[:-1] - found[-1]


def distinct_rows(rows: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return the distinct rows of a matrix in order of first sight, and which each row is.

    Example:
        >>> distinct_rows(np.array([[True, False], [False, False], [True, False]]))[1].tolist()
        [0, 1, 0]
    """
    places: dict[bytes, int] = {}
    packed = np.packbits(rows, axis=1)
    which = np.array(
        [places.setdefault(row.tobytes(), len(places)) for row in packed], dtype=np.intp
    )
    first: Sequence[int] = np.unique(which, return_index=True)[1].tolist()
    return rows[first], which
