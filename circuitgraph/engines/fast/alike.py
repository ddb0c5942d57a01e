"""Rows that keep the same edges everywhere but at one port, run layer by layer as one batch.

What ports read is a sum of what is the same in every row, made once, and of what differs: each
distinct set of kept edges is one product for all rows. Nothing here loops over rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.engines.fast.attend import clean_prefix
from circuitgraph.engines.fast.baseline import Baseline
from circuitgraph.engines.fast.kept import KeptEdges
from circuitgraph.engines.fast.measure import everywhere
from circuitgraph.engines.fast.readout import measure_rows
from circuitgraph.engines.fast.writes import distinct_rows
from circuitgraph.lens.calls import adapt_call
from circuitgraph.nodes import MLP, Head, Logits, Port

__all__ = ["AlikeRows", "TestedPort"]

Truth = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class TestedPort:
    """The port that rows differ in.

    Args:
        port: The port.
        hears: Which writers it hears live, in each row.
    """

    port: Port
    hears: Bool[np.ndarray, "row writer"]


class AlikeRows:
    """A stack of rows while some of the nodes are run, layer by layer.

    Args:
        baseline: The corrupt run.
        kept: One row: the edges of all rows, but for those into the port that is tested.
        shared: What writers write live less their patched value, the same in every row.
        nodes: Which writers are run.
        n_rows: Number of rows.
        tested: The port in which rows differ; None where they are one row.
    """

    def __init__(
        self,
        baseline: Baseline,
        kept: KeptEdges,
        shared: Float[Tensor, "writer prompt query d_model"],
        nodes: Bool[np.ndarray, "writer"],
        n_rows: int,
        tested: TestedPort | None = None,
    ) -> None:
        self.baseline, self.state, self.kept = baseline, baseline.state, kept
        self.shared, self.nodes, self.n_rows, self.tested = shared, nodes, n_rows, tested
        self.places = np.flatnonzero(nodes)
        self.own = shared.new_empty(len(self.places), n_rows, *shared.shape[1:])

    def run(self) -> "AlikeRows":
        """Run the nodes."""
        for layer in range(len(self.state.blocks)):
            place = self.kept.mlp_at(layer)
            heads = np.flatnonzero(self.nodes[self.kept.heads_at(layer)])
            if len(heads):
                self.heads(layer, heads)
            if place is not None and self.nodes[place]:
                self.mlp(layer, place)
        return self

    def share(self) -> None:
        """Put what the nodes of the one row write among what all rows share."""
        self.shared[torch.from_numpy(self.places).to(self.shared.device)] = self.own[:, 0]

    # -- what ports read ------------------------------------------------------------------------

    def tests(self, port: Port) -> bool:
        """Return whether rows differ in what this port hears."""
        return self.tested is not None and self.tested.port == port

    def hears_own(self, patterns: Bool[np.ndarray, "stream writer"]) -> Truth:
        """Return which sets of kept edges bring something that differs between the rows."""
        heard = patterns[:, self.places[self.places < patterns.shape[1]]]
        return np.asarray(heard.any(axis=1))

    def common(self, point: int, patterns: Truth) -> Float[Tensor, "stream prompt query d_model"]:
        """Return what is read at a point, less what differs between the rows."""
        mixed = patterns.copy()
        mixed[:, self.places[self.places < patterns.shape[1]]] = False
        found = self.product(mixed, self.shared[: patterns.shape[1]])
        found += self.baseline.stream(point)
        return found

    def moving(
        self, point: int, patterns: Truth
    ) -> Float[Tensor, "stream row prompt query d_model"]:
        """Return what is read at a point in each row."""
        places = self.places[self.places < patterns.shape[1]]
        found = self.product(patterns[:, places], self.own[: len(places)])
        found += self.common(point, patterns)[:, None]
        return found

    def product(self, picks: Truth, writes: Tensor) -> Tensor:
        """Return sums of some of the writes."""
        some = np.flatnonzero(picks.any(axis=0))
        if not len(some):
            return writes.new_zeros(len(picks), *writes.shape[1:])
        if len(some) < 0.5 * len(writes):
            picks, writes = picks[:, some], writes[torch.from_numpy(some).to(writes.device)]
        chosen = torch.from_numpy(picks.copy()).to(writes.device).to(writes.dtype)
        return (chosen @ writes.flatten(1)).unflatten(1, writes.shape[1:])

    # -- nodes ----------------------------------------------------------------------------------

    def heads(self, layer: int, heads: NDArray[np.intp]) -> None:
        """Run some heads of a layer."""
        state, baseline, blocks = self.state, self.baseline, self.state.blocks
        place = self.kept.heads_at(layer).start
        z = blocks.split(self.values(layer, heads))
        patched = blocks.split(baseline.z(layer)).to(state.delta_dtype)
        index = torch.from_numpy(heads).to(z.device)
        change = (z.to(state.delta_dtype) - patched)[:, :, :, index].permute(3, 0, 1, 2, 4)
        weight = blocks.output_weights[layer][index].to(change.dtype)
        at = int(np.searchsorted(self.places, place + heads[0]))
        out = self.own[at : at + len(heads)]
        torch.bmm(change.flatten(1, 3), weight, out=out.flatten(1, 3))
        tested = self.tested
        if tested is not None and tested.port.node == Head(layer, int(heads[0])):
            others = self.kept.into_heads(layer)[0, heads[0]].copy()
            others[("q", "k", "v").index(tested.port.name)] = False
            self.silence(at, np.asarray(tested.hears.any(axis=1) | others.any()))

    def values(
        self, layer: int, heads: NDArray[np.intp]
    ) -> Float[Tensor, "row prompt query width"]:
        """Return the values of a layer's heads; of those that are not run, anything."""
        state, blocks, start = self.state, self.state.blocks, self.baseline.start
        record, shape = state.layer(layer), self.kept.index.graph.shape
        reads = self.kept.into_heads(layer)[0][heads]
        inputs, which = self.inputs(layer, heads, reads)
        per_group = shape.n_heads // shape.kv_heads
        queries = slice(start, None) if start else None
        keys = clean_prefix(state, layer, self.n_rows, start) if start else None
        call = adapt_call(record.call, self.n_rows, state.n_prompts, state.n_pos, queries, keys)
        hidden = self.baseline.stream(2 * layer)
        hidden = hidden.expand(self.n_rows, *hidden.shape).flatten(0, 1)
        made_q = self.projections(layer, "q", inputs, heads, which[:, 0])
        found: Tensor | None = None
        # Query heads of a group share keys and values: one head of every group in each pass.
        for part in range(per_group):
            chosen = heads % per_group == part
            if not chosen.any():
                continue
            slots = heads[chosen] // per_group
            made = [
                self.projections(layer, name, inputs, slots, which[chosen, at])
                for at, name in ((1, "k"), (2, "v"))
            ]
            z = blocks.attention_z(
                layer, hidden, call, q=_given(made_q), k=_given(made[0]), v=_given(made[1])
            ).unflatten(0, (self.n_rows, -1))
            if found is None:
                found = z
            else:
                found = found.clone()
                blocks.split(found)[:, :, :, part::per_group] = blocks.split(z)[
                    :, :, :, part::per_group
                ]
        assert found is not None
        return found

    def inputs(
        self, layer: int, heads: NDArray[np.intp], reads: Bool[np.ndarray, "head 3 writer"]
    ) -> tuple[list[Tensor], NDArray[np.intp]]:
        """Return what projections read, ``[row or 1, prompt query d_model]``, and who reads which.

        Each distinct set of kept edges is made and normed once, for all rows where it brings the
        same to each.
        """
        state, point = self.state, 2 * layer
        patterns, which = distinct_rows(reads.reshape(3 * len(heads), -1))
        moves = self.hears_own(patterns)
        parts: list[Tensor] = []
        order = np.empty(len(patterns), dtype=np.intp)
        order[~moves] = np.arange((~moves).sum())
        order[moves] = (~moves).sum() + np.arange(moves.sum())
        if (~moves).any():
            parts += list(self.common(point, patterns[~moves])[:, None])
        if moves.any():
            parts += list(self.moving(point, patterns[moves]))
        which = order[which].reshape(len(heads), 3)
        tested = self.tested
        if tested is not None and tested.port.node == Head(layer, int(heads[0])):
            which[0, ("q", "k", "v").index(tested.port.name)] = len(parts)
            parts.append(self.common(point, tested.hears))
        sizes = [len(part) for part in parts]
        flat = torch.cat(parts).to(state.final.dtype).flatten(0, 1)
        call = adapt_call(state.layer(layer).call, 1, state.n_prompts, state.n_pos)
        normed = state.blocks.attention_input(layer, flat, call)
        return list(normed.unflatten(0, (-1, state.n_prompts)).split(sizes)), which

    def projections(
        self,
        layer: int,
        name: str,
        inputs: list[Tensor],
        slots: NDArray[np.intp],
        sources: NDArray[np.intp],
    ) -> Float[Tensor, "stacked query width"]:
        """Return queries, keys or values of all rows.

        Args:
            layer: Which layer.
            name: ``q``, ``k`` or ``v``.
            inputs: What is read.
            slots: The heads that are run, or groups of them that share keys and values.
            sources: Which of the inputs each of them reads.
        """
        shape, project = self.kept.index.graph.shape, self.state.blocks.project
        n_slots = shape.n_heads if name == "q" else shape.kv_heads
        width = getattr(self.state.layer(layer), name).shape[-1] // n_slots
        size = (self.n_rows, *inputs[0].shape[1:-1], n_slots * width)
        if len(slots) == n_slots and (sources == sources[0]).all():
            return project(layer, name, inputs[int(sources[0])]).expand(size).flatten(0, 1)
        found = inputs[0].new_zeros(size)
        # Heads that stand side by side and read the same are one product.
        ends = np.flatnonzero((np.diff(sources) != 0) | (np.diff(slots) != 1)) + 1
        for run in np.split(np.arange(len(slots)), ends):
            first, last = int(slots[run[0]]), int(slots[run[-1]])
            widths = slice(first * width, (last + 1) * width)
            found[..., widths] = project(layer, name, inputs[int(sources[run[0]])], widths)
        return found.flatten(0, 1)

    def mlp(self, layer: int, place: int) -> None:
        """Run a layer's MLP."""
        state, port = self.state, MLP(layer).port
        point, into = state.point(port), self.kept.into_mlp(layer)
        if self.tests(port):
            assert self.tested is not None
            reads = self.common(point, self.tested.hears)
        else:
            reads = self.moving(point, into)[0]
        made = state.mlp_output(layer, reads.to(state.final.dtype).flatten(0, 1))
        at = int(np.searchsorted(self.places, place))
        patched = self.baseline.mlp(layer).to(state.delta_dtype)
        torch.sub(
            made.to(state.delta_dtype).unflatten(0, (self.n_rows, -1)), patched, out=self.own[at]
        )
        if self.tests(port):
            assert self.tested is not None
            self.silence(at, np.asarray(self.tested.hears.any(axis=1)))

    def silence(self, at: int, hears: Bool[np.ndarray, "row"]) -> None:
        """Let a node write its patched value in rows in which it hears nothing live."""
        if not hears.all():
            self.own[at, torch.from_numpy(~hears).to(self.own.device)] = 0

    def logits(self) -> Float[Tensor, "row value"]:
        """Measure what arrives at the logits."""
        state, start, port = self.state, self.baseline.start, Logits().port
        point, read = state.point(port), state.setup.metric.read
        if self.tests(port):
            assert self.tested is not None
            final = self.common(point, self.tested.hears)
        else:
            final = self.moving(point, self.kept.into_logits)[0]
        final -= state.final[:, start:]
        if read is None:
            return measure_rows(state, everywhere(final, start))
        at = (read - start).clamp_min(0)
        picked = final[:, state.rows[:, 0], at][:, :, None]
        # A metric that reads a position before the first changed one reads the clean run.
        return measure_rows(state, picked * (read >= start)[:, None, None])


def _given(value: Tensor) -> Callable[[Tensor], Tensor]:
    """Return a projection that gives what was made already."""
    return lambda _: value
