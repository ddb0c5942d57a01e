"""Proving on the model itself that its parts are what a map says; two tokens are run.

What cannot be seen from names and shapes: that every part is called, and once; whether attention
and MLP of a block read the same stream; whether a block adds what they write and nothing else;
which features of one projection are keys and values.
"""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from circuitgraph.lens.axes import argument_axes
from circuitgraph.lens.calls import CannotSlice
from circuitgraph.lens.huggingface.families import HuggingFaceMap
from circuitgraph.lens.record import record
from circuitgraph.lens.shortage import is_shortage
from circuitgraph.lens.traits import close

if TYPE_CHECKING:
    from circuitgraph.lens.blocks import Blocks
    from circuitgraph.lens.record import LayerRecord, Recording

__all__ = ["prove"]


def prove(backend: "Blocks", names: HuggingFaceMap) -> str:
    """Return what is wrong with a map; empty where it is right. Costs a pass over two tokens."""
    device = next(backend.model.parameters()).device
    tokens = torch.arange(1, 3, device=device)[None]
    try:
        argument_axes(backend.parts, tokens)  # runs of its own, which must not be counted below
    except (RuntimeError, KeyError, IndexError, AttributeError, TypeError) as error:
        if is_shortage(error):
            raise
        return _cannot_run(backend, tokens, error)
    read: dict[int, list[Tensor]] = {}

    def see(layer: int, _: Any, args: Any, kwargs: Any) -> None:
        read.setdefault(layer, []).append(args[0] if args else kwargs["hidden_states"])

    handles = [
        part.reader.register_forward_pre_hook(partial(see, number), with_kwargs=True)
        for number, part in enumerate(backend.blocks)
    ]
    try:
        recording = record(backend.parts, tokens, copies=True)
    except (RuntimeError, KeyError, IndexError, AttributeError, TypeError) as error:
        if is_shortage(error):
            raise
        return _cannot_run(backend, tokens, error)
    finally:
        for handle in handles:
            handle.remove()
    if len(recording.layers) != len(backend):
        return (
            f"{names.blocks} holds {len(backend)} blocks, but {len(recording.layers)} calls of one "
            "were seen in one run: the model's layers share their blocks, or not all are run"
        )
    for number, layer in enumerate(recording.layers):
        wrong = _missing(layer, names) or _wrong_stream(layer, read.get(number, []), names)
        if wrong := wrong or _other_writes(backend, number, layer, names):
            return f"layer {number} of {type(backend.model).__name__}: {wrong}"
    return _wrong_features(backend, recording, names) if names.qkv else ""


def _cannot_run(backend: "Blocks", tokens: Tensor, error: Exception) -> str:
    return (
        f"this model cannot be run with its parts watched, on token ids {tokens.tolist()} "
        f"({type(error).__name__}: {error}): see cg.HuggingFaceMap"
    )


def _missing(layer: "LayerRecord", names: HuggingFaceMap) -> str:
    attn = names.attention
    at = {
        "q": f"{attn}.{names.qkv or names.q}",
        "k": f"{attn}.{names.qkv or names.k}",
        "v": f"{attn}.{names.qkv or names.v}",
        "z": f"{attn}.{names.o}",
        "attn": attn,
        "mlp": names.mlp,
    }
    for name, path in at.items():
        if getattr(layer, name) is None:
            return f"{path} is never called: name the part that is, with cg.HuggingFaceMap"
    return ""


def _wrong_stream(layer: "LayerRecord", read: list[Tensor], names: HuggingFaceMap) -> str:
    """Return what is wrong with what the MLP is said to read."""
    where = names.mlp_norm or names.mlp
    if len(read) != 1:
        return f"{where} is called {len(read)} times in one run, not once"
    value = read[0].reshape(layer.resid.shape) if read[0].numel() == layer.resid.numel() else None
    if value is None:
        return f"{where} does not read the residual stream: its input has another shape"
    same = torch.equal(value, layer.resid)
    if names.parallel and not same:
        return (
            f"{where} does not read the block's input, as it would with parallel=True: say "
            "parallel=False, or name another mlp_norm, in cg.HuggingFaceMap"
        )
    wrote = layer.attn is not None and bool(layer.attn.any())
    if not names.parallel and same and wrote:
        return (
            f"{where} reads the block's input, not what the attention has written to: say "
            "parallel=True, or name another mlp_norm, in cg.HuggingFaceMap"
        )
    return ""


def _other_writes(
    backend: "Blocks", number: int, layer: "LayerRecord", names: HuggingFaceMap
) -> str:
    """Return what is wrong where a block adds anything but what its heads and its MLP write.

    With heads and MLP silent it must leave the residual stream as it is, but for biases, which are
    the same at both positions; with the MLP silent, as the MLP's norm reads it.
    """
    assert layer.z is not None
    assert layer.mlp is not None
    if layer.mlp.shape != layer.resid.shape:
        return (
            f"{names.mlp} writes {layer.mlp.shape[-1]} features, the residual stream has "
            f"{layer.resid.shape[-1]}: name the module whose output is added, with mlp=..."
        )
    silent = torch.zeros_like(layer.mlp)
    cases = [(torch.zeros_like(layer.z), layer.resid, "heads and MLP are")]
    if layer.mid is not None:
        cases.append((layer.z, layer.mid, "the MLP is"))
    for z, expected, which in cases:
        out = backend.run_block(number, layer.resid, layer.call, z=z, mlp=silent).out
        added = out - expected
        if not close(added[:, :1] + out[:, 1:], added[:, 1:] + out[:, 1:]):
            return (
                f"the residual stream of this model is no sum: when {which} silent, the block "
                f"does not leave it as {names.mlp_norm or names.mlp} reads it. It norms the stream "
                "itself or adds something else, or mlp and mlp_norm of cg.HuggingFaceMap name "
                "other parts"
            )
    return ""


def _wrong_features(backend: "Blocks", recording: "Recording", names: HuggingFaceMap) -> str:
    """Return what is wrong with where keys and values are said to stand in one projection."""
    wrong = (
        f"{names.qkv} does not hold queries, keys and values in the order {names.qkv_order!r}: "
        "say another qkv_order in cg.HuggingFaceMap, or the model cannot be patched"
    )
    layer = recording.layers[0]
    if layer.keys is None or layer.values is None or layer.v is None or layer.k is None:
        return ""
    kv_heads = layer.values.shape[1]
    values = layer.v.unflatten(-1, (kv_heads, -1)).transpose(1, 2)
    if values.shape != layer.values.shape or not close(values, layer.values):
        return wrong
    changed = layer.k.clone()
    changed[..., : changed.shape[-1] // kv_heads] += layer.k.std() + 1
    try:
        keys, others = backend.attention_keys(0, layer.resid, layer.call, k=lambda _: changed)
    except CannotSlice:
        return ""
    alone = kv_heads == 1 or close(keys[:, 1:], layer.keys[:, 1:])
    moved = not close(keys[:, :1], layer.keys[:, :1])
    return "" if alone and moved and close(others, layer.values) else wrong
