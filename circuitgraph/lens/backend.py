"""What engines ask of a model: the one face behind which a library stands.

`backend_of` finds the back end of a model: TransformerLens (`bridge`) or plain Hugging Face
(`huggingface`). Both find the model's parts, and the verbs are written once on those (`blocks`).
Hidden states are ``[row*prompt query d_model]``: a stack of rows, each row all prompts, at the
query positions. Only `run_in_segments` keeps gradients; no verb leaves anything on the model.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from circuitgraph.errors import ModelError
from circuitgraph.graph import ModelShape
from circuitgraph.lens.sites import Caught, Hook, HookNames, HookSite
from circuitgraph.nodes import Port, Writer

if TYPE_CHECKING:
    from circuitgraph.lens.blocks import BlockOutput
    from circuitgraph.lens.record import BlockCall, Recording
    from circuitgraph.lens.rules import Rule
    from circuitgraph.lens.segments import Edit, Segments

__all__ = ["Backend", "Limits", "backend_of"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a model can take, and how wide it is.

    Args:
        n_ctx: The longest prompt; 0 where the model does not say.
        d_vocab: How many tokens it knows.
        d_vocab_out: How many logits it gives.
        d_model: Width of the residual stream.
        d_head: Width of a head's value.
        d_mlp: Width inside an MLP, or a guess at it.
        dtype: What its weights are held in.
        device: Where they are.
    """

    n_ctx: int
    d_vocab: int
    d_vocab_out: int
    d_model: int
    d_head: int
    d_mlp: int
    dtype: torch.dtype
    device: torch.device


