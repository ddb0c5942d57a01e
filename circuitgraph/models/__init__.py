"""Loading the models people name, the small default among them.

`known_models` is plain data and needs no torch; `load_model` brings torch in when it is first
touched. This room knows nothing of patching: it hands back a `TransformerBridge` or a model of
Hugging Face ready for it (evaluation mode, no gradients), and any of your own serves as well.
"""

from typing import TYPE_CHECKING

from circuitgraph.models.known import DEFAULT_MODEL, KnownModel, known_models

if TYPE_CHECKING:
    from circuitgraph.models.load import load_model

__all__ = ["DEFAULT_MODEL", "KnownModel", "known_models", "load_model"]


def __getattr__(name: str) -> object:
    """Import the loader, and torch with it, only when it is asked for."""
    if name == "load_model":
        from circuitgraph.models.load import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
