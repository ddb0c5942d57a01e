"""Proving that the residual stream is a sum: that blocks add to it, and change it in no other way.

What a node sends along an edge is a difference of residual streams, and a path that passes a block
by passes it unchanged. Where a block norms *after* it adds, it does not: no edge is there to patch.
"""

from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.errors import CircuitGraphError, ModelError
from circuitgraph.lens.backend import Backend
from circuitgraph.lens.shortage import is_shortage
from circuitgraph.lens.traits import probe_length, probes

__all__ = ["check_additive"]

ALLOWED = {torch.float64: 1e-6, torch.float32: 1e-3}
COARSE = 0.1
"""For types of half the width. What is no sum is off by about 1."""

_PROVED: WeakKeyDictionary[Any, str] = WeakKeyDictionary()
"""What was found; it follows from a model's code, not from its weights."""


def check_additive(backend: Backend) -> None:
    """Raise where a block does more to the residual stream than add to it.

    Costs a pass over a few tokens, and each block again with its attention and MLP held, once per
    model.

    Args:
        backend: The model.

    Raises:
        ModelError: The stream is no sum, or the model cannot be run at all.
    """
    if backend.model not in _PROVED:
        tokens, _ = probes(backend, probe_length(backend, 1))
        _PROVED[backend.model] = _problem(backend, tokens[:1])
    if problem := _PROVED[backend.model]:
        raise ModelError(problem)


def _problem(backend: Backend, tokens: Int[Tensor, "1 pos"]) -> str:
    try:
        recording = backend.record(tokens)
    except CircuitGraphError:
        raise
    except Exception as error:  # whatever a foreign model raises
        if is_shortage(error):
            raise
        raise ModelError(f"this model cannot be run ({type(error).__name__}: {error})") from error
    for number, layer in enumerate(recording.layers):
        resid = layer.resid
        held = {"z": layer.z, "mlp": layer.mlp}
        # Every value by a factor of its own: no norm undoes that.
        spread = torch.linspace(0.5, 1.0, resid.shape[-1], device=resid.device, dtype=resid.dtype)
        moved = resid + resid.flip(-1).abs().add(resid.abs()) * spread
        one, other = (
            backend.run_block(number, hidden, layer.call, **held) for hidden in (resid, moved)
        )
        points = [("after", one.out, other.out)]
        if layer.mid is not None and not backend.parallel[number]:
            points.insert(0, ("between the attention and the MLP of", one.mid, other.mid))
        for where, before, after in points:
            sizes = [part.abs() for part in (resid, moved, one.mid, other.mid, before, after)]
            size = torch.stack(sizes).sum(dim=0)
            apart = ((after - before) - (moved - resid)).abs() / (size + 1e-3 * size.mean())
            if not apart.max().item() <= ALLOWED.get(resid.dtype, COARSE):
                return (
                    f"the residual stream of this model is no sum: {where} layer {number} a change "
                    "that came into the layer does not arrive as it was (a norm after adding, as "
                    "in GPT-1 and OPT-350m, does that). So there are no edges between nodes, and "
                    "no path can be patched exactly; models that norm before attention and MLP, "
                    "or norm what they add, can be patched"
                )
    return ""