@runtime_checkable
class Backend(Protocol):
    """A model, as engines see it.

    Attributes:
        model: The user's model.
        name: What results call it.
        n_heads: Query heads of a layer.
        parallel: Whether attention and MLP read the same stream, by layer.
    """

    model: Any
    n_heads: int
    parallel: Sequence[bool]

    # -- what it is -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """What results call the model."""

    @property
    def shape(self) -> ModelShape:
        """Layers and heads.

        Raises:
            ModelError: Its heads or MLPs cannot be told apart, and why.
        """

    @property
    def limits(self) -> Limits:
        """How much it takes."""

    @property
    def n_parameters(self) -> int:
        """How many weights it has."""

    @property
    def tokenizer(self) -> Any:
        """Its tokenizer; None without one."""

    def problems(self) -> list[ModelError]:
        """Return what keeps the model from being patched as it stands: training mode, hooks."""

    def renewed(self) -> "Backend":
        """Return the back end of the model as it is now: nothing read of its weights is kept."""

    def __len__(self) -> int:
        """Return the number of layers."""

    def has_mlp(self, layer: int) -> bool:
        """Return whether a layer has an MLP."""

    # -- whole runs -----------------------------------------------------------------------------

    def logits(self, tokens: Tensor) -> Tensor:
        """Return the model's logits ``[prompt pos d_vocab]``; one forward pass."""

    def record(
        self, tokens: Tensor, *, read: Tensor | None = None, fields: Sequence[str] | None = None
    ) -> "Recording":
        """Run the model once and keep what it computed.

        Args:
            tokens: Right-padded prompts.
            read: Positions whose logits are wanted, ``[prompt read]``; None computes them all.
            fields: Names of the `LayerRecord` fields to keep; None keeps all.
        """

    def run_in_segments(
        self,
        tokens: Tensor,
        *,
        read: Tensor | None = None,
        edits: "Mapping[tuple[str, int], Edit] | None" = None,
    ) -> "Segments":
        """Run the model once with gradients on, cut at every block.

        Args:
            tokens: Right-padded prompts.
            read: The one position whose logits are wanted, ``[prompt]``; None for all.
            edits: Values that the run goes on with, by what is edited and its layer.
        """

    def rule(self, name: str | None, tokens: Tensor) -> "Rule":
        """Return how gradients are to pass the model, tried on one prompt.

        Raises:
            UnsupportedError: Something that the rule must change was not found.
        """

    # -- places ---------------------------------------------------------------------------------

    @property
    def hook_names(self) -> HookNames:
        """Which activations a metric can read, by name."""

    def find_hook(self, name: str) -> HookSite:
        """Return where an activation is read."""

    def write_site(self, node: Writer) -> HookSite:
        """Return where a node's value passes; a head shares its layer's."""

    def port_site(self, port: Port) -> HookSite:
        """Return where the residual stream passes that a port reads."""

    def hooks(self, pairs: Sequence[tuple[HookSite, Hook]]) -> AbstractContextManager[Any]:
        """Call hooks at some places inside the ``with`` block, in this order at each."""

    def caught(self, site: HookSite) -> AbstractContextManager[Caught]:
        """Catch what passes a place inside the ``with`` block."""

    def see(self, tokens: Tensor, sites: dict[str, HookSite]) -> dict[str, Tensor]:
        """Run the model as it is and return what passes some places, ``[prompt ...]`` by name."""

    # -- parts by themselves --------------------------------------------------------------------

    def split(self, z: Tensor) -> Tensor:
        """Return heads side by side as ``[... head d_head]``."""

    @property
    def output_weights(self) -> list[Tensor]:
        """``W_O`` of every layer, ``[head d_head d_model]``."""

    def projection_weight(self, layer: int, port: str) -> Tensor:
        """Return what makes a layer's queries, keys or values, ``[d_model features]``."""

    def attention_input(self, layer: int, hidden: Tensor, call: "BlockCall") -> Tensor:
        """Return what the query, key and value projections read when the block reads ``hidden``."""

    def project(
        self, layer: int, port: str, attention_input: Tensor, heads: slice | None = None
    ) -> Tensor:
        """Return queries, keys or values before rotation, of all heads or of a slice of widths."""

    def attention_z(
        self,
        layer: int,
        hidden: Tensor,
        call: "BlockCall",
        *,
        q: Callable[[Tensor], Tensor] | None = None,
        k: Callable[[Tensor], Tensor] | None = None,
        v: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return the heads' values when the block reads ``hidden``, some ports made otherwise."""

    def attention_keys(
        self, layer: int, hidden: Tensor, call: "BlockCall"
    ) -> tuple[Tensor, Tensor]:
        """Return rotated keys and values when the block reads ``hidden``; nothing is attended."""

    def attention_from_ports(
        self, layer: int, q: Tensor, k: Tensor, v: Tensor, call: "BlockCall"
    ) -> Tensor:
        """Return the heads' values when queries, keys and values read three residual streams."""

    def mlp_output(
        self, layer: int, mid: Tensor, call: "BlockCall", direct: bool = False
    ) -> Tensor:
        """Return the MLP's output when its port reads ``mid``."""

    def run_block(
        self,
        layer: int,
        hidden: Tensor,
        call: "BlockCall",
        *,
        z: Tensor | Callable[[Tensor], Tensor] | None = None,
        mlp: Tensor | Callable[[Tensor], Tensor] | None = None,
    ) -> "BlockOutput":
        """Run one block, with its heads and MLP live, edited or set."""

    # -- the end --------------------------------------------------------------------------------

    def final_norm(self, resid: Tensor) -> Tensor:
        """Return the final norm of a residual stream that may be wider than the model's type."""

    def read_out(self, resid: Tensor, call: "BlockCall", *, scale: float = 1) -> Tensor:
        """Return the model's logits where the residual stream after the last block is ``resid``.

        Args:
            resid: The stream.
            call: How a block is called.
            scale: By what the unembedding's output is multiplied.
        """

    def read_tokens(self, resid: Tensor, tokens: Tensor) -> Tensor:
        """Return the logits of a few tokens, where logits are the plain unembedding."""

    def unembedded(self, resid: Tensor) -> Tensor | None:
        """Return unembedding after final norm, and nothing more; None where it is no linear map."""


def backend_of(model: Any, tokenizer: Any = None) -> Any:
    """Return the back end of a model; of a back end itself.

    Args:
        model: A `TransformerBridge`, a causal language model of Hugging Face, or a back end.
        tokenizer: Turns text into tokens, where the model brings none of its own.

    Raises:
        ModelError: The model is neither.
    """
    from circuitgraph.lens.blocks import Blocks

    if isinstance(model, Blocks):
        return model if tokenizer is None else model.with_tokenizer(tokenizer)
    if hasattr(model, "blocks") and hasattr(model, "hooks"):
        from circuitgraph.lens.bridge.backend import BridgeBackend

        return BridgeBackend(model, tokenizer)
    if hasattr(model, "config") and hasattr(model, "get_output_embeddings"):
        from circuitgraph.lens.huggingface.backend import HuggingFaceModel

        return HuggingFaceModel(model, tokenizer=tokenizer)
    raise ModelError(
        f"{type(model).__name__} is no TransformerBridge, nor a causal language model of Hugging "
        "Face: load a model with cg.load_model(name), TransformerBridge.boot_transformers(name) or "
        "AutoModelForCausalLM.from_pretrained(name, attn_implementation='eager')"
    )
