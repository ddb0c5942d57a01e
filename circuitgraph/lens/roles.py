"""Which modules are norms, activations, and readers of a gate's product: found by trying them.

One prompt is run with every module watched: what it read and what it gave. A norm is a module that
gives what the closed form of a norm gives; an activation one that treats every number by itself and
is not linear; a product's reader one that reads an activation times what another module gave.
"""

import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.lens.modules import first_tensor
from circuitgraph.lens.norms import Norm, find_norm
from circuitgraph.lens.parts import BlockParts, ModelParts
from circuitgraph.lens.shortage import is_shortage
from circuitgraph.lens.softmax import SoftmaxMode

__all__ = ["BlockRoles", "Roles", "find_roles"]


@dataclass(slots=True)
class Seen:
    """A module, what it read and what it gave, as the run went by."""

    module: Any
    read: Tensor
    gave: Tensor


@dataclass(slots=True)
class BlockRoles:
    """What was found in one block.

    Args:
        norms: Norms with their closed form.
        activations: Activations of the MLP.
        products: Modules that read an activation times something else.
        n_softmax: How often the attention takes a softmax.
        problems: Why something that must be there was not found.
    """

    norms: list[tuple[Any, Norm]] = field(default_factory=list)
    activations: list[Any] = field(default_factory=list)
    products: list[Any] = field(default_factory=list)
    n_softmax: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Roles:
    """What was found in a model: by block, and after the last one."""

    blocks: list[BlockRoles]
    norms: list[tuple[Any, Norm]]
    problems: list[str]


def find_roles(parts: ModelParts, tokens: Int[Tensor, "1 pos"]) -> Roles:
    """Return what modules do on one prompt."""
    watched: list[dict[Any, Seen]] = []
    streams: list[tuple[Tensor, Tensor]] = []
    end: dict[str, Tensor] = {}
    counts: list[_Count] = []
    with ExitStack() as stack, torch.no_grad():
        for block in parts.blocks:
            watched.append(_watch(stack, block.block))
            counts.append(stack.enter_context(_Count((block.attn,))))

            def around(_: Any, args: Any, kwargs: Any, output: Any) -> None:
                hidden = args[0] if args else kwargs["hidden_states"]
                streams.append((hidden.clone(), first_tensor(output).clone()))

            stack.callback(block.block.register_forward_hook(around, with_kwargs=True).remove)

        def at_end(_: Any, args: Any) -> None:
            end["reads"] = args[0].clone()

        stack.callback(parts.unembed.module.register_forward_pre_hook(at_end).remove)
        final: dict[Any, Seen] = {}
        if parts.final_norm is not None:
            final = _watch(stack, parts.final_norm.module)
        parts.run(tokens, False)
    blocks = [
        _roles(number, block, seen, stream[0], count.n)
        for number, (block, seen, stream, count) in enumerate(
            zip(parts.blocks, watched, streams, counts, strict=True)
        )
    ]
    norms = _norms(final)
    plain = _alike(end["reads"], streams[-1][1])
    known = plain or any(_alike(end["reads"], final[id(module)].gave) for module, _ in norms)
    problems = [] if known else ["the norm before the unembedding was not found"]
    return Roles(blocks, norms, problems)


class _Count(SoftmaxMode):
    n = 0

    def seen(self, args: Any, kwargs: Any, value: Tensor) -> Tensor:
        del args, kwargs
        self.n += 1
        return value


def _watch(stack: ExitStack, root: Any) -> dict[Any, Seen]:
    """Watch every module under a root that reads one tensor and gives one."""
    found: dict[Any, Seen] = {}

    def hook(module: Any, args: Any, output: Any) -> None:
        if args and isinstance(args[0], Tensor) and isinstance(output, Tensor):
            found[id(module)] = Seen(module, args[0].clone(), output.clone())

    for module in root.modules():
        stack.callback(module.register_forward_hook(hook).remove)
    return found


