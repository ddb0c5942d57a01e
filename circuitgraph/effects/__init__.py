"""Labelled results: what an engine measured, read as tables, intervals, files and comparisons.

`Effects` holds the metric of every patched run, per prompt, beside the clean and corrupt metrics.
`Comparison` holds the effects of one request under several variants, modes, sources or engines.

This room knows nothing of models and engines: it is given numbers with names. It imports neither
torch nor a drawing library; scipy and statsmodels are imported by the functions that need them.
"""

from circuitgraph.effects.comparison import Comparison
from circuitgraph.effects.results import Effects

__all__ = ["Comparison", "Effects"]
