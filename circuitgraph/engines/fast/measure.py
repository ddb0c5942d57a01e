"""The measuring stage: receivers patched, everything downstream live, up to the metric.

The stack holds one row per job, each row entering at its first changed layer. Positions before the
first changed one stay clean: their keys and values are taken from the recording. After the last
attention only the positions that the metric reads are run.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.activations import read_activations
from circuitgraph.engines.fast.last import can_finish_early, finish
from circuitgraph.engines.fast.memory import rows_that_fit
from circuitgraph.engines.fast.readout import measure_rows
from circuitgraph.engines.fast.send import first_change
from circuitgraph.engines.fast.stack import JobStack, Stack
from circuitgraph.engines.fast.state import Outputs, State
from circuitgraph.engines.splitting import in_stacks
from circuitgraph.plan import PatchPort
from circuitgraph.schedule import Stage

__all__ = ["bytes_per_row", "first_position", "most_ports", "run_measure", "with_activations"]


def run_measure(
    state: State, stage: Stage, outputs: Mapping[int, Outputs], budget: int
) -> Float[Tensor, "job value"]:
    """Return the metric of every job, per prompt."""

    def recorded_at(number: int) -> Tensor | None:
        # What a stage recorded, it recorded at the same places for all of its jobs.
        return next(iter(outputs[number].ports.values())).places

    start = first_position(state, stage, recorded_at)
    order = sorted(range(len(stage.jobs)), key=lambda number: stage.jobs[number].first_layer)
    order_back = torch.empty(len(order), dtype=torch.long)
    order_back[torch.tensor(order)] = torch.arange(len(order))

    def run(numbers: Sequence[int]) -> Tensor:
        jobs = [stage.jobs[number] for number in numbers]
        return measure_stack(JobStack(state, jobs, outputs, start))

    rows = rows_that_fit(budget, bytes_per_row(state, start, most_ports(stage)))
    found = torch.cat([values for _, values in in_stacks(order, rows, run)])
    return found[order_back.to(found.device)]


def first_position(state: State, stage: Stage, recorded_at: Callable[[int], Tensor | None]) -> int:
    """Return the first position that a stage runs; 0 where it must run them all.

    Args:
        state: The experiment.
        stage: The stage.
        recorded_at: The places at which an earlier stage records, by its number; None for all.
    """
    if not state.traits.sliceable or state.sites:
        return 0
    start = first_change(state, stage)
    for number in {
        op.delta_from for job in stage.jobs for op in job.run.ports if isinstance(op, PatchPort)
    }:
        places = recorded_at(number)
        start = min(start, 0 if places is None else int(places.min()))
    if stage.from_first:
        places = state.places(stage.where)
        if places is not None and places.numel():
            start = max(start, int(places.min()))
    return start


def most_ports(stage: Stage) -> int:
    """Return how many ports the stage's jobs patch at most."""
    return max(len(job.run.ports) for job in stage.jobs)


def bytes_per_row(state: State, start: int, n_ports: int) -> int:
    """What one row needs: its change, its ports, its attention, and what an MLP makes of it."""
    limits = state.blocks.limits
    length = state.n_pos - start
    on_cpu = state.final.device.type == "cpu"
    width = (14 + 5 * n_ports) * limits.d_model + (0 if on_cpu else 5 * limits.d_mlp)
    scores = 4 * state.blocks.n_heads * length * state.n_pos
    return int(state.n_prompts * (length * width + scores) * state.delta_dtype.itemsize)


def measure_stack(stack: JobStack) -> Float[Tensor, "row value"]:
    """Return the metric of every row."""
    state, start = stack.state, stack.start
    n_layers = len(state.blocks)
    seen: dict[str, Tensor] = {}
    change = stack.entering()
    metric_read = state.setup.metric.read
    first = stack.first_layers[0]
    for layer in range(n_layers):
        if state.sites:
            seen |= read_activations(stack, change, layer)
        if layer < first:
            continue
        entered = sum(first <= layer for first in stack.first_layers)
        last = layer == n_layers - 1 and metric_read is not None
        if last and can_finish_early(stack, layer):
            return finish(stack, change, layer)
        change[:entered] = stack.block(layer, change[:entered])
    final = stack.patch_logits(change)
    if state.sites:
        seen |= read_activations(stack, final, None)
    if metric_read is None:
        return with_activations(state, measure_rows(state, everywhere(final, start)), seen)
    at = (metric_read - start).clamp_min(0)
    picked = final[:, state.rows[:, 0], at][:, :, None]
    # A metric that reads a position before the first changed one reads the clean run.
    picked = picked * (metric_read >= start)[:, None, None]
    return with_activations(state, measure_rows(state, picked), seen)


def everywhere(change: Stack, start: int) -> Float[Tensor, "row prompt pos d_model"]:
    """Return a change with the clean positions before the first changed one."""
    return torch.nn.functional.pad(change, (0, 0, start, 0)) if start else change


def with_activations(
    state: State, values: Float[Tensor, "row logit_value"], seen: Mapping[str, Tensor]
) -> Float[Tensor, "row value"]:
    """Return metrics of logits, and after them those of activations."""
    metrics = state.setup.metric.activations
    found = [metric.measure(seen[metric.hook]).to(values.dtype) for metric in metrics]
    return torch.cat([values, *found], dim=1) if found else values
