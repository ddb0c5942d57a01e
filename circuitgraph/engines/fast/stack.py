"""A stack of measuring jobs while it is run: what their ports read, and what a block makes of it.

One row per job. What is kept is by how much a row's residual stream differs from the clean one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.attend import Override, attend
from circuitgraph.engines.fast.index import PatchIndex
from circuitgraph.engines.fast.replace import LiveWrites
from circuitgraph.engines.fast.send import mlp_change
from circuitgraph.engines.fast.state import Arrived, Outputs, State
from circuitgraph.lens.blocks import BlockOutput
from circuitgraph.lens.calls import adapt_call
from circuitgraph.nodes import Head
from circuitgraph.plan import PatchPort, ReplaceSenders
from circuitgraph.request import Positions
from circuitgraph.schedule import Job

__all__ = ["JobStack", "Stack"]

Stack = Float[Tensor, "row prompt query d_model"]


@dataclass
class JobStack:
    """Measuring jobs, a row each.

    Args:
        state: The experiment.
        jobs: The jobs, sorted by their first layer.
        outputs: What earlier stages recorded.
        start: The first position that is run; before it all is clean.
    """

    state: State
    jobs: Sequence[Job]
    outputs: Mapping[int, Outputs]
    start: int

    @cached_property
    def index(self) -> PatchIndex:
        """What is patched where."""
        return PatchIndex.of(self.jobs)

    @cached_property
    def live(self) -> LiveWrites:
        """Live writes of senders that are replaced."""
        return LiveWrites.for_jobs(self.state, self.jobs, self.outputs, self.start)

    @cached_property
    def first_layers(self) -> list[int]:
        """The first layer that each row changes; without jobs there is one row, and it is clean."""
        return [job.first_layer for job in self.jobs] or [0]

    @cached_property
    def embedded(self) -> set[int]:
        """Rows whose embedding is patched."""
        return {row for row, _, _ in self.index.embed}

    def entering(self) -> Stack:
        """Return the change before the first block."""
        state = self.state
        shape = (len(self.jobs), state.n_prompts, state.n_pos - self.start, state.final.shape[-1])
        change = torch.zeros(shape, dtype=state.delta_dtype, device=state.final.device)
        for row, job, op in self.index.embed:
            change[row] += state.delta(op, job, self.outputs)[:, self.start :]
        return change

    # -- what is patched ------------------------------------------------------------------------

    def arriving_all(
        self, patches: Sequence[tuple[int, PatchPort | ReplaceSenders]], change: Stack
    ) -> Float[Tensor, "patch prompt query d_model"]:
        """Return the changes that patched ports read, given the live change at their point."""
        if alike := self.arrived_alike(patches):
            at, changes = alike
            mask = self.state.setup.positions.mask(at)
            return changes if mask is None else self.at_positions(patches, mask, changes, change)
        return torch.stack([self.arriving(row, op, change[row]) for row, op in patches])

    def arrived_alike(
        self, patches: Sequence[tuple[int, PatchPort | ReplaceSenders]]
    ) -> tuple[Positions, Tensor] | None:
        """Return where ports are patched, and what arrives there, where all are set alike."""
        arrived = []
        where = {op.at for _, op in patches}
        for row, op in patches:
            if len(where) > 1 or not isinstance(op, PatchPort) or op.mode != "set":
                return None
            job = self.jobs[row].source(op.delta_from)
            arrived.append(self.outputs[op.delta_from].ports[job, self.state.point(op.port)])
        places = arrived[0].places
        if any(one.where != arrived[0].where for one in arrived):
            return None
        n_patches, n_pos = len(arrived), self.state.n_pos
        stacked = torch.stack([one.change for one in arrived])
        if places is not None:
            together = Arrived(stacked.flatten(0, 1), places.repeat(n_patches, 1))
            stacked = together.everywhere(n_pos).unflatten(0, (n_patches, -1))
        return where.pop(), stacked[:, :, self.start :]

    def at_positions(
        self,
        patches: Sequence[tuple[int, PatchPort | ReplaceSenders]],
        mask: Tensor,
        arriving: Tensor,
        change: Stack,
    ) -> Tensor:
        """Return what arrives where it is patched, and the live change elsewhere."""
        rows = torch.tensor([row for row, _ in patches], device=change.device)
        return torch.where(mask[:, self.start :, None], arriving, change[rows])

    def arriving(self, row: int, op: PatchPort | ReplaceSenders, live: Tensor) -> Tensor:
        """Return the change that a patched port reads, given the live change at its point."""
        state = self.state
        if isinstance(op, PatchPort):
            job = self.jobs[row].source(op.delta_from)
            arrived = self.outputs[op.delta_from].ports[job, state.point(op.port)]
            change = arrived.everywhere(state.n_pos)[:, self.start :]
            patched = change if op.mode == "set" else live + change
        else:
            patched = live + self.live.replacement(row, op)
        mask = state.setup.positions.mask(op.at)
        return patched if mask is None else torch.where(mask[:, self.start :, None], patched, live)

    def patch_logits(self, change: Stack) -> Stack:
        """Return the change after the last block, with patched logits' inputs."""
        patches = self.index.logits
        if patches:
            change = change.clone()
            for row, op in patches:
                change[row] = self.arriving(row, op, change[row])
        return change

    # -- one block ------------------------------------------------------------------------------

    def block(self, layer: int, change: Stack) -> Stack:
        """Return the change after a block."""
        z_change = self.heads(layer, change)
        if not self.state.traits.additive:
            return self.whole_block(layer, change, z_change)
        weight = self.state.blocks.output_weights[layer].flatten(0, 1)
        added = z_change @ weight.to(z_change.dtype)
        self.live.saw_heads(layer, z_change)
        mid = change + added
        if not self.state.blocks.has_mlp(layer):
            return mid
        reads = change if self.state.blocks.parallel[layer] else mid
        mlp = self.mlp(layer, reads, slice(self.start, None))
        self.live.saw_mlp(layer, mlp)
        return mid + mlp

    def heads(self, layer: int, change: Stack) -> Float[Tensor, "row prompt query width"]:
        """Return by how much every head's value differs from clean."""
        state, record = self.state, self.state.layer(layer)
        assert record.z is not None
        n_rows = len(change)
        clean = record.resid[:, self.start :]
        clean_z = record.z[:, self.start :].to(change.dtype)
        # Rows that enter here read the clean stream; earlier ones read what has changed.
        live_rows = [row for row in range(n_rows) if self.changed_before(row, layer)]
        new_rows = [row for row in range(n_rows) if not self.changed_before(row, layer)]
        result = torch.zeros(
            *change.shape[:-1], clean_z.shape[-1], dtype=change.dtype, device=change.device
        )
        patches = self.index.head_ports.get(layer, [])
        for rows, live in ((live_rows, True), (new_rows, False)):
            if not rows:
                continue
            place = {row: at for at, row in enumerate(rows)}
            mine = [(row, op) for row, op in patches if row in place]
            if not live and not mine:
                continue
            overrides = [Override(place[row], op.port, at) for at, (row, op) in enumerate(mine)]
            streams = clean + self.arriving_all(mine, change).to(clean.dtype) if mine else None
            hidden = None
            if live:
                part = change if len(rows) == n_rows else change[rows]
                hidden = clean + part.to(clean.dtype)
            z = attend(state, layer, hidden, overrides, streams, len(rows), self.start)
            difference = z.to(change.dtype) - clean_z
            if len(rows) == n_rows:
                result = difference
            else:
                result[rows] = difference
        split = state.blocks.split(result)
        for row, job, op in self.index.heads.get(layer, []):
            assert isinstance(op.node, Head)
            delta = state.delta(op, job, self.outputs)[:, self.start :]
            mask = state.setup.positions.mask(op.at)
            if mask is not None:
                live_change = split[row, :, :, op.node.head]
                delta = torch.where(mask[:, self.start :, None], delta, live_change)
            split[row, :, :, op.node.head] = delta
        return result

    def changed_before(self, row: int, layer: int) -> bool:
        """Return whether the residual stream at the block's input has changed."""
        if self.first_layers[row] < layer:
            return True
        return layer == 0 and row in self.embedded

    def mlp(self, layer: int, reads: Stack, queries: slice | Tensor) -> Stack:
        """Return by how much the MLP's output differs from clean."""
        state, record = self.state, self.state.layer(layer)
        assert record.mlp is not None
        patches = self.index.mlp_ports.get(layer, [])
        if patches:
            reads = reads.clone()
            for row, op in patches:
                full = self.arriving_at(row, op, reads[row], queries)
                reads[row] = full
        clean_mid, clean_out = self.pick(state.mid(layer), queries), self.pick(record.mlp, queries)
        result = mlp_change(state, layer, reads, clean_mid, clean_out)
        for row, job, write in self.index.mlps.get(layer, []):
            delta = self.pick(state.delta(write, job, self.outputs), queries)
            mask = state.setup.positions.mask(write.at)
            if mask is not None:
                delta = torch.where(self.pick(mask[..., None], queries), delta, result[row])
            result[row] = delta
        return result

    def arriving_at(
        self, row: int, op: PatchPort | ReplaceSenders, live: Tensor, queries: slice | Tensor
    ) -> Tensor:
        """Return what arrives at a port, at the query positions only."""
        if isinstance(queries, slice):
            return self.arriving(row, op, live)
        full = live.new_zeros(live.shape[0], self.state.n_pos, live.shape[-1])
        full[self.state.rows, queries] = live
        return self.arriving(row, op, full[:, self.start :])[
            self.state.rows, (queries - self.start).clamp_min(0)
        ]

    def pick(self, tensor: Tensor, queries: slice | Tensor) -> Tensor:
        """Return a recorded tensor at the query positions."""
        return (
            tensor[:, queries] if isinstance(queries, slice) else tensor[self.state.rows, queries]
        )

    def whole_block(self, layer: int, change: Stack, z_change: Tensor) -> Stack:
        """Return the change after a block that does more than add what its parts write."""
        out = self.run_block(layer, change, z_change).out
        rows = out.unflatten(0, (len(change), -1)).to(change.dtype)
        return rows - self.state.next_resid(layer)[:, self.start :].to(change.dtype)

    def run_block(
        self, layer: int, change: Stack, z_change: Tensor, *, live_attention: bool = False
    ) -> BlockOutput:
        """Run the block itself.

        Args:
            layer: Which block.
            change: By how much its input differs from clean.
            z_change: By how much its heads' values differ from clean.
            live_attention: Whether to run the attention too, for the sake of hooks inside it; its
                heads' values are set either way.
        """
        state, record = self.state, self.state.layer(layer)
        assert record.z is not None
        n_rows, window = len(change), slice(self.start, None)
        patched = (record.z[:, window] + z_change.to(record.z.dtype)).flatten(0, 1)
        hidden = (record.resid[:, window] + change.to(record.resid.dtype)).flatten(0, 1)
        call = adapt_call(record.call, n_rows, state.n_prompts, state.n_pos)
        run = state.blocks.run_block
        z: Tensor | Callable[[Tensor], Tensor] = patched
        if live_attention:
            z = lambda _: patched  # noqa: E731
        output = run(layer, hidden, call, z=z)
        if layer in self.index.mlp_ports or layer in self.index.mlps:
            output = run(layer, hidden, call, z=z, mlp=self.patched_mlp(layer, output, n_rows))
        return output

    def patched_mlp(self, layer: int, live: BlockOutput, n_rows: int) -> Tensor:
        """Return the MLP's output with patched ports and patched MLPs, for a whole block."""
        state, record, window = self.state, self.state.layer(layer), slice(self.start, None)
        assert live.mlp is not None
        assert record.mlp is not None
        rows = live.mlp.unflatten(0, (n_rows, -1)).clone()
        mids = live.mid.unflatten(0, (n_rows, -1)).to(state.delta_dtype)
        clean_mid = state.mid(layer)[:, window]
        for row, op in self.index.mlp_ports.get(layer, []):
            arriving = self.arriving(row, op, mids[row] - clean_mid)
            rows[row] = state.mlp_output(layer, clean_mid + arriving.to(clean_mid.dtype))
        for row, job, write in self.index.mlps.get(layer, []):
            delta = state.delta(write, job, self.outputs)[:, window]
            value = record.mlp[:, window] + delta.to(rows.dtype)
            mask = state.setup.positions.mask(write.at)
            if mask is not None:
                value = torch.where(mask[:, window, None], value, rows[row])
            rows[row] = value
        return rows.flatten(0, 1)
