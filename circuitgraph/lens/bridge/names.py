"""Names of the hook points at which nodes write and ports read.

A node's *value* is what is patched: a head's ``z`` (before ``W_O``), an MLP's output, the residual
stream after the embedding. ``blocks.L.hook_in`` and friends are TransformerLens' canonical names;
the aliases (``hook_resid_pre``, ``hook_z``) mean the same points.
"""

from typing import Any

from circuitgraph.nodes import MLP, Embed, Head, Logits, Port, Writer

__all__ = ["mlp_input_name", "mlp_writer", "point_name", "value_name"]


def value_name(model: Any, node: Writer) -> str:
    """Return the hook point that holds what a node writes; a head shares its layer's."""
    match node:
        case Embed():
            return "blocks.0.hook_in"
        case Head(layer=layer):
            return f"blocks.{layer}.attn.o.hook_in"
        case MLP(layer=layer):
            inner = (
                "mlp" if mlp_writer(model.blocks[layer]) is model.blocks[layer].mlp else "mlp.out"
            )
            return f"blocks.{layer}.{inner}.hook_out"


def mlp_writer(block: Any) -> Any:
    """Return the module whose output is what the MLP writes.

    That is the MLP itself, or its last projection where the MLP is no module of its own (OPT).
    """
    return block.mlp if block.mlp.name is not None else block.mlp.out


def mlp_input_name(block: Any) -> str:
    """Return which hook of a sequential block sees the residual stream that its MLP reads."""
    aliases = dict(getattr(block, "hook_aliases", {}))
    name: str = aliases.get("hook_resid_mid", "ln2.hook_in")
    return name


def point_name(model: Any, port: Port, parallel: bool) -> str:
    """Return the hook point that holds the residual stream which a port reads."""
    match port.node:
        case Head(layer=layer):
            return f"blocks.{layer}.hook_in"
        case MLP(layer=layer):
            if parallel:
                return f"blocks.{layer}.hook_in"
            return f"blocks.{layer}.{mlp_input_name(model.blocks[layer])}"
        case Logits():
            return f"blocks.{len(model.blocks) - 1}.hook_out"
