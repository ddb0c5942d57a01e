"""Names of the hook points at which nodes write and ports read.

A node's *value* is what is patched: a head's ``z`` (before ``W_O``), an MLP's output, the residual
stream after the embedding. ``blocks.L.hook_in`` and friends are TransformerLens' canonical names;
the aliases (``hook_resid_pre``, ``hook_z``) mean the same points.
"""

from typing import Any

from circuitgraph.nodes import MLP, Embed, Head, Logits, Port, Writer

__all__ = ["mlp_input_name", "point_name", "value_name"]


def value_name(node: Writer) -> str:
    """Return the hook point that holds what a node writes; a head shares its layer's.

    Example:
        >>> value_name(Head(9, 6)), value_name(MLP(0))
        ('blocks.9.attn.o.hook_in', 'blocks.0.mlp.hook_out')
    """
    match node:
        case Embed():
            return "blocks.0.hook_in"
        case Head(layer=layer):
            return f"blocks.{layer}.attn.o.hook_in"
        case MLP(layer=layer):
            return f"blocks.{layer}.mlp.hook_out"


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
