"""Tasks: aligned prompt pairs, with named positions and the metric that says how a model does.

A task comes from a function that returns a `Task`: `ioi`, `greater_than`, `docstring`, `pronouns`,
`agreement`, `induction`, `capitals`; from a file of pairs of one's own (`load`, `save`); or from a
data set (`from_rows`, `mib`). This room knows nothing of graphs, plans and engines: a `Task` is
data that anything can run.
"""

from circuitgraph.tasks.agreement import agreement
from circuitgraph.tasks.capitals import capitals
from circuitgraph.tasks.datasets import from_rows, mib
from circuitgraph.tasks.docstring import docstring
from circuitgraph.tasks.files import load, save
from circuitgraph.tasks.greater_than import greater_than
from circuitgraph.tasks.induction import induction
from circuitgraph.tasks.ioi import ioi
from circuitgraph.tasks.pronouns import pronouns
from circuitgraph.tasks.task import Task

__all__ = [
    "Task",
    "agreement",
    "capitals",
    "docstring",
    "from_rows",
    "greater_than",
    "induction",
    "ioi",
    "load",
    "mib",
    "pronouns",
    "save",
]
