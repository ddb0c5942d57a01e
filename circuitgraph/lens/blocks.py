"""Running parts of a model by themselves: one attention, one MLP, one whole block, the readout.

Each part runs through the block's own forward, with other parts of it replaced, so nothing here is
written for an architecture. Hidden states are ``[row*prompt query d_model]``: a stack of rows, each
row all prompts, at the query positions.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from circuitgraph.errors import ModelError
from circuitgraph.lens.backend import Limits
from circuitgraph.lens.calls import FixedKeys, with_keys
from circuitgraph.lens.guard import foreign_forwards, foreign_hooks
from circuitgraph.lens.modules import Stop, first_tensor, replaced, with_first
from circuitgraph.lens.parts import ModelParts, is_conv1d, weight_of
from circuitgraph.lens.record import BlockCall, Recording, record
from circuitgraph.lens.rules import Rule, rule_of
from circuitgraph.lens.segments import Edit, Segments, run_in_segments
from circuitgraph.lens.sites import Caught, Hook, HookSite

__all__ = ["BlockOutput", "Blocks"]

Hidden = Float[Tensor, "rows query d_model"]
Heads = Float[Tensor, "rows query width"]


@dataclass(frozen=True, slots=True)
class BlockOutput:
    """What running one whole block gave.

    Args:
        out: The block's output.
        mid: What its MLP read; its input in a parallel block.
        z: The heads' values, after any edit.
        mlp: The MLP's output, after any edit; None without an MLP.
    """

    out: Tensor
    mid: Tensor
    z: Tensor
    mlp: Tensor | None


class Blocks:
    """The blocks of one model, each part runnable by itself.

    Args:
        parts: Where the model keeps them.
        model: The model itself.
        tokenizer: In place of the model's own.
    """

    def __init__(self, parts: ModelParts, model: Any, tokenizer: Any = None) -> None:
        """Look at the model's blocks; nothing is run."""
        self._tokenizer = tokenizer
        self._copies = False
        self.parts = parts
        self.model = model
        self.blocks = parts.blocks
        self.n_heads = parts.n_heads
        self.parallel = [block.parallel for block in parts.blocks]

    def __len__(self) -> int:
        return len(self.blocks)

    @property
    def n_parameters(self) -> int:
        """How many weights the model has."""
        return sum(weight.numel() for weight in self.model.parameters())

    @property
    def tokenizer(self) -> Any:
        """What turns text into tokens; None where there is nothing."""
        if self._tokenizer is not None:
            return self._tokenizer
        return getattr(self.model, "tokenizer", None)

    def with_tokenizer(self, tokenizer: Any) -> "Blocks":
        """Return the same back end with another tokenizer."""
        other = copy(self)
        other._tokenizer = tokenizer
        return other

    def problems(self) -> list[ModelError]:
        """Return what keeps the model from being patched as it stands."""
        found = []
        if getattr(self.model, "training", False):
            found.append(
                ModelError(
                    "the model is in training mode, so dropout would make every run different: "
                    "call model.eval()"
                )
            )
        if hooked := foreign_hooks(self.model):
            found.append(
                ModelError(
                    f"hooks were left on the model at {_few(hooked)}; they would act on some runs "
                    "and not on others: call handle.remove() of what registering them returned, or "
                    "model.reset_hooks(including_permanent=True) of a bridge"
                )
            )
        if placed := foreign_forwards(self.model):
            found.append(
                ModelError(
                    f"the forward of {_few(placed)} was replaced on the instance; it would act on "
                    "some runs and not on others: del module.forward, or change the class"
                )
            )
        return found

    def renewed(self) -> "Blocks":
        """Return the back end of the model as it is now: nothing read of its weights is kept."""
        raise NotImplementedError

    # -- places, found by each library ------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """How much the model takes."""
        raise NotImplementedError

    def hooks(self, pairs: Sequence[tuple[HookSite, Hook]]) -> AbstractContextManager[None]:
        """Call hooks at some places inside the ``with`` block, in this order at each."""
        raise NotImplementedError

    @contextmanager
    def caught(self, site: HookSite) -> Iterator[Caught]:
        """Catch what passes a place inside the ``with`` block."""
        found = Caught(site.name)
        with self.hooks([(site, found.see)]):
            yield found

    def see(
        self, tokens: Int[Tensor, "prompt pos"], sites: Mapping[str, HookSite]
    ) -> dict[str, Tensor]:
        """Run the model as it is and return what passes some hooks, ``[prompt ...]`` by name.

        The run ends after the last block that has one of the hooks.
        """
        layers = [site.layer for site in sites.values()]
        with ExitStack() as opened, torch.no_grad():
            last = max((layer for layer in layers if layer is not None), default=0)
            if None not in layers and last + 1 < len(self):
                opened.enter_context(suppress(Stop))

                def stop(*_: Any) -> None:
                    raise Stop(None)

                following = self.blocks[last + 1].block
                opened.callback(following.register_forward_pre_hook(stop).remove)
            catches = {
                name: opened.enter_context(self.caught(site)) for name, site in sites.items()
            }
            self.parts.run(tokens, False)
        found = {}
        for name, catch in catches.items():
            value = catch.value
            side_by_side = value.ndim == 2 and len(value) == tokens.numel()
            found[name] = value.reshape(*tokens.shape, -1) if side_by_side else value
        return found

    # -- whole runs -----------------------------------------------------------------------------

    def record(
        self,
        tokens: Int[Tensor, "prompt pos"],
        *,
        read: Int[Tensor, "prompt read"] | None = None,
        fields: Sequence[str] | None = None,
    ) -> Recording:
        """Run the model once and keep what it computed: see `record`."""
        found = record(self.parts, tokens, read=read, fields=fields, copies=self._copies)
        self._copies = found.copied  # a model that writes into its tensors will do so again
        return found

    def logits(self, tokens: Int[Tensor, "prompt pos"]) -> Float[Tensor, "prompt pos d_vocab"]:
        """Return the model's logits, without gradients; one forward pass."""
        with torch.no_grad():
            return self.parts.run(tokens, False)

    def run_in_segments(
        self,
        tokens: Int[Tensor, "prompt pos"],
        *,
        read: Int[Tensor, "prompt"] | None = None,
        edits: Mapping[tuple[str, int], Edit] | None = None,
    ) -> Segments:
        """Run the model with gradients on, cut at every block: see `run_in_segments`."""
        return run_in_segments(self.parts, tokens, read=read, edits=edits)

    def rule(self, name: str | None, tokens: Int[Tensor, "1 pos"]) -> Rule:
        """Return how gradients are to pass the model: see `rule_of`."""
        return rule_of(self.parts, name, tokens)

    # -- heads ----------------------------------------------------------------------------------

    def projection_weight(self, layer: int, port: str) -> Float[Tensor, "d_model features"]:
        """Return the weight that makes a layer's queries, keys or values."""
        projection = self.blocks[layer].ports[port]
        return projection.of(weight_of(projection.inner).detach())

    @cached_property
    def output_weights(self) -> list[Float[Tensor, "head d_head d_model"]]:
        """``W_O`` of every layer, by head. Multiplying by it leaves out the layer's output bias."""
        found = []
        for block in self.blocks:
            weight = weight_of(block.o.inner).detach()
            found.append(weight.reshape(self.n_heads, -1, weight.shape[-1]))
        return found

    def split(self, z: Tensor) -> Tensor:
        """Return heads side by side as ``[... head d_head]``."""
        return z.unflatten(-1, (self.n_heads, -1))

    # -- attention ------------------------------------------------------------------------------

    def attention_input(self, layer: int, hidden: Hidden, call: BlockCall) -> Hidden:
        """Return what the query, key and value projections read when the block reads ``hidden``."""

        def stop(value: Tensor, *_: Any, **__: Any) -> Any:
            raise Stop(value)

        return self._until_stop(layer, hidden, call, (self.blocks[layer].q.module, stop))

    def project(
        self,
        layer: int,
        port: str,
        attention_input: Float[Tensor, "*rows query d_model"],
        heads: slice | None = None,
    ) -> Tensor:
        """Return queries, keys or values before rotation, of all heads or of a slice of widths."""
        projection = self.blocks[layer].ports[port]
        inner, features = projection.inner, projection.features
        if heads is not None:
            features = heads if features is None else _part_of(features, heads)
        if features is not None and type(inner) is torch.nn.Linear:
            bias = None if inner.bias is None else inner.bias[features]
            return functional.linear(attention_input, inner.weight[features], bias)
        if features is not None and is_conv1d(inner):
            made = attention_input @ inner.weight[:, features]
            return made + inner.bias[features]
        with torch.no_grad():
            whole = first_tensor(type(inner).forward(inner, attention_input))
        return whole if features is None else whole[..., features]

    def attention_z(
        self,
        layer: int,
        hidden: Hidden,
        call: BlockCall,
        *,
        q: Callable[[Tensor], Tensor] | None = None,
        k: Callable[[Tensor], Tensor] | None = None,
        v: Callable[[Tensor], Tensor] | None = None,
    ) -> Heads:
        """Return the heads' values when the block reads ``hidden``.

        Args:
            layer: Which block.
            hidden: The residual stream at the block's input.
            call: The block's other arguments, for as many rows and positions.
            q: Makes the queries from what the query projection reads; None for the model's own
                projection.
            k: Makes the keys, likewise.
            v: Makes the values, likewise.
        """
        block = self.blocks[layer]
        pairs = self._projected(layer, {"q": q, "k": k, "v": v})
        if len(block.attn._forward_hooks):
            return self._watched_z(layer, hidden, call, *pairs)

        def stop(z: Tensor, *_: Any, **__: Any) -> Any:
            raise Stop(z)

        return self._until_stop(layer, hidden, call, (block.o.module, stop), *pairs)

    def _watched_z(
        self, layer: int, hidden: Hidden, call: BlockCall, *pairs: tuple[Any, Any]
    ) -> Heads:
        """Return the heads' values, with the attention run to its end for whoever watches it."""
        block = self.blocks[layer]
        kept: list[Tensor] = []
        project = block.o.module.forward

        def keep(z: Tensor, *_: Any, **__: Any) -> Any:
            kept.append(z)
            return project(z)

        def stop(*_: Any) -> None:
            raise Stop(kept[-1])

        handle = block.attn.register_forward_hook(stop)  # after those that watch
        try:
            return self._until_stop(layer, hidden, call, (block.o.module, keep), *pairs)
        finally:
            handle.remove()

    def _projected(
        self, layer: int, made: dict[str, Callable[[Tensor], Tensor] | None]
    ) -> list[tuple[Any, Callable[..., Any]]]:
        """Return which forwards to replace so that queries, keys and values are made otherwise."""
        ports = self.blocks[layer].ports
        chosen = [(ports[name], make) for name, make in made.items() if make is not None]
        pairs: list[tuple[Any, Callable[..., Any]]] = [
            (port.module, _ignoring_rest(make)) for port, make in chosen if port.features is None
        ]
        fused = [(port, make) for port, make in chosen if port.features is not None]
        if fused:
            module = fused[0][0].module
            own = module.forward
            everything = len(fused) == len(ports)

            def forward(value: Tensor, *args: Any, **kwargs: Any) -> Tensor:
                if everything:
                    parts = [projected(value) for _, projected in fused]
                    width = sum(part.shape[-1] for part in parts)
                    output = parts[0].new_empty(*parts[0].shape[:-1], width)
                else:
                    output = own(value, *args, **kwargs).clone()
                    parts = [projected(value) for _, projected in fused]
                for (one, _), part in zip(fused, parts, strict=True):
                    output[..., one.features] = part
                return output

            return [*pairs, (module, forward)]
        return pairs

    def attention_keys(
        self,
        layer: int,
        hidden: Hidden,
        call: BlockCall,
        *,
        k: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[Float[Tensor, "rows kv_head pos d_head"], Float[Tensor, "rows kv_head pos d_head"]]:
        """Return keys, rotated, and values when the block reads ``hidden``; nothing is attended.

        Raises:
            CannotSlice: The block takes no key-value cache, through which they are caught.
        """

        def catch(keys: Tensor, values: Tensor) -> Any:
            raise Stop((keys, values))

        # The queries are thrown away, so nothing is computed for them.
        port = self.blocks[layer].q
        q: Callable[[Tensor], Tensor] | None = None
        width = None if port.fused else getattr(port.inner, "out_features", None)
        if width is not None:
            q = lambda inputs: inputs.new_zeros(*inputs.shape[:-1], width)  # noqa: E731
        pairs = self._projected(layer, {"q": q, "k": k})
        return self._until_stop(layer, hidden, with_keys(call, FixedKeys(catch)), *pairs)

    def attention_from_ports(
        self, layer: int, q: Hidden, k: Hidden, v: Hidden, call: BlockCall
    ) -> Float[Tensor, "rows query head d_head"]:
        """Return the heads' values when queries, keys and values read three residual streams."""
        k_in = self.attention_input(layer, k, call)
        v_in = self.attention_input(layer, v, call)
        z = self.attention_z(
            layer,
            q,
            call,
            k=lambda _: self.project(layer, "k", k_in),
            v=lambda _: self.project(layer, "v", v_in),
        )
        return self.split(z)

    # -- MLP ------------------------------------------------------------------------------------

    def mlp_output(self, layer: int, mid: Hidden, call: BlockCall, direct: bool = False) -> Hidden:
        """Return the MLP's output when its port reads ``mid``.

        Args:
            layer: Which block.
            mid: The residual stream that the MLP's norm reads.
            call: The block's other arguments.
            direct: Whether to call the norm and the MLP by themselves rather than through the
                block; only where that was found to be the same.
        """
        block = self.blocks[layer]
        if direct and block.alone is not None:
            norm, mlp = block.alone
            with torch.no_grad(), replaced(*self._fused[layer]):
                return first_tensor(mlp(mid if norm is None else norm(mid)))
        write = block.mlp.forward

        def stop(*args: Any, **kwargs: Any) -> Any:
            raise Stop(first_tensor(write(*args, **kwargs)).view(mid.shape))

        nothing = mid.new_zeros(()).expand_as(mid)
        pairs = [
            (block.mlp, stop),
            (block.attn, lambda *_, **__: with_first(call.attn_form, nothing)),
        ]
        if block.attn_norm is not None:
            pairs.append((block.attn_norm, lambda hidden, *_, **__: hidden))
        return self._until_stop(layer, mid, call, *pairs)

    @cached_property
    def _fused(self) -> list[list[tuple[Any, Callable[..., Any]]]]:
        """For every layer, activations that can be had in one kernel rather than in eight.

        Not in half precision, where the two differ by more than the changes that are looked for.
        """
        wide = next(self.model.parameters()).dtype in (torch.float32, torch.float64)
        return [
            [
                (module, partial(functional.gelu, approximate="tanh"))
                for module in block.alone[1].modules()
                if wide and type(module).__name__ == "NewGELUActivation"
            ]
            if block.alone is not None
            else []
            for block in self.blocks
        ]

    def has_mlp(self, layer: int) -> bool:
        """Return whether the layer has an MLP."""
        return self.blocks[layer].mlp is not None

    # -- whole blocks ---------------------------------------------------------------------------

    def run_block(
        self,
        layer: int,
        hidden: Hidden,
        call: BlockCall,
        *,
        z: Tensor | Callable[[Tensor], Tensor] | None = None,
        mlp: Tensor | Callable[[Tensor], Tensor] | None = None,
    ) -> BlockOutput:
        """Run one block, with its heads and MLP live, edited or set.

        Args:
            layer: Which block.
            hidden: Its input.
            call: Its other arguments.
            z: The heads' values: a tensor sets them (attention is not run), a function edits what
                the live attention gives.
            mlp: The MLP's output, likewise.
        """
        block = self.blocks[layer]
        kept: dict[str, Tensor] = {}
        project = block.o.module.forward
        pairs: list[tuple[Any, Callable[..., Any]]] = []

        def projected(value: Tensor, *_: Any, **__: Any) -> Any:
            kept["z"] = z(value) if callable(z) else value
            return project(kept["z"])

        def set_attention(*_: Any, **__: Any) -> Any:
            assert isinstance(z, Tensor)
            kept["z"] = z
            return with_first(call.attn_form, first_tensor(project(z)))

        pairs.append(
            (block.attn, set_attention) if isinstance(z, Tensor) else (block.o.module, projected)
        )
        if self.has_mlp(layer):
            write = block.mlp.forward

            def set_mlp(value: Tensor, *args: Any, **kwargs: Any) -> Any:
                if isinstance(mlp, Tensor):
                    kept["mlp"] = mlp
                    own = mlp.clone()  # some blocks add to it in place
                    return with_first(call.mlp_form, own.reshape(*value.shape[:-1], -1))
                output = write(value, *args, **kwargs)
                live = first_tensor(output)
                kept["mlp"] = live.view(hidden.shape)
                if mlp is None:
                    return output
                kept["mlp"] = mlp(kept["mlp"])
                return with_first(output, kept["mlp"].view(live.shape))

            pairs.append((block.mlp, set_mlp))
            if not block.parallel:
                read = set_mlp if block.reader is block.mlp else block.reader.forward

                def see_mid(value: Tensor, *args: Any, **kwargs: Any) -> Any:
                    kept["mid"] = value.reshape(hidden.shape)
                    return read(value, *args, **kwargs)

                pairs.append((block.reader, see_mid))
        with replaced(*pairs), torch.no_grad():
            out = first_tensor(block.block(hidden, *call.args, **call.kwargs))
        return BlockOutput(out, kept.get("mid", hidden), kept["z"], kept.get("mlp"))

    def _until_stop(
        self, layer: int, hidden: Hidden, call: BlockCall, *pairs: tuple[Any, Any]
    ) -> Any:
        """Run a block until one of the replaced forwards stops it, and return what that carries."""
        try:
            with replaced(*pairs), torch.no_grad():
                self.blocks[layer].block(hidden, *call.args, **call.kwargs)
        except Stop as stop:
            return stop.value
        raise RuntimeError(f"block {layer} never called the part of it that was to be read")

    def final_norm(self, resid: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        """Return the final norm of a residual stream that may be wider than the model's type."""
        norm = self.parts.final_norm
        if norm is None:
            return resid
        inner = norm.inner
        if type(inner) is torch.nn.LayerNorm:
            weight = None if inner.weight is None else inner.weight.to(resid.dtype)
            bias = None if inner.bias is None else inner.bias.to(resid.dtype)
            return functional.layer_norm(resid, inner.normalized_shape, weight, bias, inner.eps)
        with torch.no_grad():
            normed: Tensor = norm.module(resid)
        return normed

    # -- the end --------------------------------------------------------------------------------

    def read_out(
        self, resid: Float[Tensor, "rows read d_model"], call: BlockCall, *, scale: float = 1
    ) -> Float[Tensor, "rows read d_vocab"]:
        """Return the model's logits where the residual stream after the last block is ``resid``.

        The model's own forward runs with its blocks passed over, so final norm, unembedding and
        whatever the model does to its logits are its own; what the unembedding gives is multiplied
        by ``scale`` before that.
        """
        tokens = torch.zeros(resid.shape[:2], dtype=torch.long, device=resid.device)
        form = call.block_form
        pairs = [
            (part.block, lambda hidden, *_, **__: with_first(form, hidden)) for part in self.blocks
        ]
        pairs[-1] = (self.blocks[-1].block, lambda *_, **__: with_first(form, resid))
        if scale != 1:
            inner = self.parts.unembed.inner
            own = inner.forward
            pairs.append((inner, lambda hidden, *_, **__: own(hidden) * scale))
        with replaced(*pairs), torch.no_grad():
            return self.parts.run(tokens, False)

    def read_tokens(
        self, resid: Float[Tensor, "row prompt d_model"], tokens: Int[Tensor, "prompt token"]
    ) -> Float[Tensor, "row prompt token"]:
        """Return the logits of a few tokens; only where logits are the plain unembedding.

        In the type of ``resid``, which may be wider than the model's: a small change survives its
        way through a half-precision model.
        """
        inner = self.parts.unembed.inner
        normed = self.final_norm(resid)
        weight = inner.weight[tokens].to(resid.dtype)
        logits = torch.einsum("rpd,ptd->rpt", normed.to(resid.dtype), weight)
        return logits if inner.bias is None else logits + inner.bias[tokens].to(resid.dtype)

    def unembedded(
        self, resid: Float[Tensor, "*row d_model"]
    ) -> Float[Tensor, "*row d_vocab"] | None:
        """Return unembedding after final norm and nothing more; None where it is no linear map."""
        inner = self.parts.unembed.inner
        if type(inner) is not torch.nn.Linear:
            return None
        with torch.no_grad():
            normed = self.final_norm(resid)
            if normed.shape[-1] != inner.in_features:  # projected in between
                return None
            logits: Tensor = inner(normed)
        return logits


def _ignoring_rest(made: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def forward(value: Tensor, *_: Any, **__: Any) -> Tensor:
        return made(value)

    return forward


def _part_of(features: slice | Tensor, part: slice) -> slice | Tensor:
    """Return some of a module's features, counted among those of one port."""
    if isinstance(features, slice):
        return slice(features.start + part.start, features.start + part.stop)
    return features[part]


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{' and others' if len(names) > 3 else ''}"
