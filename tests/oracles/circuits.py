"""A circuit run alone, node by node, on a plain transformer: what every judgement rests on."""

from collections.abc import Collection

import torch
from torch import Tensor

import circuitgraph as cg
from tests.oracles.plain import LOGITS, Edge, PlainTransformer

__all__ = ["plain_edge", "run_circuit"]


def run_circuit(
    model: PlainTransformer, clean: Tensor, corrupt: Tensor, kept: Collection[Edge]
) -> Tensor:
    """The logits where the kept edges carry live values and all others corrupt ones."""
    fixed = model.values(corrupt)
    kept = set(kept)
    live: dict[tuple, Tensor] = {("embed",): model.embed(clean)}

    def reads(port):
        senders = model.senders(port)
        seen = {node: live[node] if (node, port) in kept else fixed[node] for node in senders}
        # A stream is only summed from what stands before its port: the rest is not looked at.
        return model.residual_at({**fixed, **seen}, port)

    for node in model.nodes[1:]:
        live[node] = model.value(node, reads)
    with torch.no_grad():
        return model.logits(reads(LOGITS))


def plain_edge(edge: cg.Edge) -> Edge:
    """The oracle's name of an edge."""
    return _node(edge.sender), _port(edge.receiver)


def _node(node):
    match node:
        case cg.Embed():
            return ("embed",)
        case cg.Head(layer=layer, head=head):
            return ("head", layer, head)
        case cg.MLP(layer=layer):
            return ("mlp", layer)


def _port(port):
    match port.node:
        case cg.Head(layer=layer, head=head):
            return (port.name, layer, head)
        case cg.MLP(layer=layer):
            return ("mlp", layer)
        case _:
            return LOGITS
