"""The measuring stage: receivers patched, everything downstream live, up to the metric.

The stack holds one row per job, each row entering at its first changed layer. Positions before the
first changed one stay clean: their keys and values are taken from the recording. After the last
attention only the positions that the metric reads are run.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.attend import Override, attend, clean_prefix
from circuitgraph.engines.fast.index import PatchIndex
from circuitgraph.engines.fast.memory import in_stacks, rows_that_fit
from circuitgraph.engines.fast.readout import measure_rows
from circuitgraph.engines.fast.replace import LiveWrites
from circuitgraph.engines.fast.send import first_change, mlp_change
from circuitgraph.engines.fast.state import Arrived, Outputs, State
from circuitgraph.lens.blocks import BlockOutput, Blocks
from circuitgraph.lens.calls import FixedKeys, adapt_call
from circuitgraph.nodes import Head
from circuitgraph.plan import PatchPort, ReplaceSenders
from circuitgraph.request import Positions
from circuitgraph.schedule import Job, Stage

__all__ = ["run_measure"]

Stack = Float[Tensor, "row prompt query d_model"]


def run_measure(
    state: State, stage: Stage, outputs: Mapping[int, Outputs], budget: int
) -> Float[Tensor, "job prompt"]:
    """Return the metric of every job, per prompt."""
    start = first_position(state, stage, outputs)
    order = sorted(range(len(stage.jobs)), key=lambda number: stage.jobs[number].first_layer)
    order_back = torch.empty(len(order), dtype=torch.long)
    order_back[torch.tensor(order)] = torch.arange(len(order))

    def run(numbers: Sequence[int]) -> Tensor:
        jobs = [stage.jobs[number] for number in numbers]
        return _Measurer(state, jobs, outputs, start).run()

    rows = rows_that_fit(budget, bytes_per_row(state, start))
    found = torch.cat([values for _, values in in_stacks(order, rows, run)])
    return found[order_back.to(found.device)]


def first_position(state: State, stage: Stage, outputs: Mapping[int, Outputs]) -> int:
    """Return the first position that a stage runs; 0 where the model's attention must run whole."""
    if not state.traits.sliceable:
        return 0
    start = first_change(state, stage)
    for number in {
        op.delta_from for job in stage.jobs for op in job.run.ports if isinstance(op, PatchPort)
    }:
        # What a stage recorded, it recorded at the same places for all of its jobs.
        places = next(iter(outputs[number].ports.values())).places
        start = min(start, 0 if places is None else int(places.min()))
    if stage.from_first:
        places = state.places(stage.where)
        if places is not None and places.numel():
            start = max(start, int(places.min()))
    return start


def bytes_per_row(state: State, start: int) -> int:
    """What one row needs: its change, its attention, and what an MLP makes of it."""
    cfg = state.blocks.model.cfg
    length = state.n_pos - start
    d_mlp = int(getattr(cfg, "d_mlp", None) or 4 * cfg.d_model)
    on_cpu = state.final.device.type == "cpu"
    width = 14 * cfg.d_model + (0 if on_cpu else 5 * d_mlp)
    scores = 4 * cfg.n_heads * length * state.n_pos
    return int(state.n_prompts * (length * width + scores) * state.delta_dtype.itemsize)


