"""Finding the parts of a Hugging Face model by a map of their names."""

import inspect
from typing import Any

import torch
from torch import Tensor

from circuitgraph.errors import ModelError
from circuitgraph.graph import ModelShape
from circuitgraph.lens.huggingface.families import HuggingFaceMap, module_at
from circuitgraph.lens.modules import first_tensor
from circuitgraph.lens.parts import BlockParts, ModelParts, Projection, Wrapped, is_conv1d

__all__ = ["find_parts"]

_TELL = "name its parts with cg.HuggingFaceMap"


def find_parts(model: Any, names: HuggingFaceMap) -> tuple[ModelParts, ModelShape]:
    """Return a model's parts and shape; nothing is run.

    Raises:
        ModelError: A part is not where the map says, or is not such that its nodes can be told
            apart.
    """
    blocks = module_at(model, names.blocks)
    if blocks is None or not len(blocks):
        raise ModelError(
            f"{type(model).__name__} has no blocks at {names.blocks!r}: {_TELL}(blocks=...)"
        )
    n_heads = names.n_heads or int(getattr(_config(model), "num_attention_heads", 0) or 0)
    if n_heads < 1:
        raise ModelError(
            f"the config of {type(model).__name__} does not say how many heads a layer has: "
            f"{_TELL}(n_heads=...)"
        )
    parts, grouped = [], set()
    for number, block in enumerate(blocks):
        found, kv_heads = _block_parts(number, block, names, n_heads)
        parts.append(found)
        grouped.add(kv_heads)
    if len(grouped) > 1:
        raise ModelError(
            f"the layers of this model have different numbers of key-value heads ({grouped}), "
            "which is not supported"
        )
    kv_heads = grouped.pop()
    shape = ModelShape(
        n_layers=len(parts),
        n_heads=n_heads,
        n_kv_heads=None if kv_heads == n_heads else kv_heads,
        parallel=names.parallel,
    )
    unembed = module_at(model, names.unembed) if names.unembed else model.get_output_embeddings()
    if unembed is None:
        raise ModelError(
            f"{type(model).__name__} has nothing that makes logits at {names.unembed!r}: load it "
            f"with AutoModelForCausalLM, or {_TELL}(unembed=...)"
        )
    norm = module_at(model, names.final_norm) if names.final_norm else None
    if names.final_norm and norm is None:
        raise ModelError(
            f"{type(model).__name__} has no final norm at {names.final_norm!r}: "
            f"{_TELL}(final_norm=...), or final_norm='' where it has none"
        )

    def run(tokens: Tensor, keep_keys: bool) -> Tensor:
        cache = {}
        if keep_keys:
            from transformers import DynamicCache

            cache = {"past_key_values": DynamicCache()}  # of its own config it would forget keys
        output = model(input_ids=tokens, use_cache=keep_keys, **cache)
        return first_tensor(getattr(output, "logits", output))

    return (
        ModelParts(
            blocks=tuple(parts),
            n_heads=n_heads,
            final_norm=None if norm is None else Wrapped(norm, norm),
            unembed=Wrapped(unembed, unembed),
            run=run,
        ),
        shape,
    )


def _config(model: Any) -> Any:
    own = getattr(model.config, "get_text_config", None)
    return own() if callable(own) else model.config


