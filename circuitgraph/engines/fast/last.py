"""The last block of a measuring run, at the positions that the metric reads alone."""

from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.attend import clean_prefix
from circuitgraph.engines.fast.readout import measure_rows
from circuitgraph.engines.fast.stack import JobStack, Stack
from circuitgraph.lens.calls import FixedKeys, adapt_call

__all__ = ["can_finish_early", "finish"]


def can_finish_early(stack: JobStack, layer: int) -> bool:
    """Return whether the last block can run at the metric's positions alone."""
    return (
        not stack.state.sites
        and stack.state.traits.additive
        and stack.state.traits.sliceable
        and stack.live.empty
        and layer not in stack.index.head_ports
        and layer not in stack.index.heads
        and all(first < layer for first in stack.first_layers)
    )


def finish(stack: JobStack, change: Stack, layer: int) -> Float[Tensor, "row value"]:
    """Run the last block at the positions that the metric reads, and measure."""
    state, blocks, record = stack.state, stack.state.blocks, stack.state.layer(layer)
    metric_read = state.setup.metric.read
    assert metric_read is not None
    assert record.z is not None
    read = metric_read[:, None].clamp_min(stack.start)
    n_rows = len(change)
    z = attention_at(stack, layer, change, read)
    clean_z = record.z[state.rows, read]
    z_change = z.unflatten(0, (n_rows, -1)).to(change.dtype) - clean_z
    picked = change[:, state.rows, read - stack.start]
    weight = blocks.output_weights[layer].flatten(0, 1)
    mid = picked + z_change @ weight.to(change.dtype)
    final = mid
    if blocks.has_mlp(layer):
        reads = picked if blocks.parallel[layer] else mid
        final = mid + stack.mlp(layer, reads, read)
    patches = stack.index.logits
    if patches:
        final = final.clone()
        for row, op in patches:
            final[row] = stack.arriving_at(row, op, final[row], read)
    final = final * (metric_read >= stack.start)[:, None, None]
    return measure_rows(state, final)


def attention_at(stack: JobStack, layer: int, change: Stack, read: Tensor) -> Tensor:
    """Return the heads' values at few positions: keys and values of all, queries of those."""
    state, blocks, record = stack.state, stack.state.blocks, stack.state.layer(layer)
    n_rows, n_prompts, n_pos = len(change), state.n_prompts, state.n_pos
    clean = record.resid[:, stack.start :]
    hidden = (clean + change.to(clean.dtype)).flatten(0, 1)
    queries = slice(stack.start, None) if stack.start else slice(0, None)
    call = adapt_call(record.call, n_rows, n_prompts, n_pos, queries)
    keys, values = blocks.attention_keys(layer, hidden, call)
    if stack.start:
        keys, values = clean_prefix(state, layer, n_rows, stack.start).update(keys, values)
    fixed = FixedKeys(lambda _, __: (keys, values))
    call = adapt_call(record.call, n_rows, n_prompts, n_pos, read, fixed)
    at = change[:, state.rows, read - stack.start]
    few = (record.resid[state.rows, read] + at.to(clean.dtype)).flatten(0, 1)
    return blocks.attention_z(layer, few, call)
