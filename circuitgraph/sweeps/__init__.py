"""Sweeps in parts: what is asked as a value, its parts by name, where they run and are kept.

An experiment hands parts to an executor (`executor`: in this process; `cluster`: on Ray). `sweep`
runs the parts of a folder that are not there yet, `store` is that folder, `lock` lets one driver
work on it. `question`, `manifest` and `frame` are what is asked, what is computed and what makes
effects of the numbers; `identity` gives values names. Knows no model: a recipe makes what answers.
"""

from circuitgraph.sweeps.cluster import Cluster
from circuitgraph.sweeps.sweep import (
    Estimate,
    Status,
    estimate_sweep,
    load_sweep,
    sweep,
    sweep_status,
)

__all__ = [
    "Cluster",
    "Estimate",
    "Status",
    "estimate_sweep",
    "load_sweep",
    "sweep",
    "sweep_status",
]
