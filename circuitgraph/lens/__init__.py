"""The only room that knows models and the modules under them.

How a run is recorded (`record`), how one block, one attention or the final readout is run by itself
with parts of it replaced (`blocks`, `calls`, `modules`), and what is special about a model, found
by trying (`traits`). Where a `TransformerBridge` keeps its parts is said in `bridge`. It knows
nothing of requests or sweeps.
"""
