"""Tasks: aligned prompt pairs, with named positions and the metric that says how a model does.

A task comes from a function that returns a `Task` (`ioi` is the first), from a file of pairs of
one's own (`load`, `save`), or from a data set (`from_rows`, `mib`). This room knows nothing of
graphs, plans and engines: a `Task` is data that anything can run.
"""

from circuitgraph.tasks.datasets import from_rows, mib
from circuitgraph.tasks.files import load, save
from circuitgraph.tasks.ioi import ioi
from circuitgraph.tasks.task import Task

__all__ = ["Task", "from_rows", "ioi", "load", "mib", "save"]
