"""The fast engine: a schedule of stacked, partly replayed runs. Same numbers as `reference`."""

from circuitgraph.engines.fast.chunks import ChunkedEngine, can_split, prompts_at_once
from circuitgraph.engines.fast.engine import FastEngine

__all__ = ["ChunkedEngine", "FastEngine", "can_split", "prompts_at_once"]
