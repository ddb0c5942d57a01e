"""The fast engine: a schedule of stacked, partly replayed runs. Same numbers as `reference`."""

from circuitgraph.engines.fast.engine import FastEngine

__all__ = ["FastEngine"]
