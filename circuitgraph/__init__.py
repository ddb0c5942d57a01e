"""Path patching, compiled.

A model is a graph of heads and MLPs; a request says which edges to patch; a compiler turns it into
a plan of sender patches, freezes and receiver patches that anyone can read; an engine runs the plan
and gives labelled effects back.

Importing this package brings in neither torch nor TransformerLens; names that need them do so when
they are first touched.

Example:
    >>> import circuitgraph as cg
    >>> graph = cg.ModelGraph(cg.ModelShape(n_layers=12, n_heads=12))
    >>> plan = cg.compile(graph, "5.5 -> 8.6.v => logits", variant="mlps")
    >>> plan.cost.forward_passes
    2
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from circuitgraph.compiler import compile
from circuitgraph.errors import CircuitGraphError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits, Port
from circuitgraph.plan import Plan
from circuitgraph.request import EdgeSets, Request, Through, as_request, parse, path
from circuitgraph.schedule import Schedule, schedule

if TYPE_CHECKING:
    from circuitgraph import discover as discover
    from circuitgraph import draw as draw
    from circuitgraph import tasks as tasks
    from circuitgraph.circuit import Circuit as Circuit
    from circuitgraph.effects import Comparison as Comparison
    from circuitgraph.effects import Effects as Effects
    from circuitgraph.engines.gradient import EAP as EAP
    from circuitgraph.engines.gradient import EAPIG as EAPIG
    from circuitgraph.engines.gradient import CleanCorrupt as CleanCorrupt
    from circuitgraph.experiment import Experiment as Experiment
    from circuitgraph.experiment import Given as Given
    from circuitgraph.experiment import Mean as Mean
    from circuitgraph.experiment import Method as Method
    from circuitgraph.lens.huggingface import HuggingFaceMap as HuggingFaceMap
    from circuitgraph.metrics import Accuracy as Accuracy
    from circuitgraph.metrics import Activation as Activation
    from circuitgraph.metrics import AttentionTo as AttentionTo
    from circuitgraph.metrics import KLDivergence as KLDivergence
    from circuitgraph.metrics import LogitDiff as LogitDiff
    from circuitgraph.metrics import LogitMargin as LogitMargin
    from circuitgraph.metrics import LogOdds as LogOdds
    from circuitgraph.metrics import LogProb as LogProb
    from circuitgraph.metrics import Probability as Probability
    from circuitgraph.metrics import ProbabilityDiff as ProbabilityDiff
    from circuitgraph.metrics import Rank as Rank
    from circuitgraph.models import load_model as load_model
    from circuitgraph.sweeps import load_sweep as load_sweep
    from circuitgraph.sweeps import sweep as sweep

__all__ = [
    "EAP",
    "EAPIG",
    "MLP",
    "Accuracy",
    "Activation",
    "AttentionTo",
    "Circuit",
    "CircuitGraphError",
    "CleanCorrupt",
    "Comparison",
    "Edge",
    "EdgeSets",
    "Effects",
    "Embed",
    "Experiment",
    "Given",
    "Head",
    "HuggingFaceMap",
    "KLDivergence",
    "LogOdds",
    "LogProb",
    "LogitDiff",
    "LogitMargin",
    "Logits",
    "Mean",
    "Method",
    "ModelGraph",
    "ModelShape",
    "Plan",
    "Port",
    "Probability",
    "ProbabilityDiff",
    "Rank",
    "Request",
    "Schedule",
    "Through",
    "as_request",
    "compile",
    "discover",
    "draw",
    "load_model",
    "load_sweep",
    "parse",
    "path",
    "schedule",
    "sweep",
    "tasks",
]

__version__ = "0.1.0.dev0"

_LATER = {
    "EAP": "circuitgraph.engines.gradient",
    "EAPIG": "circuitgraph.engines.gradient",
    "Accuracy": "circuitgraph.metrics",
    "Activation": "circuitgraph.metrics",
    "AttentionTo": "circuitgraph.metrics",
    "Circuit": "circuitgraph.circuit",
    "CleanCorrupt": "circuitgraph.engines.gradient",
    "Comparison": "circuitgraph.effects",
    "Effects": "circuitgraph.effects",
    "Experiment": "circuitgraph.experiment",
    "Given": "circuitgraph.experiment",
    "Mean": "circuitgraph.experiment",
    "Method": "circuitgraph.experiment",
    "HuggingFaceMap": "circuitgraph.lens.huggingface",
    "KLDivergence": "circuitgraph.metrics",
    "LogProb": "circuitgraph.metrics",
    "LogitDiff": "circuitgraph.metrics",
    "Probability": "circuitgraph.metrics",
    "LogOdds": "circuitgraph.metrics",
    "LogitMargin": "circuitgraph.metrics",
    "ProbabilityDiff": "circuitgraph.metrics",
    "Rank": "circuitgraph.metrics",
    "load_model": "circuitgraph.models",
    "load_sweep": "circuitgraph.sweeps",
    "sweep": "circuitgraph.sweeps",
}
"""Names that are imported when they are first touched: they need torch, pandas or the like."""


def __getattr__(name: str) -> Any:
    if name in ("discover", "draw", "tasks"):
        return import_module(f"circuitgraph.{name}")
    if name not in _LATER:
        raise AttributeError(f"module 'circuitgraph' has no attribute {name!r}")
    value = getattr(import_module(_LATER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