def _roles(
    number: int, block: BlockParts, seen: dict[Any, Seen], resid: Tensor, n_softmax: int
) -> BlockRoles:
    found = BlockRoles(_norms(seen), n_softmax=n_softmax)
    normed = [seen[id(module)].gave for module, _ in found.norms]
    reads = seen.get(id(block.q.module))
    if reads is not None and not any(_alike(reads.read, one) for one in (resid, *normed)):
        found.problems.append(f"the norm before the attention of layer {number} was not found")
    if block.mlp is None:
        return found
    inner = _under(block, seen)
    found.activations = [one.module for one in inner if _is_activation(one)]
    if not found.activations:
        found.problems.append(f"the MLP of layer {number} has no activation that can be seen")
    _find_products(number, inner, found, seen)
    if not block.parallel and block.reader is not block.mlp:
        reader = seen.get(id(block.reader))
        norm = any(block.reader is module for module, _ in found.norms)
        if not norm and not (reader is not None and _alike(reader.read, reader.gave)):
            found.problems.append(f"the norm before the MLP of layer {number} was not found")
    return found


def _under(block: BlockParts, seen: dict[Any, Seen]) -> list[Seen]:
    """Return what was seen in a block outside its attention."""
    attention = {id(module) for module in block.attn.modules()}
    return [one for key, one in seen.items() if key not in attention]


def _norms(seen: dict[Any, Seen]) -> list[tuple[Any, Norm]]:
    """Return norms, the outermost of modules that wrap each other."""
    found: list[tuple[Any, Norm]] = []
    for one in seen.values():
        if one.read.shape != one.gave.shape or one.read.ndim < 2:
            continue
        norm = _norm(one)
        if norm is not None:
            found.append((one.module, norm))
    inner = {id(other) for module, _ in found for other in module.modules() if other is not module}
    return [(module, norm) for module, norm in found if id(module) not in inner]


def _norm(one: Seen) -> Norm | None:
    def run(stream: Tensor) -> Tensor:
        shape = (*[1] * (one.read.ndim - 2), *stream.shape[-2:])
        made: Tensor = one.module.forward(stream.reshape(shape))
        return made.reshape(stream.shape)

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of modules that are no norm and miss what they need
            norm = find_norm(run, one.read, one.gave)
    except Exception as error:  # what cannot be called like a norm is none
        if is_shortage(error):
            raise
        return None
    return norm if isinstance(norm, Norm) else None


def _is_activation(one: Seen) -> bool:
    """Return whether a module treats every number by itself, and is not linear."""
    if one.read.shape != one.gave.shape or one.read.shape[-1:] < (4,):
        return False
    if any(True for _ in one.module.parameters()):
        return False
    part = one.read.clone()
    part[..., ::2] = -2 * part[..., ::2]
    try:
        with torch.no_grad():
            partly, doubled, turned = (
                one.module.forward(value) for value in (part, one.read * 2, -one.read)
            )
    except Exception as error:  # what cannot be called so is none
        if is_shortage(error):
            raise
        return False
    alone = _alike(partly[..., 1::2], one.gave[..., 1::2])
    linear = _alike(doubled, one.gave * 2) and _alike(turned, -one.gave)
    return alone and not linear


def _find_products(
    number: int, inner: list[Seen], found: BlockRoles, seen: dict[Any, Seen]
) -> None:
    """Find what reads an activation, as it is or times something else."""
    others = [one.gave for one in inner]
    others += [half for gave in others for half in gave.chunk(2, dim=-1) if gave.shape[-1] > 1]
    for module in found.activations:
        gave = seen[id(module)].gave
        readers = [
            one for one in inner if one.read.shape == gave.shape and one.module is not module
        ]
        if any(_alike(one.read, gave) for one in readers):
            continue
        gated = [
            one
            for one in readers
            if any(other.shape == gave.shape and _alike(one.read, gave * other) for other in others)
        ]
        if not gated:
            found.problems.append(
                f"what the activation of layer {number}'s MLP is multiplied with was not found"
            )
        found.products += _outermost(gated)


def _outermost(modules: list[Seen]) -> list[Any]:
    inner = {
        id(other) for one in modules for other in one.module.modules() if other is not one.module
    }
    return [one.module for one in modules if id(one.module) not in inner]


def _alike(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    tolerance = {torch.float64: 1e-6, torch.float32: 1e-4}.get(other.dtype, 3e-2)
    scale = other.abs().amax().clamp_min(1e-6)
    return bool(((one - other).abs().amax() <= tolerance * scale).item())
