"""Circuits: weighted subgraphs of a model's graph, made, combined, kept and looked at.

This room knows the graph and the labelled results of the `effects` room. It does not draw: that is
the `draw` room, which `Circuit.draw` calls when asked. Nothing here needs torch.
"""

from circuitgraph.circuit.circuit import Circuit
from circuitgraph.circuit.weights import Weight

__all__ = ["Circuit", "Weight"]
