"""Where a `TransformerBridge` keeps the parts of a model."""

from typing import Any

from circuitgraph.lens.bridge.names import mlp_input_name, mlp_writer
from circuitgraph.lens.parts import BlockParts, ModelParts, Projection, Wrapped

__all__ = ["has_mlp", "is_parallel", "parts_of"]


def parts_of(model: Any) -> ModelParts:
    """Return the parts of a bridge whose shape has been found."""

    def run(tokens: Any, keep_keys: bool) -> Any:
        return model(tokens, return_type="logits")

    return ModelParts(
        blocks=tuple(_block_parts(block) for block in model.blocks),
        n_heads=int(model.cfg.n_heads),
        final_norm=_wrapped(getattr(model, "ln_final", None)),
        unembed=_wrapped(model.unembed),
        run=run,
    )


def _wrapped(module: Any) -> Any:
    return None if module is None else Wrapped(module, module.original_component)


def _block_parts(block: Any) -> BlockParts:
    attn, parallel, held = block.attn, is_parallel(block), block._modules
    mlp, reader, alone = None, None, None
    if has_mlp(block):
        mlp = mlp_writer(block)
        reader = getattr(block, mlp_input_name(block).split(".")[0]) if not parallel else None
        norm = held.get("ln2" if "ln2" in held else "ln1")
        if block.mlp.name is not None and norm is not None:
            alone = (norm.original_component, block.mlp.original_component)
    q, k, v = (Projection(module, module.original_component) for module in (attn.q, attn.k, attn.v))
    return BlockParts(
        block=block.original_component,
        attn=attn,
        q=q,
        k=k,
        v=v,
        o=_wrapped(attn.o),
        mlp=mlp,
        reader=reader,
        parallel=parallel,
        attn_norm=None if parallel else held.get("ln1"),
        alone=alone,
    )


def has_mlp(block: Any) -> bool:
    """Return whether a block has an MLP."""
    mlp = block._modules.get("mlp")
    return mlp is not None and mlp.original_component is not None


def is_parallel(block: Any) -> bool:
    """Return whether attention and MLP of a block read the same residual stream."""
    return type(block).__name__ == "ParallelBlockBridge"
