"""The sender stage: what arrives at ports when senders are patched and the rest is frozen.

The stack holds one row per job. A row enters at its first sender's layer; before that it is clean.
Only the change of the residual stream is kept, as ``[row prompt place d_model]``.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.index import PatchIndex, Writes
from circuitgraph.engines.fast.memory import rows_that_fit, token_slices
from circuitgraph.engines.fast.state import Arrived, Outputs, State
from circuitgraph.engines.splitting import in_stacks
from circuitgraph.lens.calls import adapt_call
from circuitgraph.nodes import MLP, Head
from circuitgraph.plan import FromSource, PatchWrite, ReplaceSenders
from circuitgraph.schedule import Job, Stage, Where

__all__ = ["Sender", "first_change", "mlp_change", "run_send"]

Stack = Float[Tensor, "row prompt place d_model"]
Visit = Callable[[int, Sequence[int], Stack, bool], None]
"""Is shown a point, the rows that record there, all rows' changes, and whether they go on after."""


def run_send(state: State, stage: Stage, outputs: Mapping[int, Outputs], budget: int) -> Outputs:
    """Return what arrived at every recorded port of every job."""
    sender = Sender(state, stage, outputs)
    order = sorted(range(len(stage.jobs)), key=sender.first_layers.__getitem__)
    found = Outputs()
    for _ in in_stacks(order, rows_that_fit(budget, sender.bytes_per_row), sender.into(found)):
        pass
    return found


class Sender:
    """Runs stacks of sender jobs of one stage.

    Args:
        state: The experiment.
        stage: The stage.
        outputs: What earlier stages recorded.
    """

    def __init__(self, state: State, stage: Stage, outputs: Mapping[int, Outputs]) -> None:
        """Find the positions that are run; nothing is run yet."""
        self.state = state
        self.stage = stage
        self.outputs = outputs
        self.first_layers = [job.first_layer for job in stage.jobs]
        self.places = state.places(stage.where)
        self.where: Where | int = stage.where if self.places is not None else None
        if self.places is None and not any(job.attention for job in stage.jobs):
            start = first_change(state, stage)
            self.places, self.where = state.suffix(start), start or None
        self.n_places = state.n_pos if self.places is None else self.places.shape[1]

    @property
    def bytes_per_row(self) -> int:
        """What one row needs: its change, and what an MLP makes of it."""
        limits = self.state.blocks.limits
        on_cpu = self.state.final.device.type == "cpu"
        width = 6 * limits.d_model + (0 if on_cpu else 5 * limits.d_mlp)
        return int(self.state.n_prompts * self.n_places * width * self.state.delta_dtype.itemsize)

    def into(self, found: Outputs) -> Callable[[Sequence[int]], None]:
        """Return a function that runs a stack of jobs and files what arrived."""

        def run(numbers: Sequence[int]) -> None:
            found.ports.update(self.run_stack(numbers))

        return run

    def run_stack(self, numbers: Sequence[int]) -> dict[tuple[int, int], Arrived]:
        """Run jobs stacked, in the order in which they enter; return what arrived at each point."""
        found: dict[tuple[int, int], Arrived] = {}

        def keep(point: int, rows: Sequence[int], change: Stack, done: bool) -> None:
            every = len(rows) == len(change)
            kept = change[rows] if not every else change if done else change.clone()
            for row, arrived in zip(rows, kept.unbind(), strict=True):
                found[numbers[row], point] = Arrived(arrived, self.places, self.where)

        self.walk(numbers, keep)
        return found

    def walk(self, numbers: Sequence[int], visit: Visit) -> None:
        """Run jobs stacked, in the order in which they enter, and show what arrives where.

        Args:
            numbers: Which jobs of the stage.
            visit: Called at each point at which some job records.
        """
        state = self.state
        jobs = [self.stage.jobs[number] for number in numbers]
        n_layers = len(state.blocks)
        shape = (len(jobs), state.n_prompts, self.n_places, state.final.shape[-1])
        change = torch.zeros(shape, dtype=state.delta_dtype, device=state.final.device)
        wanted = self.wanted(jobs)
        last = max(job.last for job in jobs)

        def keep(point: int, change: Stack, *, done: bool = False) -> None:
            rows = [row for row in range(len(change)) if point in wanted[row]]
            if rows:
                visit(point, rows, change, done)

        index = PatchIndex.of(jobs)
        for row, job, op in index.embed:
            change[row] += self.delta(op, job)
        first_layers = [self.first_layers[number] for number in numbers]
        frozen = [job.run.frozen for job in jobs]
        for layer in range(min(first_layers), n_layers):
            keep(2 * layer, change, done=2 * layer >= last)
            if 2 * layer >= last:
                break
            entered = sum(first <= layer for first in first_layers)
            node = MLP(layer)
            # A frozen MLP may not have been taken out of what the job runs live.
            live = [
                row for row in range(entered) if layer in jobs[row].mlps and node not in frozen[row]
            ]
            block = _Block(self, index, jobs[:entered], layer, change[:entered], live)
            block.run(partial(keep, 2 * layer + 1))
        else:
            keep(2 * n_layers, change, done=True)

    def wanted(self, jobs: Sequence[Job]) -> list[set[int]]:
        """Return the points at which each job records."""
        graph = self.state.setup.graph
        return [{graph.reads_at(port) for port in job.run.recorded_ports} for job in jobs]

    def delta(self, op: PatchWrite, job: Job) -> Tensor:
        """Return a patched value's change at the places that are run."""
        return self.state.at(self.state.delta(op, job, self.outputs), self.places)


