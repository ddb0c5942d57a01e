"""The recompute stage of longer paths: an inner node's new value from its patched port alone."""

from collections.abc import Mapping, Sequence

import torch

from circuitgraph.engines.fast.attend import Override, attend
from circuitgraph.engines.fast.measure import bytes_per_row, most_ports
from circuitgraph.engines.fast.memory import rows_that_fit
from circuitgraph.engines.fast.send import mlp_change
from circuitgraph.engines.fast.state import Outputs, State
from circuitgraph.engines.splitting import in_stacks
from circuitgraph.nodes import MLP, Head
from circuitgraph.plan import PatchPort
from circuitgraph.schedule import Stage

__all__ = ["run_recompute"]


def run_recompute(
    state: State, stage: Stage, outputs: Mapping[int, Outputs], budget: int
) -> Outputs:
    """Return by how much every recorded node's value differs from clean."""
    found = Outputs()

    def run(numbers: Sequence[int]) -> None:
        _run_stack(state, stage, numbers, outputs, found)

    numbers = range(len(stage.jobs))
    most = rows_that_fit(budget, bytes_per_row(state, 0, most_ports(stage)))
    for _ in in_stacks(numbers, most, run):
        pass
    return found


def _run_stack(
    state: State,
    stage: Stage,
    numbers: Sequence[int],
    outputs: Mapping[int, Outputs],
    found: Outputs,
) -> None:
    patches = [
        (number, op)
        for number in numbers
        for op in stage.jobs[number].run.ports
        if isinstance(op, PatchPort)
    ]
    for layer in sorted({op.port.node.layer for _, op in patches}):  # type: ignore[union-attr]
        heads = [
            (n, op)
            for n, op in patches
            if isinstance(op.port.node, Head) and op.port.node.layer == layer
        ]
        if heads:
            _heads(state, stage, layer, heads, outputs, found)
        mlps = [(n, op) for n, op in patches if op.port.node == MLP(layer)]
        if mlps:
            changes = torch.stack([_arriving(state, stage, n, op, outputs) for n, op in mlps])
            record = state.layer(layer)
            assert record.mlp is not None
            made = mlp_change(state, layer, changes, state.mid(layer), record.mlp)
            for (number, _), change in zip(mlps, made, strict=True):
                found.writes[number, MLP(layer)] = change


def _heads(
    state: State,
    stage: Stage,
    layer: int,
    patches: Sequence[tuple[int, PatchPort]],
    outputs: Mapping[int, Outputs],
    found: Outputs,
) -> None:
    """Recompute heads of one layer, each from its patched ports and otherwise clean ones."""
    record = state.layer(layer)
    assert record.z is not None
    rows = {number: row for row, number in enumerate(dict.fromkeys(n for n, _ in patches))}
    overrides = [Override(rows[number], op.port, at) for at, (number, op) in enumerate(patches)]
    arriving = torch.stack([_arriving(state, stage, n, op, outputs) for n, op in patches])
    streams = record.resid + arriving.to(record.resid.dtype)
    z = attend(state, layer, None, overrides, streams, len(rows), start=0)
    change = state.blocks.split(z.to(state.delta_dtype) - record.z.to(state.delta_dtype))
    for number, op in patches:
        assert isinstance(op.port.node, Head)
        found.writes[number, op.port.node] = change[rows[number], :, :, op.port.node.head]


def _arriving(
    state: State,
    stage: Stage,
    number: int,
    op: PatchPort,
    outputs: Mapping[int, Outputs],
) -> torch.Tensor:
    """Return the change that a patched port reads, at every position."""
    job = stage.jobs[number].source(op.delta_from)
    arrived = outputs[op.delta_from].ports[job, state.point(op.port)]
    change = arrived.everywhere(state.n_pos)
    mask = state.setup.positions.mask(op.at)
    return change if mask is None else change * mask[..., None]
