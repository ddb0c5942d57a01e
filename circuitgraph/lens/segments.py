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
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.lens.modules import first_tensor, with_first
from circuitgraph.lens.parts import BlockParts, ModelParts

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
    parts: ModelParts,
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
            _BlockCuts(layers, number, block, edits or {}).install(stack)

        def at_end(hidden: Tensor) -> Tensor:
            found["final"] = hidden.detach().requires_grad_()
            return found["final"]

        after(stack, parts.blocks[-1].block, at_end)
        if read is not None:
            rows = torch.arange(len(tokens), device=tokens.device)

            before(stack, parts.unembed.module, lambda hidden: hidden[rows, read][:, None])
        logits = parts.run(tokens, False)
    return Segments(layers, found["final"], logits, parts.blocks[0].parallel)


@dataclass(frozen=True, slots=True)
class _BlockCuts:
    """The cuts of one block, made as the run passes.

    Args:
        layers: What has been cut so far, block by block.
        number: Which block.
        block: Its parts.
        edits: Values that the run goes on with.
    """

    layers: list[LayerSegments]
    number: int
    block: BlockParts
    edits: Mapping[tuple[str, int], Edit]

    @property
    def layer(self) -> LayerSegments:
        """What has been cut of this block."""
        return self.layers[self.number]

    def edit(self, what: str) -> Edit | None:
        """Return what is made of a value before the run goes on with it."""
        return self.edits.get((what, self.number))

    def install(self, stack: ExitStack) -> None:
        """Install the hooks; ``stack`` takes them away again."""
        block = self.block
        before(stack, block.block, self.enter)
        after(stack, block.block, self.leave)
        for at, module in enumerate(self.projections):
            before(stack, module, partial(self.read, at))
            after(stack, module, partial(self.project, at))
        before(stack, block.o.module, self.cut_z)
        if block.mlp is not None:
            before(stack, block.mlp if block.parallel else block.reader, self.cut_mid)
            after(stack, block.mlp, self.cut_mlp)

    @property
    def projections(self) -> list[Any]:
        """The modules that make queries, keys and values, each once."""
        return list(dict.fromkeys(port.module for port in self.block.ports.values()))

    def enter(self, hidden: Tensor) -> Tensor:
        """Cut the stream before the block."""
        layer = LayerSegments(Cut.at(hidden, self.edit("embed")).leaf)
        modules = self.projections
        layer.ports = {
            name: PortCut(modules.index(port.module), port.features)
            for name, port in self.block.ports.items()
        }
        self.layers.append(layer)
        return layer.resid

    def leave(self, hidden: Tensor) -> Tensor:
        """Keep the block's output; the next block cuts it."""
        self.layer.out = hidden
        return hidden

    def read(self, at: int, hidden: Tensor) -> Tensor:
        """Keep what a projection reads."""
        self.layer.reads[at] = hidden
        return hidden

    def project(self, at: int, value: Tensor) -> Tensor:
        """Cut what a projection makes."""
        self.layer.projected[at] = cut = Cut.at(value)
        return cut.leaf

    def cut_z(self, z: Tensor) -> Tensor:
        """Cut the heads' values."""
        self.layer.z = cut = Cut.at(z, self.edit("z"))
        return cut.leaf

    def cut_mid(self, hidden: Tensor) -> Tensor:
        """Cut what the MLP reads."""
        self.layer.mid = cut = Cut.at(hidden)
        return cut.leaf

    def cut_mlp(self, output: Tensor) -> Tensor:
        """Cut what the MLP writes."""
        self.layer.mlp = cut = Cut.at(output, self.edit("mlp"))
        return cut.leaf


def before(stack: ExitStack, module: Any, change: Edit) -> None:
    """Let a module read something else; until ``stack`` is closed."""

    def hook(_: Any, args: Any, kwargs: Any) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    stack.callback(module.register_forward_pre_hook(hook, with_kwargs=True).remove)


def after(stack: ExitStack, module: Any, change: Edit) -> None:
    """Let a module give something else; until ``stack`` is closed."""

    def hook(_: Any, __: Any, output: Any) -> Any:
        return with_first(output, change(first_tensor(output)))

    stack.callback(module.register_forward_hook(hook).remove)


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
