"""The way from the stream to queries, keys and values in closed form, where there is one."""

from functools import partial

import torch
from torch import Tensor

from circuitgraph.engines.gradient.backward import HEAD_PORTS
from circuitgraph.engines.gradient.ports import Attention
from circuitgraph.graph import ModelShape
from circuitgraph.lens.backend import Backend
from circuitgraph.lens.norms import find_norm
from circuitgraph.lens.record import Recording
from circuitgraph.lens.segments import Segments
from circuitgraph.lens.shortage import is_shortage

__all__ = ["known_attention"]


def known_attention(
    blocks: Backend,
    clean: Recording,
    segments: Segments,
    shape: ModelShape,
    *,
    heads_apart: bool,
) -> list[Attention | None]:
    """Return what is known of every layer's norm and projections, proved on a run.

    Args:
        blocks: The model's blocks.
        clean: How blocks are called.
        segments: A run of the clean prompts.
        shape: The model's shape.
        heads_apart: Whether a head's value depends on its own projections alone.
    """
    return [
        _known(blocks, clean, segments, layer, shape, heads_apart)
        for layer in range(len(segments.layers))
    ]


def _known(
    blocks: Backend,
    clean: Recording,
    segments: Segments,
    number: int,
    shape: ModelShape,
    heads_apart: bool,
) -> Attention | None:
    layer = segments.layers[number]
    reads = layer.reads[0].detach()
    if any(not torch.equal(reads, other.detach()) for other in layer.reads.values()):
        return None
    function = partial(blocks.attention_input, number, call=clean.layers[number].call)
    try:
        norm = find_norm(function, layer.resid.detach()[:2], reads[:2])
    except Exception as error:  # a block that cannot be probed is differentiated instead
        if is_shortage(error):
            raise
        return None
    if norm is None:
        return None
    weights, n_own = {}, {}
    for port in HEAD_PORTS:
        weight = blocks.projection_weight(number, port)
        cut = layer.ports[port]
        made = cut.of(layer.projected[cut.module].made.detach())
        if not _is_linear(reads[:2], weight, made[:2]):
            return None
        weights[port] = weight
        n_own[port] = 1
        if heads_apart:
            n_own[port] = shape.n_heads if port == "q" else shape.kv_heads
    return Attention(norm, weights, n_own)


def _is_linear(reads: Tensor, weight: Tensor, made: Tensor) -> bool:
    """Return whether a projection is a product with its weight, but for a bias."""
    bias = made.flatten(0, -2).double() - reads.flatten(0, -2).double() @ weight.double()
    tolerance = {torch.float64: 1e-9, torch.float32: 1e-4}.get(made.dtype, 5e-2)
    scale = made.double().abs().amax().clamp_min(1e-6)
    return bool(((bias - bias[:1]).abs().amax() <= tolerance * scale).item())
