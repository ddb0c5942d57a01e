"""From logits, or from any activation, to one number per prompt, and what of them that needs.

Knows nothing of engines.
"""

from circuitgraph.metrics.activations import Activation, AttentionTo
from circuitgraph.metrics.answers import (
    Accuracy,
    KLDivergence,
    LogitDiff,
    LogProb,
    Probability,
    Rank,
)
from circuitgraph.metrics.base import Metric, Prompts, Unbound
from circuitgraph.metrics.function import AnyMetric, as_metric
from circuitgraph.metrics.readout import Readout
from circuitgraph.metrics.rounding import rounding
from circuitgraph.metrics.sets import LogitMargin, LogOdds, ProbabilityDiff

__all__ = [
    "Accuracy",
    "Activation",
    "AnyMetric",
    "AttentionTo",
    "KLDivergence",
    "LogOdds",
    "LogProb",
    "LogitDiff",
    "LogitMargin",
    "Metric",
    "Probability",
    "ProbabilityDiff",
    "Prompts",
    "Rank",
    "Readout",
    "Unbound",
    "as_metric",
    "rounding",
]
