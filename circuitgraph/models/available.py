"""Whether a known model can be loaded here and now, found without loading anything."""

from pathlib import Path

from huggingface_hub import constants

from circuitgraph.errors import ModelError
from circuitgraph.models.known import KnownModel
from circuitgraph.models.wheel import WHEELS, find_gguf

__all__ = ["missing"]

_WEIGHTS = ("*.safetensors", "*.bin")


def missing(model: KnownModel) -> str:
    """Say what it takes before a model can be loaded; nothing where it is here already.

    Example:
        >>> from circuitgraph.models.known import known_models
        >>> missing(known_models()[-1])  # doctest: +SKIP
        '16.1 GB from the Hugging Face hub, after its licence is accepted there'
    """
    if model.name in WHEELS:
        try:
            find_gguf(model.name)
        except ModelError:
            return WHEELS[model.name].install
        return ""
    folder = Path(constants.HF_HUB_CACHE) / f"models--{model.name.replace('/', '--')}" / "snapshots"
    if any(found for pattern in _WEIGHTS for found in folder.glob(f"*/{pattern}")):
        return ""
    size = model.download_mb
    amount = f"{size / 1000:.1f} GB" if size >= 1000 else f"{size} MB"
    return f"{amount} from the {model.source}"
