"""Checks that any model can be put to: does this package give exact numbers on it?

They need no oracle. The fast engine is held to the reference engine, and both to what must be true
of path patching on any model: patching clean values into themselves changes nothing, every writer
together makes the corrupt run, a batch is its prompts one by one. The tests put every family of
models to them, ``circuitgraph models --check NAME`` a model of the user's.

This room knows nothing of how models are loaded or of how results are shown.
"""

from circuitgraph.checks.prompts import random_prompts
from circuitgraph.checks.results import Result, Status
from circuitgraph.checks.running import CHECKS, Check, checks_named, run_checks

__all__ = [
    "CHECKS",
    "Check",
    "Result",
    "Status",
    "checks_named",
    "random_prompts",
    "run_checks",
]
