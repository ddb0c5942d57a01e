"""The words of the graph: nodes, ports and edges, and their names to and from text.

A *node* writes to the residual stream or reads the end of it. A *port* is where a node reads it.
An *edge* joins a sender node to a receiver port. All are plain values, compared and hashed by what
they hold. This room knows nothing of graphs or models, so it cannot say whether a node exists.
"""

from circuitgraph.nodes.kinds import (
    MLP,
    Edge,
    Embed,
    Head,
    Logits,
    Node,
    Port,
    PortName,
    Reader,
    Receiver,
    Writer,
    receiver_port,
)
from circuitgraph.nodes.names import describe, parse_node, parse_port

__all__ = [
    "MLP",
    "Edge",
    "Embed",
    "Head",
    "Logits",
    "Node",
    "Port",
    "PortName",
    "Reader",
    "Receiver",
    "Writer",
    "describe",
    "parse_node",
    "parse_port",
    "receiver_port",
]