@dataclass
class _Measurer:
    """Runs one stack of measuring jobs."""

    state: State
    jobs: Sequence[Job]
    outputs: Mapping[int, Outputs]
    start: int
    read: Tensor | None = field(init=False, default=None)

    def run(self) -> Float[Tensor, "row prompt"]:
        """Return the metric of every row."""
        state = self.state
        n_layers = len(state.blocks)
        length = state.n_pos - self.start
        shape = (len(self.jobs), state.n_prompts, length, state.final.shape[-1])
        change = torch.zeros(shape, dtype=state.delta_dtype, device=state.final.device)
        self.live = LiveWrites.for_jobs(state, self.jobs, self.outputs, self.start)
        self.index = PatchIndex.of(self.jobs)
        self.embedded = {row for row, _, _ in self.index.embed}
        for row, job, op in self.index.embed:
            change[row] += state.delta(op, job, self.outputs)[:, self.start :]
        metric_read = state.setup.metric.read
        self.first_layers = [job.first_layer for job in self.jobs]
        for layer in range(self.first_layers[0], n_layers):
            entered = sum(first <= layer for first in self.first_layers)
            last = layer == n_layers - 1 and metric_read is not None
            if last and self.can_finish_early(layer):
                return self.finish(change, layer)
            change[:entered] = self.block(layer, change[:entered])
        final = self.patch_logits(change)
        if metric_read is None:
            return measure_rows(state, self.everywhere(final))
        at = (metric_read - self.start).clamp_min(0)
        picked = final[:, state.rows[:, 0], at][:, :, None]
        # A metric that reads a position before the first changed one reads the clean run.
        picked = picked * (metric_read >= self.start)[:, None, None]
        return measure_rows(state, picked)

    def everywhere(self, change: Stack) -> Float[Tensor, "row prompt pos d_model"]:
        """Return a change with the clean positions before the first changed one."""
        return torch.nn.functional.pad(change, (0, 0, self.start, 0)) if self.start else change

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
        if any(one.places is not places for one in arrived):
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
        """Run the block itself: for blocks that do more than add what their parts write."""
        state, record = self.state, self.state.layer(layer)
        assert record.z is not None
        n_rows, window = len(change), slice(self.start, None)
        z = (record.z[:, window] + z_change.to(record.z.dtype)).flatten(0, 1)
        hidden = (record.resid[:, window] + change.to(record.resid.dtype)).flatten(0, 1)
        call = adapt_call(record.call, n_rows, state.n_prompts, state.n_pos)
        run = state.blocks.run_block
        output = run(layer, hidden, call, z=z)
        if layer in self.index.mlp_ports or layer in self.index.mlps:
            output = run(layer, hidden, call, z=z, mlp=self.patched_mlp(layer, output, n_rows))
        out = output.out
        rows = out.unflatten(0, (n_rows, -1)).to(change.dtype)
        return rows - state.next_resid(layer)[:, window].to(change.dtype)

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

    # -- the last block -------------------------------------------------------------------------

    def can_finish_early(self, layer: int) -> bool:
        """Return whether the last block can run at the metric's positions alone."""
        return (
            self.state.traits.additive
            and self.state.traits.sliceable
            and self.live.empty
            and layer not in self.index.head_ports
            and layer not in self.index.heads
            and all(first < layer for first in self.first_layers)
        )

    def finish(self, change: Stack, layer: int) -> Float[Tensor, "row prompt"]:
        """Run the last block at the positions that the metric reads, and measure."""
        state, blocks, record = self.state, self.state.blocks, self.state.layer(layer)
        metric_read = state.setup.metric.read
        assert metric_read is not None
        assert record.z is not None
        read = metric_read[:, None].clamp_min(self.start)
        n_rows = len(change)
        z = self.attention_at(blocks, layer, change, read)
        clean_z = record.z[state.rows, read]
        z_change = z.unflatten(0, (n_rows, -1)).to(change.dtype) - clean_z
        picked = change[:, state.rows, read - self.start]
        weight = blocks.output_weights[layer].flatten(0, 1)
        mid = picked + z_change @ weight.to(change.dtype)
        final = mid
        if blocks.has_mlp(layer):
            reads = picked if blocks.parallel[layer] else mid
            final = mid + self.mlp(layer, reads, read)
        patches = self.index.logits
        if patches:
            final = final.clone()
            for row, op in patches:
                final[row] = self.arriving_at(row, op, final[row], read)
        final = final * (metric_read >= self.start)[:, None, None]
        return measure_rows(state, final)

    def attention_at(self, blocks: Blocks, layer: int, change: Stack, read: Tensor) -> Tensor:
        """Return the heads' values at few positions: keys and values of all, queries of those."""
        state, record = self.state, self.state.layer(layer)
        n_rows, n_prompts, n_pos = len(change), state.n_prompts, state.n_pos
        clean = record.resid[:, self.start :]
        hidden = (clean + change.to(clean.dtype)).flatten(0, 1)
        kept: list[tuple[Tensor, Tensor]] = []

        class Caught(Exception):  # noqa: N818  # no error: the keys are all that was wanted
            pass

        def catch(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
            kept.append((k, v))
            raise Caught

        queries = slice(self.start, None) if self.start else slice(0, None)
        call = adapt_call(record.call, n_rows, n_prompts, n_pos, queries, FixedKeys(catch))
        width = record.q.shape[-1] if record.q is not None else 0
        # The queries of this first pass are thrown away, so nothing is computed for them.
        with suppress(Caught):
            blocks.attention_z(
                layer, hidden, call, q=lambda inputs: inputs.new_zeros(*inputs.shape[:-1], width)
            )
        keys, values = kept[0]
        if self.start:
            keys, values = clean_prefix(state, layer, n_rows, self.start).update(keys, values)
        fixed = FixedKeys(lambda _, __: (keys, values))
        call = adapt_call(record.call, n_rows, n_prompts, n_pos, read, fixed)
        at = change[:, state.rows, read - self.start]
        few = (record.resid[state.rows, read] + at.to(clean.dtype)).flatten(0, 1)
        return blocks.attention_z(layer, few, call)
