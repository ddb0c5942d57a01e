"""The only room that knows TransformerLens and the modules under it.

What a model's shape is (`shape`), what its hook points are called (`names`), how a run is recorded
(`record`), and how one block, one attention or the final readout is run by itself with parts of it
replaced (`blocks`, `readout`). It knows nothing of requests or sweeps.
"""