@dataclass(frozen=True, slots=True)
class _Block:
    """One block on the rows that have entered; ``live_mlps`` are those whose MLP runs live."""

    sender: Sender
    index: PatchIndex
    jobs: Sequence[Job]
    layer: int
    change: Stack
    live_mlps: Sequence[int]

    def run(self, keep_mid: Callable[[Stack], None]) -> None:
        """Turn the change before the block into the change after it, in place."""
        state = self.sender.state
        if not state.traits.additive:
            self.change.copy_(self.whole_block(keep_mid))
            return
        has_mlp, parallel = state.blocks.has_mlp(self.layer), state.blocks.parallel[self.layer]
        added = self.mlp_change() if has_mlp and parallel else None
        if self.touches_heads():
            self.add_attention()
        keep_mid(self.change)
        if has_mlp and not parallel:
            added = self.mlp_change()
        if added is not None:
            self.change.add_(added)

    @property
    def patched_heads(self) -> Writes:
        """Patched heads of this layer."""
        return self.index.heads.get(self.layer, [])

    def touches_heads(self) -> bool:
        """Return whether any head of this layer may differ from clean."""
        return bool(self.patched_heads) or any(self.layer in job.attention for job in self.jobs)

    def add_attention(self) -> None:
        """Add to the residual stream what changed heads add to it."""
        state = self.sender.state
        if any(self.layer in job.attention for job in self.jobs):
            flat = self.z_change()
            weight = state.blocks.output_weights[self.layer].flatten(0, 1)
            self.change.add_(flat @ weight.to(flat.dtype))
            return
        patched = self.patched_heads
        deltas = self.head_deltas([(job, op) for _, job, op in patched])
        weights = state.blocks.output_weights[self.layer]
        heads = torch.tensor([_head(op) for _, _, op in patched], device=deltas.device)
        rows = torch.tensor([row for row, _, _ in patched], device=deltas.device)
        writes = deltas.flatten(1, 2) @ weights[heads].to(deltas.dtype)
        self.change.index_add_(0, rows, writes.view(-1, *self.change.shape[1:]))

    def head_deltas(
        self, patched: Sequence[tuple[Job, PatchWrite]]
    ) -> Float[Tensor, "patch prompt place d_head"]:
        """Return the changes of patched heads of this layer, made for all of them at once."""
        state = self.sender.state
        whole = {(op.value, op.at) for _, op in patched}
        if len(patched) > 1 and whole == {(FromSource("corrupt"), None)}:
            clean, corrupt = state.layer(self.layer).z, state.corrupt.layers[self.layer].z
            assert clean is not None
            assert corrupt is not None
            wide = state.delta_dtype
            change = state.at(corrupt, self.sender.places).to(wide)
            change = change - state.at(clean, self.sender.places).to(wide)
            split = state.blocks.split(change)
            return split[:, :, [_head(op) for _, op in patched]].movedim(2, 0)
        return torch.stack([self.sender.delta(op, job) for job, op in patched])

    def z_change(self) -> Float[Tensor, "row prompt place width"]:
        """Return by how much all heads' values differ from clean: patched, or recomputed."""
        state, blocks = self.sender.state, self.sender.state.blocks
        record = state.layer(self.layer)
        assert record.z is not None
        clean = state.at(record.z, self.sender.places)
        change = self.change.new_zeros(*self.change.shape[:-1], clean.shape[-1])
        heads = change.unflatten(-1, (blocks.n_heads, -1))
        live_rows = [row for row, job in enumerate(self.jobs) if self.layer in job.attention]
        if live_rows:
            assert self.sender.places is None, "live attention runs at all positions"
            hidden = record.resid + self.change[live_rows].to(record.resid.dtype)
            call = adapt_call(record.call, len(live_rows), state.n_prompts, state.n_pos)
            z = blocks.attention_z(self.layer, hidden.flatten(0, 1), call)
            live = z.unflatten(0, (len(live_rows), -1)).to(change.dtype) - clean.to(change.dtype)
            live = live.unflatten(-1, (blocks.n_heads, -1))
            for at, row in enumerate(live_rows):
                frozen = self.jobs[row].run.frozen
                for head in range(blocks.n_heads):
                    if Head(self.layer, head) not in frozen:
                        heads[row, :, :, head] = live[at, :, :, head]
        for row, job, op in self.patched_heads:
            delta = self.sender.delta(op, job)
            keep = heads[row, :, :, _head(op)]
            heads[row, :, :, _head(op)] = self.patched(op, job, delta, keep)
        return change

    def patched(self, op: PatchWrite, job: Job, delta: Tensor, live: Tensor) -> Tensor:
        """Return a sender's change: patched where it is patched, and live or frozen elsewhere."""
        mask = self.sender.state.setup.positions.mask(op.at)
        if mask is None:
            return delta
        here = self.sender.state.at(mask[..., None], self.sender.places)
        elsewhere = torch.zeros_like(delta) if op.node in job.run.frozen else live
        return torch.where(here, delta, elsewhere)

    def mlp_change(self) -> Stack:
        """Return what the layer's MLP adds: recomputed, patched, or nothing where it is frozen."""
        state, reads = self.sender.state, self.change
        record = state.layer(self.layer)
        assert record.mlp is not None
        rows = self.live_mlps
        if len(rows) == len(self.jobs):
            added = self.live_mlp(reads)
        else:
            added = torch.zeros_like(reads)
            if rows:
                added[rows] = self.live_mlp(reads[rows])
        for row, job, op in self.index.mlps.get(self.layer, []):
            added[row] = self.patched(op, job, self.sender.delta(op, job), added[row])
        return added

    def live_mlp(self, reads: Stack) -> Stack:
        """Return by how much the MLP's output changes when what it reads changes."""
        state = self.sender.state
        record = state.layer(self.layer)
        assert record.mlp is not None
        clean_mid = state.at(state.mid(self.layer), self.sender.places)
        clean_out = state.at(record.mlp, self.sender.places)
        return mlp_change(state, self.layer, reads, clean_mid, clean_out)

    def whole_block(self, keep_mid: Callable[[Stack], None]) -> Stack:
        """Run the block itself: for blocks that do more than add what their parts write."""
        state = self.sender.state
        record, places = state.layer(self.layer), self.sender.places
        n_rows = len(self.jobs)
        assert record.z is not None

        def stack(clean: Tensor, change: Tensor | None) -> Tensor:
            base = state.at(clean, places).expand(n_rows, -1, -1, -1)
            full = base if change is None else base + change.to(base.dtype)
            return full.reshape(-1, *full.shape[2:])

        z = stack(record.z, self.z_change() if self.touches_heads() else None)
        hidden = stack(record.resid, self.change)
        mlp: object = None
        if record.mlp is not None:
            clean_mlp = record.mlp

            def set_mlp(live: Tensor) -> Tensor:
                rows = live.unflatten(0, (n_rows, -1)).clone()
                clean = state.at(clean_mlp, places)
                for row in set(range(n_rows)).difference(self.live_mlps):
                    rows[row] = clean
                for row, job, op in self.index.mlps.get(self.layer, []):
                    delta = self.sender.delta(op, job)
                    live_change = rows[row].to(delta.dtype) - clean
                    change = self.patched(op, job, delta, live_change)
                    rows[row] = clean + change.to(clean.dtype)
                return rows.flatten(0, 1)

            mlp = set_mlp
        call = adapt_call(record.call, n_rows, state.n_prompts, state.n_pos)
        output = state.blocks.run_block(self.layer, hidden, call, z=z, mlp=mlp)  # type: ignore[arg-type]
        if record.mid is not None:
            keep_mid(self.minus(output.mid, record.mid))
        return self.minus(output.out, state.next_resid(self.layer))

    def minus(self, rows: Tensor, clean: Tensor) -> Stack:
        base = self.sender.state.at(clean, self.sender.places).to(self.change.dtype)
        return rows.unflatten(0, (len(self.jobs), -1)).to(self.change.dtype) - base


