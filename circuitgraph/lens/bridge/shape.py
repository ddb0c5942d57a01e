"""A model's shape, read off its bridge."""

import inspect
from functools import cache
from typing import Any

from circuitgraph.errors import ModelError
from circuitgraph.graph import ModelShape
from circuitgraph.lens.bridge.parts import has_mlp, is_parallel

__all__ = ["shape_of"]


def shape_of(model: Any) -> ModelShape:
    """Return the shape of a TransformerLens ``TransformerBridge``.

    Raises:
        ModelError: Not a bridge, or a bridge whose blocks are not made of attention and MLP.
    """
    blocks = getattr(model, "blocks", None)
    cfg = getattr(model, "cfg", None)
    if blocks is None or cfg is None or not hasattr(cfg, "n_heads"):
        raise ModelError(
            f"{type(model).__name__} is no TransformerBridge: load a model with "
            "cg.load_model(name) or TransformerBridge.boot_transformers(name)"
        )
    for number, block in enumerate(blocks):
        parts = block._modules
        attn = parts.get("attn")
        if attn is None or any(part not in attn._modules for part in ("q", "k", "v", "o")):
            raise ModelError(
                f"layer {number} of this model has no attention with separate q, k, v and o "
                f"projections (it is a {type(block).__name__} of {', '.join(parts)}): "
                "its heads cannot be patched exactly"
            )
        for name in ("attn", "mlp"):
            if name in parts and _adds_residual(parts[name]):
                raise ModelError(
                    f"the {'attention' if name == 'attn' else 'MLP'} of this model adds the "
                    f"residual stream to its own output ({type(parts[name]).__name__}), so what it "
                    "writes cannot be told apart: its nodes cannot be patched exactly"
                )
    parallel = {is_parallel(block) for block in blocks}
    if len(parallel) > 1:
        raise ModelError("this model mixes parallel and sequential blocks, which is not supported")
    with_mlp = tuple(number for number, block in enumerate(blocks) if has_mlp(block))
    n_heads = int(cfg.n_heads)
    n_kv_heads = int(getattr(cfg, "n_key_value_heads", None) or n_heads)
    return ModelShape(
        n_layers=len(blocks),
        n_heads=n_heads,
        n_kv_heads=None if n_kv_heads == n_heads else n_kv_heads,
        parallel=parallel.pop() and bool(with_mlp),
        attn_only=not with_mlp,
        mlp_layers=None if len(with_mlp) in (0, len(blocks)) else with_mlp,
    )


def _adds_residual(bridge: Any) -> bool:
    """Return whether a module is handed the residual stream to add it itself (BLOOM, MPT)."""
    inner = bridge.original_component
    return inner is not None and _takes_residual(inner.__class__)


@cache
def _takes_residual(module: Any) -> bool:
    return "residual" in inspect.signature(module.forward).parameters
