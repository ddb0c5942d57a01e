"""The passes. Each returns a new schedule with the same answer and less to do."""

from circuitgraph.schedule.passes.layers import (
    first_point,
    replay_frozen,
    trim_layers,
)
from circuitgraph.schedule.passes.positions import trim_positions
from circuitgraph.schedule.passes.sharing import share_runs

__all__ = [
    "first_point",
    "replay_frozen",
    "share_runs",
    "trim_layers",
    "trim_positions",
]