def _head(op: PatchWrite) -> int:
    assert isinstance(op.node, Head)
    return op.node.head


def first_change(state: State, stage: Stage) -> int:
    """Return the first position that values patched in by this stage can change."""
    values = {op.value for job in stage.jobs for op in job.run.patched}
    for job in stage.jobs:
        for port in job.run.ports:
            if isinstance(port, ReplaceSenders):
                values |= {sender.value for sender in port.senders}
    return state.first_difference if values <= {FromSource("corrupt")} else 0


def mlp_change(
    state: State, layer: int, reads: Stack, clean_mid: Tensor, clean_out: Tensor
) -> Stack:
    """Return by how much an MLP's output changes when what it reads changes by ``reads``."""
    clean_out = clean_out.to(reads.dtype)

    def run(part: Stack) -> Stack:
        mid = torch.empty_like(part, dtype=clean_mid.dtype)
        torch.add(clean_mid, part, out=mid)  # rounded once
        out = state.mlp_output(layer, mid.flatten(0, 1))
        return out.unflatten(0, (-1, reads.shape[1])) - clean_out

    slices = list(token_slices(len(reads), reads.shape[1] * reads.shape[2], reads.device))
    if len(slices) == 1:
        return run(reads)
    result = torch.empty_like(reads)
    for rows in slices:
        result[rows] = run(reads[rows])
    return result
