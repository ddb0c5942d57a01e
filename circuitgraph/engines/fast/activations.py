"""Activations that metrics read, in a stack of measuring jobs.

A block is run once more with its own modules for the hooks inside it; only the layers that a metric
reads pay for that.
"""

from contextlib import ExitStack

from torch import Tensor

from circuitgraph.engines.fast.attend import Override, seen_in_attention
from circuitgraph.engines.fast.stack import JobStack, Stack
from circuitgraph.lens.sites import HookSite

__all__ = ["read_activations"]


def read_activations(stack: JobStack, change: Stack, layer: int | None) -> dict[str, Tensor]:
    """Return the activations ``[row prompt ...]`` that metrics read of one layer, by hook.

    Args:
        stack: The jobs; all their positions are run.
        change: By how much the residual stream differs from clean where the layer begins.
        layer: Which layer; None for what comes after the last one.
    """
    state = stack.state
    sites = {name: site for name, site in state.sites.items() if site.layer == layer}
    if not sites:
        return {}
    clean = state.final if layer is None else state.layer(layer).resid
    hidden = clean + change.to(clean.dtype)
    if layer is None:
        found = _at_the_end(stack, hidden, sites)
    else:
        made = sites
        if layer in stack.index.head_ports:
            made = {name: site for name, site in sites.items() if site.part != "pattern"}
        found = _inside(stack, change, layer, made)
        for name, site in sites.items():
            if name not in made:
                found[name] = _pattern(stack, change, hidden, layer, site)
            elif site.part == "in":
                found[name] = hidden.flatten(0, 1)
    shape, n_pos = (len(change), state.n_prompts), state.n_pos
    return {name: _by_prompt(value, shape, n_pos) for name, value in found.items()}


def _by_prompt(value: Tensor, shape: tuple[int, int], n_pos: int) -> Tensor:
    """Return an activation as ``[row prompt ...]``; some modules see all positions side by side."""
    if value.ndim == 2 and len(value) == shape[0] * shape[1] * n_pos:
        return value.unflatten(0, (*shape, n_pos))
    return value.unflatten(0, shape)


def _at_the_end(stack: JobStack, hidden: Tensor, sites: dict[str, HookSite]) -> dict[str, Tensor]:
    state = stack.state
    with ExitStack() as opened:
        catches = {
            name: opened.enter_context(state.blocks.caught(site)) for name, site in sites.items()
        }
        state.blocks.read_out(hidden.flatten(0, 1), state.layer(0).call)
    return {name: catch.value for name, catch in catches.items()}


def _inside(
    stack: JobStack, change: Stack, layer: int, sites: dict[str, HookSite]
) -> dict[str, Tensor]:
    """Return what is read inside a block."""
    inner = {name: site for name, site in sites.items() if site.part != "in"}
    if not inner:
        return {}
    z_change = stack.heads(layer, change)
    with ExitStack() as opened:
        catches = {
            name: opened.enter_context(stack.state.blocks.caught(site))
            for name, site in inner.items()
            if site.part not in ("mid", "out", "mlp out")
        }
        output = stack.run_block(layer, change, z_change, live_attention=True)
    kept = {"mid": output.mid, "out": output.out, "mlp out": output.mlp}
    found = {}
    for name, site in inner.items():
        value = catches[name].value if name in catches else kept[site.part]
        assert value is not None
        found[name] = value
    return found


def _pattern(stack: JobStack, change: Stack, hidden: Tensor, layer: int, site: HookSite) -> Tensor:
    """Return attention patterns or scores, of patched heads the ones that their ports make."""
    patches = stack.index.head_ports[layer]
    overrides = [Override(row, op.port, at) for at, (row, op) in enumerate(patches)]
    clean = stack.state.layer(layer).resid
    streams = clean + stack.arriving_all(patches, change).to(clean.dtype)
    return seen_in_attention(stack.state, layer, hidden, overrides, streams, site)
