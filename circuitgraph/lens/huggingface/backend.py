"""The back end of a plain Hugging Face model: its shape, its limits and its places."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, assert_never

from circuitgraph.errors import ModelError
from circuitgraph.graph import ModelShape
from circuitgraph.lens.backend import Limits
from circuitgraph.lens.blocks import Blocks
from circuitgraph.lens.huggingface.families import HuggingFaceMap, map_of
from circuitgraph.lens.huggingface.hooks import IN, hooked, names_of, site_of
from circuitgraph.lens.huggingface.parts import find_parts
from circuitgraph.lens.huggingface.proof import prove
from circuitgraph.lens.sites import Hook, HookNames, HookSite
from circuitgraph.nodes import MLP, Embed, Head, Logits, Port, Writer

__all__ = ["HuggingFaceModel"]


class HuggingFaceModel(Blocks):
    """A causal language model of Hugging Face, with its parts found.

    Args:
        model: An ``AutoModelForCausalLM`` in eval mode, with eager attention.
        parts: Where it keeps its parts; by default what its family is known to use.
        tokenizer: Turns text into tokens; by default ``model.tokenizer``, where there is one.

    Raises:
        ModelError: A part is not where it was looked for, or its heads cannot be told apart.
    """

    def __init__(
        self, model: Any, parts: HuggingFaceMap | None = None, tokenizer: Any = None
    ) -> None:
        self.names = map_of(model) if parts is None else parts
        found, shape = find_parts(model, self.names)
        self.shape: ModelShape = shape
        super().__init__(found, model, tokenizer)

    @property
    def name(self) -> str:
        """What the model is called."""
        return str(getattr(self.model.config, "name_or_path", "") or type(self.model).__name__)

    @cached_property
    def limits(self) -> Limits:
        """How much the model takes."""
        own = getattr(self.model.config, "get_text_config", None)
        config = own() if callable(own) else self.model.config
        weight = self.parts.unembed.inner.weight
        d_vocab = int(weight.shape[0])
        _, d_head, d_model = self.output_weights[0].shape
        widths = ("intermediate_size", "ffn_hidden_size", "n_inner", "ffn_dim")
        given = (getattr(config, name, None) for name in widths)
        d_mlp = next((width for width in given if isinstance(width, int)), 4 * d_model)
        return Limits(
            n_ctx=int(getattr(config, "max_position_embeddings", 0) or 0),
            d_vocab=int(getattr(config, "vocab_size", 0) or d_vocab),
            d_vocab_out=d_vocab,
            d_model=d_model,
            d_head=d_head,
            d_mlp=d_mlp,
            dtype=next(self.model.parameters()).dtype,
            device=next(self.model.parameters()).device,
        )

    def problems(self) -> list[ModelError]:
        """Return what keeps the model from being patched as it stands."""
        found = super().problems()
        kind = str(getattr(self.model.config, "_attn_implementation", None) or "eager")
        if kind != "eager":
            found.append(
                ModelError(
                    f"the model's attention is {kind!r}, whose parts cannot be seen: call "
                    "model.set_attn_implementation('eager'), or load it with "
                    "AutoModelForCausalLM.from_pretrained(name, attn_implementation='eager')"
                )
            )
        return found or self._unproved

    def renewed(self) -> "HuggingFaceModel":
        """Return the back end of the model as it is now."""
        return HuggingFaceModel(self.model, self.names, self._tokenizer)

    @cached_property
    def _unproved(self) -> list[ModelError]:
        """What is wrong with the map, found on two tokens."""
        wrong = prove(self, self.names)
        return [ModelError(wrong)] if wrong else []

    # -- places ---------------------------------------------------------------------------------

    @cached_property
    def hook_names(self) -> HookNames:
        """What every module reads and gives, by its path."""
        return names_of(self.model, self.names, self._path_of_unembed)

    @cached_property
    def _path_of_unembed(self) -> str:
        unembed = self.parts.unembed.module
        return next(path for path, module in self.model.named_modules() if module is unembed)

    def find_hook(self, name: str) -> HookSite:
        """Return where an activation is read."""
        return site_of(name, self.names)

    def write_site(self, node: Writer) -> HookSite:
        """Return where a node's value passes."""
        match node:
            case Embed():
                path = f"{self.names.blocks}.0{IN}"
            case Head(layer=layer):
                path = f"{self.names.blocks}.{layer}.{self.names.attention}.{self.names.o}{IN}"
            case MLP(layer=layer):
                path = f"{self.names.blocks}.{layer}.{self.names.mlp}"
            case _:
                assert_never(node)
        return site_of(path, self.names)

    def port_site(self, port: Port) -> HookSite:
        """Return where the residual stream passes that a port reads."""
        match port.node:
            case Head(layer=layer):
                path = f"{self.names.blocks}.{layer}{IN}"
            case MLP(layer=layer):
                inner = self.names.mlp_norm or self.names.mlp
                inside = "" if self.names.parallel else f".{inner}"
                path = f"{self.names.blocks}.{layer}{inside}{IN}"
            case Logits():
                path = f"{self.names.blocks}.{len(self) - 1}"
            case _:
                assert_never(port.node)
        return site_of(path, self.names)

    def hooks(self, pairs: Sequence[tuple[HookSite, Hook]]) -> AbstractContextManager[None]:
        """Call hooks at some modules inside the ``with`` block, in this order at each."""
        return hooked(self.model, pairs)
