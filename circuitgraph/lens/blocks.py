"""Running parts of a model by themselves: one attention, one MLP, one whole block, the readout.

Each part runs through the block's own forward, with other parts of it replaced, so nothing here is
written for an architecture. Hidden states are ``[row*prompt query d_model]``: a stack of rows, each
row all prompts, at the query positions.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from circuitgraph.lens.bridge.names import mlp_input_name, mlp_writer
from circuitgraph.lens.modules import Stop, first_tensor, replaced, with_first
from circuitgraph.lens.record import BlockCall, has_mlp, is_parallel

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
        model: A `TransformerBridge`.
    """

    def __init__(self, model: Any) -> None:
        """Look at the model's blocks; nothing is run."""
        self.model = model
        self.blocks = list(model.blocks)
        self.n_heads: int = model.cfg.n_heads
        self.parallel = [is_parallel(block) for block in self.blocks]

    def __len__(self) -> int:
        return len(self.blocks)

    # -- heads ----------------------------------------------------------------------------------

    @cached_property
    def output_weights(self) -> list[Float[Tensor, "head d_head d_model"]]:
        """``W_O`` of every layer, by head. Multiplying by it leaves out the layer's output bias."""
        found = []
        for block in self.blocks:
            weight = _linear_weight(block.attn.o).detach()
            found.append(weight.reshape(self.n_heads, -1, weight.shape[-1]))
        return found

    def split(self, z: Tensor) -> Tensor:
        """Return heads side by side as ``[... head d_head]``."""
        return z.unflatten(-1, (self.n_heads, -1))

    # -- attention ------------------------------------------------------------------------------

    def attention_input(self, layer: int, hidden: Hidden, call: BlockCall) -> Hidden:
        """Return what the query, key and value projections read when the block reads ``hidden``."""
        block = self.blocks[layer]

        def stop(value: Tensor, *_: Any, **__: Any) -> Any:
            raise Stop(value)

        return self._until_stop(layer, hidden, call, (block.attn.q, stop))

    def project(
        self,
        layer: int,
        port: str,
        attention_input: Float[Tensor, "*rows query d_model"],
        heads: slice | None = None,
    ) -> Tensor:
        """Return queries, keys or values before rotation, of all heads or of a slice of widths."""
        module = getattr(self.blocks[layer].attn, port)
        inner = module.original_component
        if heads is not None and type(inner) is torch.nn.Linear:
            bias = None if inner.bias is None else inner.bias[heads]
            return functional.linear(attention_input, inner.weight[heads], bias)
        with torch.no_grad():
            whole = first_tensor(inner(attention_input))
        return whole if heads is None else whole[..., heads]

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
        attn = self.blocks[layer].attn

        def stop(z: Tensor, *_: Any, **__: Any) -> Any:
            raise Stop(z)

        pairs: list[tuple[Any, Callable[..., Any]]] = [(attn.o, stop)]
        for module, made in ((attn.q, q), (attn.k, k), (attn.v, v)):
            if made is not None:
                pairs.append((module, _ignoring_rest(made)))
        return self._until_stop(layer, hidden, call, *pairs)

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
        if direct and block.mlp.name is not None:
            norm = block._modules.get("ln2" if "ln2" in block._modules else "ln1")
            with torch.no_grad(), replaced(*self._fused[layer]):
                normed = norm.original_component(mid)
                return first_tensor(block.mlp.original_component(normed))
        writer = mlp_writer(block)
        write = writer.forward

        def stop(*args: Any, **kwargs: Any) -> Any:
            raise Stop(first_tensor(write(*args, **kwargs)).view(mid.shape))

        nothing = mid.new_zeros(()).expand_as(mid)
        pairs = [
            (writer, stop),
            (block.attn, lambda *_, **__: with_first(call.attn_form, nothing)),
        ]
        if not self.parallel[layer] and "ln1" in block._modules:
            pairs.append((block.ln1, lambda hidden, *_, **__: hidden))
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
                for module in block.mlp.original_component.modules()
                if wide and type(module).__name__ == "NewGELUActivation"
            ]
            if has_mlp(block)
            else []
            for block in self.blocks
        ]

    def has_mlp(self, layer: int) -> bool:
        """Return whether the layer has an MLP."""
        return has_mlp(self.blocks[layer])

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
        project = block.attn.o.forward
        pairs: list[tuple[Any, Callable[..., Any]]] = []

        def projected(value: Tensor, *_: Any, **__: Any) -> Any:
            kept["z"] = z(value) if callable(z) else value
            return project(kept["z"])

        def set_attention(*_: Any, **__: Any) -> Any:
            assert isinstance(z, Tensor)
            kept["z"] = z
            return with_first(call.attn_form, first_tensor(project(z)))

        pairs.append(
            (block.attn, set_attention) if isinstance(z, Tensor) else (block.attn.o, projected)
        )
        if self.has_mlp(layer):
            writer = mlp_writer(block)
            write = writer.forward

            def set_mlp(value: Tensor, *args: Any, **kwargs: Any) -> Any:
                if isinstance(mlp, Tensor):
                    kept["mlp"] = mlp
                    return with_first(call.mlp_form, mlp.reshape(*value.shape[:-1], -1))
                output = write(value, *args, **kwargs)
                live = first_tensor(output)
                kept["mlp"] = live.view(hidden.shape)
                if mlp is None:
                    return output
                kept["mlp"] = mlp(kept["mlp"])
                return with_first(output, kept["mlp"].view(live.shape))

            pairs.append((writer, set_mlp))
            if not self.parallel[layer]:
                reader = getattr(block, mlp_input_name(block).split(".")[0])
                read = set_mlp if reader is writer else reader.forward

                def see_mid(value: Tensor, *args: Any, **kwargs: Any) -> Any:
                    kept["mid"] = value.reshape(hidden.shape)
                    return read(value, *args, **kwargs)

                pairs.append((reader, see_mid))
        with replaced(*pairs), torch.no_grad():
            out = first_tensor(block.original_component(hidden, *call.args, **call.kwargs))
        return BlockOutput(out, kept.get("mid", hidden), kept["z"], kept.get("mlp"))

    def _until_stop(
        self, layer: int, hidden: Hidden, call: BlockCall, *pairs: tuple[Any, Any]
    ) -> Tensor:
        """Run a block until one of the replaced forwards stops it, and return what that carries."""
        try:
            with replaced(*pairs), torch.no_grad():
                self.blocks[layer].original_component(hidden, *call.args, **call.kwargs)
        except Stop as stop:
            value: Tensor = stop.value
            return value
        raise RuntimeError(f"block {layer} never called the part of it that was to be read")

    def final_norm(self, resid: Float[Tensor, "*row d_model"]) -> Float[Tensor, "*row d_model"]:
        """Return the final norm of a residual stream that may be wider than the model's type."""
        norm = self.model.ln_final
        inner = norm.original_component
        if type(inner) is torch.nn.LayerNorm:
            weight = None if inner.weight is None else inner.weight.to(resid.dtype)
            bias = None if inner.bias is None else inner.bias.to(resid.dtype)
            return functional.layer_norm(resid, inner.normalized_shape, weight, bias, inner.eps)
        with torch.no_grad():
            normed: Tensor = norm(resid)
        return normed

    # -- the end --------------------------------------------------------------------------------

    def read_out(
        self, resid: Float[Tensor, "rows read d_model"], call: BlockCall
    ) -> Float[Tensor, "rows read d_vocab"]:
        """Return the model's logits where the residual stream after the last block is ``resid``.

        The model's own forward runs with its blocks passed over, so final norm, unembedding and
        whatever the model does to its logits are its own.
        """
        tokens = torch.zeros(resid.shape[:2], dtype=torch.long, device=resid.device)
        form = call.block_form
        pairs = [
            (block, lambda hidden, *_, **__: with_first(form, hidden)) for block in self.blocks
        ]
        pairs[-1] = (self.blocks[-1], lambda *_, **__: with_first(form, resid))
        with replaced(*pairs), torch.no_grad():
            logits: Tensor = self.model(tokens, return_type="logits")
        return logits


def _ignoring_rest(made: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def forward(value: Tensor, *_: Any, **__: Any) -> Tensor:
        return made(value)

    return forward


def _linear_weight(module: Any) -> Float[Tensor, "inputs outputs"]:
    """Return the weight of an affine module as ``[in out]``, whatever way it stores it."""
    inner = module.original_component
    if type(inner) is torch.nn.Linear:
        return inner.weight.T
    weight = inner.weight
    width = weight.shape[0] if type(inner).__name__ == "Conv1D" else weight.shape[1]
    with torch.no_grad():
        eye = torch.eye(width, dtype=weight.dtype, device=weight.device)
        nothing = torch.zeros(1, width, dtype=weight.dtype, device=weight.device)
        if type(inner).__name__ == "Conv1D":
            return weight
        return inner(eye) - inner(nothing)