def _block_parts(
    number: int, block: Any, names: HuggingFaceMap, n_heads: int
) -> tuple[BlockParts, int]:
    """Return one block's parts, and how many key-value heads it has."""
    attn = module_at(block, names.attention)
    wanted = [names.qkv, names.o] if names.qkv else [names.q, names.k, names.v, names.o]
    held = [None if attn is None else module_at(attn, name) for name in wanted]
    if any(part is None for part in held):
        names_held = ", ".join(
            name for name, _ in (block if attn is None else attn).named_children()
        )
        raise ModelError(
            f"layer {number} of this model has no attention with separate q, k, v and o "
            f"projections, {', '.join(wanted)} of {names.attention} (it has {names_held}): its "
            f"heads cannot be patched exactly. Where they are called otherwise, {_TELL}"
        )
    mlp = module_at(block, names.mlp)
    norm = module_at(block, names.mlp_norm) if names.mlp_norm else None
    if mlp is None or (names.mlp_norm and norm is None):
        wrong = ("mlp", names.mlp) if mlp is None else ("mlp_norm", names.mlp_norm)
        raise ModelError(
            f"layer {number} of this model has no {wrong[1]!r} (it has "
            f"{', '.join(name for name, _ in block.named_children())}): {_TELL}({wrong[0]}=...)"
        )
    for what, part in (("attention", attn), ("MLP", mlp)):
        if "residual" in inspect.signature(type(part).forward).parameters:
            raise ModelError(
                f"the {what} of this model adds the residual stream to its own output "
                f"({type(part).__name__}), so what it writes cannot be told apart: its nodes "
                "cannot be patched exactly"
            )
    (q, k, v), kv_heads = _projections(number, held, names, n_heads)
    alone = (norm, mlp) if any(True for _ in mlp.children()) else None
    return (
        BlockParts(
            block=block,
            attn=attn,
            q=q,
            k=k,
            v=v,
            o=Wrapped(held[-1], held[-1]),
            mlp=mlp,
            reader=mlp if norm is None else norm,
            parallel=names.parallel,
            alone=alone,
        ),
        kv_heads,
    )


def _projections(
    number: int, held: list[Any], names: HuggingFaceMap, n_heads: int
) -> tuple[tuple[Projection, Projection, Projection], int]:
    """Return queries, keys and values of a layer, and its number of key-value heads."""
    *projections, o = held
    d_head, rest = divmod(_widths(o)[0], n_heads)
    if names.qkv:
        (fused,) = projections
        total = _widths(fused)[1]
        kv_heads, odd = divmod(total - n_heads * d_head, 2 * d_head)
        if rest or odd or kv_heads < 1 or n_heads % kv_heads:
            raise ModelError(
                f"{names.qkv} of layer {number} has {total} features, which are not queries of "
                f"{n_heads} heads of width {d_head} with keys and values"
            )
        q, k, v = _features(names.qkv_order, n_heads, kv_heads, d_head, fused.weight.device)
        return (
            Projection(fused, fused, q),
            Projection(fused, fused, k),
            Projection(fused, fused, v),
        ), kv_heads
    widths = [_widths(one)[1] for one in projections]
    kv_heads, odd = divmod(widths[1] * n_heads, widths[0])
    if rest or odd or kv_heads < 1 or n_heads % kv_heads or widths[2] % kv_heads:
        raise ModelError(
            f"queries, keys and values of layer {number} are {widths} wide, which are not "
            f"{n_heads} heads with keys and values of their own or shared"
        )
    q, k, v = (Projection(one, one) for one in projections)
    return (q, k, v), kv_heads


def _widths(module: Any) -> tuple[int, int]:
    """Return how many features an affine module reads and gives."""
    if is_conv1d(module):
        rows, columns = module.weight.shape
        return int(rows), int(columns)
    return int(module.in_features), int(module.out_features)


def _features(
    order: str, n_heads: int, kv_heads: int, d_head: int, device: torch.device
) -> tuple[Any, Any, Any]:
    """Return which output features of one projection are queries, keys and values."""
    n_q, n_kv = n_heads * d_head, kv_heads * d_head
    if order == "joined":
        return (
            slice(0, n_q),
            slice(n_q, n_q + n_kv),
            slice(n_q + n_kv, n_q + 2 * n_kv),
        )
    shared = n_heads // kv_heads
    index = torch.arange(n_q + 2 * n_kv, device=device).view(kv_heads, shared + 2, d_head)
    return index[:, :shared].flatten(), index[:, shared].flatten(), index[:, shared + 1].flatten()
