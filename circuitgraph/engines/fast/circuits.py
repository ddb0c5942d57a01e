"""Judging circuits: mode ``replace``, variant ``single-pass``, circuits as rows of kept edges.

Every edge outside a circuit carries its sender's patched value, every edge of it what its sender
writes live. Nearly all edges are patched, so nothing here looks at edges one by one: per layer and
kind of port there is a 0/1 matrix of kept edges, and what ports read is a product with it (see
`circuitgraph.engines.fast.writes`). Ports of a row that keep the same edges read one stream. A
head that no kept edge reads is not run, and one whose ports keep nothing writes what is known.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.engines.fast.attend import Override, attend
from circuitgraph.engines.fast.baseline import Baseline, added_by_block
from circuitgraph.engines.fast.kept import KeptEdges
from circuitgraph.engines.fast.measure import everywhere
from circuitgraph.engines.fast.readout import measure_rows
from circuitgraph.engines.fast.state import State
from circuitgraph.engines.fast.writes import AddedWrites, MixedWrites, Writes, distinct_rows
from circuitgraph.engines.splitting import in_stacks
from circuitgraph.lens.traits import close
from circuitgraph.nodes import MLP, Head, Logits, Port, PortName
from circuitgraph.plan import Source

__all__ = ["Circuits", "cannot_judge"]

NAMES: tuple[PortName, ...] = ("q", "k", "v")


def cannot_judge(state: State) -> str:
    """Return why circuits cannot be judged by replay on this model; empty where they can.

    What a block adds must follow from what its nodes write alone. That is tried out on the clean
    and on the corrupt run, unless blocks are known to add what their parts write.
    """
    if state.sites:
        return "mode 'replace' with a metric of an activation"
    if state.traits.additive:
        return ""
    for recording in (state.clean, state.corrupt):
        for number, layer in enumerate(recording.layers):
            after = (*recording.layers[1:], None)[number]
            end = recording.final if after is None else after.resid
            assert layer.z is not None
            assert end is not None
            mlp = None if layer.mlp is None else layer.mlp[None]
            with torch.no_grad():
                _, out = added_by_block(state, number, layer.z[None], mlp)
            if not close(layer.resid + out[0].to(layer.resid.dtype), end):
                return "mode 'replace' on blocks in which what is added depends on the stream"
    return ""


class Circuits:
    """Measures circuits, given as rows of kept edges.

    Args:
        state: The experiment.
        source: Where the values of edges outside a circuit come from.
        budget: What a stack of rows may take, in bytes.
        patched: With values of one's own, which writers have one, ``[writer]``; None for all. The
            others must be kept wherever they are heard.
    """

    def __init__(
        self,
        state: State,
        source: Source = "corrupt",
        *,
        budget: int,
        patched: NDArray[np.bool_] | None = None,
    ) -> None:
        """Prepare to measure; nothing is run yet."""
        self.state = state
        self.index = state.setup.graph.edge_index
        self._budget = budget
        every = np.ones(len(self.index.graph.writers), dtype=np.bool_)
        trimmed = state.traits.sliceable and source == "corrupt"
        self.baseline = Baseline(
            state,
            source,
            patched if source == "given" and patched is not None else every,
            state.first_difference if trimmed else 0,
        )

    def measure(self, kept: Bool[np.ndarray, "row edge"]) -> Float[Tensor, "row value"]:
        """Return the metric of every circuit, per prompt.

        Args:
            kept: Which edges each circuit keeps, numbered as in ``graph.edge_index``.
        """
        found: list[Tensor] = [torch.empty(0)] * len(kept)
        for numbers, values in self.stacks(kept):
            for number, value in zip(numbers, values, strict=True):
                found[number] = value
        return torch.stack(found)

    def stacks(
        self, kept: Bool[np.ndarray, "row edge"]
    ) -> Iterator[tuple[Sequence[int], Float[Tensor, "row value"]]]:
        """Yield numbers of rows with their metric, as they come: as `measure`, in no order."""
        whole = KeptEdges(self.index, np.asarray(kept, dtype=np.bool_))
        # What keeps everything is the clean run itself, without the rounding of a sum.
        everything = whole.rows.all(axis=1)
        if everything.any():
            numbers = np.flatnonzero(everything).tolist()
            yield numbers, self._clean().expand(len(numbers), -1)
        whole = whole.that_matter(unchanged=self.baseline.replays)

        def run(numbers: Sequence[int]) -> Tensor:
            with torch.no_grad():
                return _Rows(self.baseline, whole.part(np.array(numbers, dtype=np.intp))).run()

        for stack in self._stacks(whole, np.flatnonzero(~everything)):
            yield from in_stacks(stack, len(stack), run)

    def _clean(self) -> Float[Tensor, "1 value"]:
        """Return the metric of the clean run."""
        state = self.state
        n_read = state.n_pos if state.setup.metric.read is None else 1
        shape = (1, state.n_prompts, n_read, state.final.shape[-1])
        nothing = torch.zeros(shape, dtype=state.delta_dtype, device=state.final.device)
        with torch.no_grad():
            return measure_rows(state, nothing)

    def _stacks(self, kept: KeptEdges, rows: NDArray[np.intp]) -> Iterator[Sequence[int]]:
        """Yield numbers of rows that fit into memory together; those of one size together."""
        sizes = self.bytes_of(kept)
        stack: list[int] = []
        held = 0
        for number in rows[np.argsort(sizes[rows], kind="stable")].tolist():
            if stack and held + sizes[number] > self._budget:
                yield stack
                stack, held = [], 0
            stack.append(number)
            held += int(sizes[number])
        if stack:
            yield stack

    def bytes_of(self, kept: KeptEdges) -> NDArray[np.int64]:
        """Return what each row takes: its live writes, and the streams of the busiest layer."""
        state = self.state
        n_tokens = state.n_prompts * (state.n_pos - self.baseline.start)
        streams = np.ones(len(kept.rows), dtype=np.int64)
        for layer in range(len(state.blocks)):
            streams = np.maximum(streams, kept.into_heads(layer).any(axis=-1).sum(axis=(1, 2)))
        n_heads = self.index.graph.shape.n_heads
        scores = 4 * state.n_prompts * n_heads * state.n_pos**2
        width = int(state.final.shape[-1])
        writes = kept.used.sum(axis=1).astype(np.int64)
        found = (writes + 4 * streams + 24) * n_tokens * width + scores
        sizes: NDArray[np.int64] = found * state.delta_dtype.itemsize
        return sizes


class _Rows:
    """A stack of circuits while it is run, layer by layer."""

    def __init__(self, baseline: Baseline, kept: KeptEdges) -> None:
        self.baseline = baseline
        self.state = baseline.state
        self.kept = kept
        make = AddedWrites if self.state.traits.additive else MixedWrites
        self.writes: Writes = make(baseline, kept)
        self.window = slice(baseline.start, None)

    def run(self) -> Float[Tensor, "row value"]:
        for layer in range(len(self.state.blocks)):
            self.heads(layer)
            if self.state.blocks.has_mlp(layer):
                self.mlp(layer)
        return self.logits()

    # -- heads ----------------------------------------------------------------------------------

    def heads(self, layer: int) -> None:
        """Run the heads of a layer that a kept edge reads."""
        used = self.kept.used[:, self.kept.heads_at(layer)]
        rows = np.flatnonzero(used.any(axis=1))
        if not len(rows):
            return
        n_heads = used.shape[1]
        baseline, state = self.baseline, self.state
        patched = state.blocks.split(baseline.z(layer)).to(state.delta_dtype)
        live = state.blocks.split(self.values(layer, used, rows)).to(state.delta_dtype)
        for at, row in enumerate(rows.tolist()):
            heads = np.flatnonzero(used[row])
            chosen: slice | Tensor = slice(None)
            if len(heads) < n_heads:
                chosen = torch.from_numpy(heads).to(live.device)
            change = live[at][:, :, chosen] - patched[:, :, chosen]
            self.writes.saw_heads(row, layer, heads, change.permute(2, 0, 1, 3))

    def values(
        self, layer: int, used: Bool[np.ndarray, "row head"], rows: NDArray[np.intp]
    ) -> Float[Tensor, "chosen prompt query width"]:
        """Return the heads' values of some rows; of heads that are not used, anything."""
        state, into = self.state, self.kept.into_heads(layer)
        overrides: list[Override] = []
        wanted: list[tuple[int, NDArray[np.bool_]]] = []
        n_streams = 1  # the first is the baseline's
        for at, row in enumerate(rows.tolist()):
            reads = into[row]
            live = np.flatnonzero(used[row] & reads.any(axis=(1, 2)))
            if not len(live):
                continue
            patterns, which = distinct_rows(reads[live].reshape(3 * len(live), -1))
            filled = patterns.any(axis=1)
            places = np.where(filled, n_streams + np.cumsum(filled) - 1, 0)
            n_streams += int(filled.sum())
            wanted.append((row, patterns[filled]))
            for number, place in enumerate(places[which].tolist()):
                port = Port(Head(layer, int(live[number // 3])), NAMES[number % 3])
                overrides.append(Override(at, port, place))
        known = self.baseline.live_z(layer)
        if not overrides:
            return known.expand(len(rows), *known.shape)
        streams = self.streams(2 * layer, n_streams, wanted)
        start = self.baseline.start
        found = attend(state, layer, None, overrides, streams, len(rows), start)
        if self.baseline.replays:  # all that are used were run
            return found
        ran = np.zeros((len(rows), used.shape[1]), dtype=np.bool_)
        for one in overrides:
            ran[one.row, one.head] = True
        mask = torch.from_numpy(ran).to(found.device)[:, None, None, :, None]
        split = state.blocks.split
        return torch.where(mask, split(found), split(known)).flatten(-2)

    def streams(
        self, point: int, n_streams: int, wanted: Sequence[tuple[int, NDArray[np.bool_]]]
    ) -> Float[Tensor, "stream prompt query d_model"]:
        """Return what ports read at a point: first the baseline's stream, then theirs."""
        base, wide = self.baseline.stream(point), self.state.delta_dtype
        found = torch.empty(n_streams, *base.shape, dtype=wide, device=base.device)
        found[0] = base
        at = 1
        for row, patterns in wanted:
            self.writes.read(row, point, patterns, found[at : at + len(patterns)])
            at += len(patterns)
        return found

    # -- MLPs and logits ------------------------------------------------------------------------

    def mlp(self, layer: int) -> None:
        """Run a layer's MLP where a kept edge reads it."""
        place, state, baseline = self.kept.mlp_at(layer), self.state, self.baseline
        into = self.kept.into_mlp(layer)
        used = self.kept.used[:, place]
        rows = np.flatnonzero(used & into.any(axis=1)).tolist()
        patched = baseline.mlp(layer).to(state.delta_dtype)
        point = state.point(MLP(layer).port)
        for row in np.flatnonzero(used & ~into.any(axis=1)).tolist():
            self.writes.saw_mlp(row, layer, baseline.live_mlp(layer).to(patched.dtype) - patched)
        for row in rows:
            reads = self.streams(point, 2, [(row, into[[row]])])[1]
            made = state.mlp_output(layer, reads.to(state.final.dtype))
            self.writes.saw_mlp(row, layer, made.to(patched.dtype) - patched)

    def logits(self) -> Float[Tensor, "row value"]:
        """Measure what arrives at the logits."""
        state, start = self.state, self.baseline.start
        point = state.point(Logits().port)
        read = state.setup.metric.read
        clean, found = state.final[:, start:], []
        for row, pattern in enumerate(self.kept.into_logits):
            final = self.streams(point, 2, [(row, pattern[None])])[1].sub_(clean)
            if read is None:
                found.append(everywhere(final[None], start)[0])
                continue
            at = (read - start).clamp_min(0)
            picked = final[state.rows[:, 0], at][:, None]
            # A metric that reads a position before the first changed one reads the clean run.
            found.append(picked * (read >= start)[:, None, None])
        return measure_rows(state, torch.stack(found))
