"""Making bridges: TransformerLens wraps models by name, or ones that are given."""

from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.model_bridge.sources import boot

__all__ = ["TransformerBridge", "boot"]
