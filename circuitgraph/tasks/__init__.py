"""Tasks: aligned prompt pairs, with named positions and the metric that says how a model does.

A task is one file with one function that returns a `Task`; `ioi` is the first. This room knows
nothing of graphs, plans and engines: a `Task` is data that anything can run.
"""

from circuitgraph.tasks.ioi import ioi
from circuitgraph.tasks.task import Task

__all__ = ["Task", "ioi"]
