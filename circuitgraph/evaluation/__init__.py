"""Saying whether a circuit is right: faithful, complete, minimal, and better than chance.

A circuit is run in mode ``replace``, variant ``single-pass``: every edge outside it carries the
patched value, all of it is live. What is measured is never one number: `Evaluation` (one circuit,
all that is needed to read it), `Curve` (f against size), `Completeness` and `Minimality`
(knock-outs), `CircuitTests` (hypothesis tests). This room runs circuits through an experiment and
knows nothing of models, engines, files or drawing.
"""

from circuitgraph.evaluation.curve import Curve, curve
from circuitgraph.evaluation.evaluation import Evaluation, evaluate
from circuitgraph.evaluation.hypotheses import CircuitTests, run_tests
from circuitgraph.evaluation.knockouts import Completeness, Minimality, completeness, minimality
from circuitgraph.evaluation.storage import load_judgement as load

__all__ = [
    "CircuitTests",
    "Completeness",
    "Curve",
    "Evaluation",
    "Minimality",
    "completeness",
    "curve",
    "evaluate",
    "load",
    "minimality",
    "run_tests",
]
