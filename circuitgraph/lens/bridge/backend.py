"""The back end of a `TransformerBridge`: its shape, its limits and its hook points."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

from circuitgraph.graph import ModelShape
from circuitgraph.lens.backend import Limits
from circuitgraph.lens.blocks import Blocks
from circuitgraph.lens.bridge.hooks import find_hook
from circuitgraph.lens.bridge.names import point_name, value_name
from circuitgraph.lens.bridge.parts import parts_of
from circuitgraph.lens.bridge.shape import shape_of
from circuitgraph.lens.sites import Hook, HookNames, HookSite, Part
from circuitgraph.nodes import Port, Writer

__all__ = ["BridgeBackend"]


class BridgeBackend(Blocks):
    """A TransformerLens ``TransformerBridge``.

    Args:
        model: The bridge.
        tokenizer: In place of the bridge's own.

    Raises:
        ModelError: Its heads or MLPs cannot be told apart.
    """

    def __init__(self, model: Any, tokenizer: Any = None) -> None:
        """Look at the model's blocks; nothing is run."""
        self.shape: ModelShape = shape_of(model)
        super().__init__(parts_of(model), model, tokenizer)

    @property
    def name(self) -> str:
        """What the model is called."""
        return str(getattr(self.model.cfg, "model_name", "") or type(self.model).__name__)

    @cached_property
    def limits(self) -> Limits:
        """How much the model takes."""
        cfg, weight = self.model.cfg, next(self.model.parameters())
        d_vocab, d_model = int(getattr(cfg, "d_vocab", 0) or 0), int(cfg.d_model)
        d_vocab_out = int(getattr(cfg, "d_vocab_out", None) or 0)
        return Limits(
            n_ctx=int(getattr(cfg, "n_ctx", 0) or 0),
            d_vocab=d_vocab,
            d_vocab_out=d_vocab_out if d_vocab_out > 0 else d_vocab,
            d_model=d_model,
            d_head=int(getattr(cfg, "d_head", None) or d_model // cfg.n_heads),
            d_mlp=int(getattr(cfg, "d_mlp", None) or 4 * d_model),
            dtype=weight.dtype,
            device=weight.device,
        )

    def renewed(self) -> "BridgeBackend":
        """Return the back end of the model as it is now."""
        return BridgeBackend(self.model, self._tokenizer)

    # -- places ---------------------------------------------------------------------------------

    @cached_property
    def hook_names(self) -> HookNames:
        """Every hook point, by name and alias."""
        after = ("blocks.", "ln_final", "unembed", "hook_unembed")
        known = frozenset(self.model.hook_dict)
        names = frozenset(name for name in known if name.startswith(after))
        return HookNames(
            names,
            known - names,
            tuple(f"blocks.{layer}.attn.hook_pattern" for layer in range(len(self))),
            "model.hook_dict lists them all",
            "hook_pattern or hook_attn_scores",
        )

    def find_hook(self, name: str) -> HookSite:
        """Return where a hook sits."""
        return find_hook(self.model, name)

    def write_site(self, node: Writer) -> HookSite:
        """Return the hook point that holds what a node writes."""
        parts: dict[str, Part] = {"Embed": "in", "Head": "z", "MLP": "mlp out"}
        part = parts[type(node).__name__]
        return HookSite(value_name(self.model, node), getattr(node, "layer", 0), part)

    def port_site(self, port: Port) -> HookSite:
        """Return the hook point that holds the residual stream which a port reads."""
        name = point_name(self.model, port, self.shape.parallel)
        layer = getattr(port.node, "layer", None)
        part: Part = "out" if layer is None else "in" if name.endswith(".hook_in") else "mid"
        return HookSite(name, len(self) - 1 if layer is None else layer, part)

    @contextmanager
    def hooks(self, pairs: Sequence[tuple[HookSite, Hook]]) -> Iterator[None]:
        """Call hooks at some hook points inside the ``with`` block."""
        with self.model.hooks(fwd_hooks=[(site.name, hook) for site, hook in pairs]):
            yield
