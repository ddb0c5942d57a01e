"""A run in segments that gradients can be taken through one by one.

The model runs once with gradients on, and at each block the values that nodes and ports stand for
are cut out of the graph: what was made up to there (`Cut.made`), and a leaf with the same value
that everything after reads (`Cut.leaf`). So a backward pass may be steered between any two of them:
the queries of one head alone, an MLP without the stream that goes past it, a port held fixed.

Whatever a block does between its cuts (norms after the attention, scales, routers) stays its own.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.lens.modules import first_tensor, with_first

__all__ = ["Cut", "LayerSegments", "PortCut", "Segments", "pull", "run_in_segments"]

Edit = Callable[[Tensor], Tensor]
"""Makes the value that a run goes on with from the one that it came to."""


@dataclass(frozen=True, slots=True)
class Cut:
    """A value at which the graph is cut.

    Args:
        made: As it was made: a function of earlier leaves.
        leaf: The same value, which everything after reads.
    """

    made: Tensor
    leaf: Tensor

    @classmethod
    def at(cls, value: Tensor, edit: Edit | None = None) -> "Cut":
        """Cut the graph here, going on with an edited value where there is an edit."""
        leaf = value.detach() if edit is None else edit(value.detach())
        return cls(value, leaf.requires_grad_())


@dataclass(frozen=True, slots=True)
class PortCut:
    """Queries, keys or values, as they leave their projection.

    Args:
        module: Which of the layer's projections makes them; fused ports share one.
        features: Which of its output features they are; None for all.
    """

    module: int
    features: slice | Tensor | None = None

    def of(self, output: Float[Tensor, "prompt pos width"]) -> Float[Tensor, "prompt pos part"]:
        """Return these features of an output, or of the gradient at it."""
        return output if self.features is None else output[..., self.features]

    def add_to(self, whole: Tensor, part: Tensor) -> None:
        """Add these features' gradient to that of a whole output."""
        if self.features is None:
            whole += part
        else:
            whole[..., self.features] += part


@dataclass(slots=True)
class LayerSegments:
    """One block, cut. Tensors have the shapes that the block gave them.

    Args:
        resid: A leaf: the block's input.
        reads: What every projection reads, not cut.
        projected: What every projection makes.
        ports: Where in these the queries, keys and values are.
        z: The heads' values, side by side.
        mid: What the MLP reads: the residual stream, or in a parallel block what its norm makes
            of it; None without an MLP.
        mlp: The MLP's output.
        out: The block's output, not cut.
    """

    resid: Tensor
    reads: dict[int, Tensor] = field(default_factory=dict)
    projected: dict[int, Cut] = field(default_factory=dict)
    ports: dict[str, PortCut] = field(default_factory=dict)
    z: Cut | None = None
    mid: Cut | None = None
    mlp: Cut | None = None
    out: Tensor | None = None


@dataclass(slots=True)
class Segments:
    """One run over a batch of prompts, cut at every block.

    Args:
        layers: The blocks.
        final: A leaf: the residual stream after the last block.
        logits: At the positions that were asked for.
        parallel: Whether attention and MLP read the same point.
    """

    layers: list[LayerSegments]
    final: Float[Tensor, "prompt pos d_model"]
    logits: Float[Tensor, "prompt read d_vocab"]
    parallel: bool


def run_in_segments(
    parts: Any,
    tokens: Int[Tensor, "prompt pos"],
    *,
    read: Int[Tensor, "prompt"] | None = None,
    edits: Mapping[tuple[str, int], Edit] | None = None,
) -> Segments:
    """Run the model once, with gradients on, and cut it at every block.

    Args:
        parts: The parts of a model in eval mode.
        tokens: Right-padded prompts.
        read: The one position whose logits are wanted; None for all.
        edits: Values that the run goes on with, by what is edited (``embed``, ``z``, ``mlp``) and
            its layer.
    """
    layers: list[LayerSegments] = []
    found: dict[str, Tensor] = {}
    with ExitStack() as stack, torch.enable_grad():
        for number, block in enumerate(parts.blocks):
            _cut_block(stack, layers, number, block, edits or {})

        def at_end(_: Any, __: Any, output: Any) -> Any:
            found["final"] = first_tensor(output).detach().requires_grad_()
            return with_first(output, found["final"])

        stack.callback(parts.blocks[-1].block.register_forward_hook(at_end).remove)
        if read is not None:
            rows = torch.arange(len(tokens), device=tokens.device)

            def only_read(_: Any, args: Any) -> Any:
                return (args[0][rows, read][:, None], *args[1:])

            unembed = parts.unembed.module
            stack.callback(unembed.register_forward_pre_hook(only_read).remove)
        logits = parts.run(tokens, False)
    return Segments(layers, found["final"], logits, parts.blocks[0].parallel)


