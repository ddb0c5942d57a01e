"""Plans: what is patched, frozen, recorded and read, in which order; made to be read.

A plan is immutable data. It does not know how it was made or how it is run: no model, no tensors.
"""

from circuitgraph.plan.cells import Cell, Cells
from circuitgraph.plan.ops import (
    Freeze,
    FromRun,
    FromSource,
    Op,
    PatchPort,
    PatchWrite,
    ReadLogits,
    Record,
    ReplaceSenders,
    Run,
    Source,
    Value,
)
from circuitgraph.plan.plan import Axis, Cost, Plan
from circuitgraph.plan.set_cells import SetCells

__all__ = [
    "Axis",
    "Cell",
    "Cells",
    "Cost",
    "Freeze",
    "FromRun",
    "FromSource",
    "Op",
    "PatchPort",
    "PatchWrite",
    "Plan",
    "ReadLogits",
    "Record",
    "ReplaceSenders",
    "Run",
    "SetCells",
    "Source",
    "Value",
]
