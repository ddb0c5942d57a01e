"""The only room that knows models and the modules under them.

`backend` is the face that engines see, and picks the back end of a model. A back end finds the
parts of a model (`parts`), in a `TransformerBridge` (`bridge`) or in a plain Hugging Face model
(`huggingface`); everything else is written once on those parts: how a run is recorded (`record`) or
cut into segments for gradients (`segments`, `rules`, `norms`), how one block, one attention or the
final readout is run by itself with parts of it replaced (`blocks`, `calls`, `modules`), where
activations are read (`sites`), and what is special about a model, found by trying (`traits`,
`axes`, `additivity`). It knows nothing of requests or sweeps.
"""