def _cut_block(
    stack: ExitStack,
    layers: list[LayerSegments],
    number: int,
    block: Any,
    edits: Mapping[tuple[str, int], Edit],
) -> None:
    """Install the hooks that cut one block."""

    def before(module: Any, change: Callable[[Tensor], Tensor]) -> None:
        def hook(_: Any, args: Any, kwargs: Any) -> Any:
            if args:
                return (change(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

        stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)

    def after(module: Any, change: Callable[[Tensor], Tensor]) -> None:
        def hook(_: Any, __: Any, output: Any) -> Any:
            return with_first(output, change(first_tensor(output)))

        stack.callback(module.register_forward_hook(hook).remove)

    projections = {id(port.module): port.module for port in block.ports.values()}
    numbers = {key: at for at, key in enumerate(projections)}

    def enter(hidden: Tensor) -> Tensor:
        layer = LayerSegments(Cut.at(hidden, edits.get(("embed", number))).leaf)
        layer.ports = {
            name: PortCut(numbers[id(port.module)], port.features)
            for name, port in block.ports.items()
        }
        layers.append(layer)
        return layer.resid

    def leave(hidden: Tensor) -> Tensor:
        layers[number].out = hidden
        return hidden

    def projection(at: int) -> tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]:
        def read(hidden: Tensor) -> Tensor:
            layers[number].reads[at] = hidden
            return hidden

        def made(value: Tensor) -> Tensor:
            layers[number].projected[at] = cut = Cut.at(value)
            return cut.leaf

        return read, made

    def values(z: Tensor) -> Tensor:
        layers[number].z = cut = Cut.at(z, edits.get(("z", number)))
        return cut.leaf

    def mlp_reads(hidden: Tensor) -> Tensor:
        layers[number].mid = cut = Cut.at(hidden)
        return cut.leaf

    def mlp_writes(output: Tensor) -> Tensor:
        layers[number].mlp = cut = Cut.at(output, edits.get(("mlp", number)))
        return cut.leaf

    before(block.block, enter)
    after(block.block, leave)
    for at, module in enumerate(projections.values()):
        read, made = projection(at)
        before(module, read)
        after(module, made)
    before(block.o.module, values)
    if block.mlp is not None:
        before(block.mlp if block.parallel else block.reader, mlp_reads)
        after(block.mlp, mlp_writes)


def pull(
    made: Sequence[Tensor], leaves: Sequence[Tensor], gradients: Sequence[Tensor], *, keep: bool
) -> list[Tensor]:
    """Return what gradients at values are at the leaves that they were made of.

    Args:
        made: Values.
        leaves: What they were made of; zero is returned for those that they were not.
        gradients: At the values.
        keep: Whether the graph is wanted again.
    """
    cotangents = [
        gradient.reshape(value.shape).to(value.dtype)
        for value, gradient in zip(made, gradients, strict=True)
    ]
    found = torch.autograd.grad(
        list(made), list(leaves), cotangents, retain_graph=keep, allow_unused=True
    )
    return [
        torch.zeros_like(leaf) if one is None else one
        for one, leaf in zip(found, leaves, strict=True)
    ]


def _bridge_parts(model: Any) -> Any:
    from types import SimpleNamespace as NS
    from circuitgraph.lens.bridge.names import mlp_input_name, mlp_writer
    from circuitgraph.lens.record import has_mlp, is_parallel

    def port(m):
        return NS(module=m, inner=m.original_component, features=None)

    blocks = []
    for block in model.blocks:
        par = is_parallel(block)
        has = has_mlp(block)
        blocks.append(
            NS(
                block=block.original_component,
                attn=block.attn,
                ports={n: port(getattr(block.attn, n)) for n in "qkv"},
                o=NS(module=block.attn.o),
                mlp=mlp_writer(block) if has else None,
                reader=getattr(block, mlp_input_name(block).split(".")[0]) if has and not par else None,
                parallel=par and has,
            )
        )
    return NS(
        blocks=tuple(blocks),
        unembed=NS(module=model.unembed),
        run=lambda tokens, keep: model(tokens, return_type="logits"),
    )
