"""The model as a graph: which nodes there are, and which sender comes before which port.

`ModelShape` says how many layers and heads a model has and how its blocks are wired; `ModelGraph`
derives nodes, ports and edges from it. Everything follows from one number per node and port: the
*point* of the residual stream at which it writes or reads. This room knows nothing of torch; it
meets a model only in `ModelGraph.from_model`, which asks the `lens` room for the model's shape.
"""

from circuitgraph.graph.edge_index import EdgeIndex
from circuitgraph.graph.graph import ModelGraph
from circuitgraph.graph.shape import ModelShape

__all__ = ["EdgeIndex", "ModelGraph", "ModelShape"]
