"""Backward rules: gradients that pass norms, activations, gates and softmax otherwise.

Values stay what they are; only what a gradient makes of them changes. What a rule is about is found
by trying what the model's modules do on one prompt, never by their classes; where a model computes
something without a module of its own, the rule says so rather than leave it as it is.

* ``relp`` (layer-wise relevance): a norm's scale is a constant; an activation is ``x`` times the
  constant ``act(x) / x``; a gate and what it lets through get half of the gradient each.
* ``gim``: a norm's scale is a constant; a softmax passes gradients at temperature 2; queries and
  keys get a quarter of them, values, gates and what they let through a half.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.errors import UnsupportedError
from circuitgraph.lens.modules import replaced
from circuitgraph.lens.norms import Norm
from circuitgraph.lens.parts import ModelParts
from circuitgraph.lens.roles import BlockRoles, find_roles
from circuitgraph.lens.softmax import SoftmaxMode
from circuitgraph.nodes import PortName

__all__ = ["NO_RULE", "Rule", "rule_of"]

Forward = Callable[..., Any]


@dataclass(frozen=True, eq=False)
class Rule:
    """How gradients pass a model.

    Args:
        freezes_norms: Whether the scale of a norm counts as a constant.
        factors: What gradients at queries, keys and values are multiplied by.
        forwards: Modules, and what is called in place of their forward.
        halved: Modules at whose input gradients are halved: they read a product.
        attentions: Modules inside which a softmax passes gradients at temperature 2.
    """

    freezes_norms: bool = False
    factors: Mapping[PortName, float] = field(default_factory=dict)
    forwards: tuple[tuple[Any, Forward], ...] = ()
    halved: tuple[Any, ...] = ()
    attentions: tuple[Any, ...] = ()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the model run so that gradients pass it by this rule."""
        with ExitStack() as stack:
            stack.enter_context(replaced(*self.forwards))
            for module in self.halved:
                stack.callback(module.register_forward_pre_hook(_halve).remove)
            if self.attentions:
                stack.enter_context(_WarmSoftmax(self.attentions))
            yield


NO_RULE = Rule()


def rule_of(parts: ModelParts, name: str | None, tokens: Int[Tensor, "1 pos"]) -> Rule:
    """Return a rule for a model.

    Args:
        parts: The model's parts.
        name: ``relp``, ``gim``, or None for none.
        tokens: One prompt on which modules are tried.

    Raises:
        UnsupportedError: Something that the rule must change was not found.
    """
    if name is None:
        return NO_RULE
    roles = find_roles(parts, tokens)
    problems = [problem for layer in roles.blocks for problem in layer.problems] + roles.problems
    if problems:
        raise UnsupportedError(f"rules={name!r} cannot be applied to this model: {problems[0]}")
    norms = [pair for layer in roles.blocks for pair in layer.norms] + roles.norms
    forwards = [(module, _frozen(module, norm)) for module, norm in norms]
    halved = tuple(module for layer in roles.blocks for module in layer.products)
    if name == "relp":
        forwards += [(one, _as_factor(one)) for layer in roles.blocks for one in layer.activations]
        return Rule(True, {}, tuple(forwards), halved)
    _check_softmax(parts, roles.blocks)
    attentions = tuple(block.attn for block in parts.blocks)
    return Rule(True, {"q": 0.25, "k": 0.25, "v": 0.5}, tuple(forwards), halved, attentions)


def _check_softmax(parts: ModelParts, blocks: list[BlockRoles]) -> None:
    for number, _ in enumerate(parts.blocks):
        if blocks[number].n_softmax != 1:
            raise UnsupportedError(
                "rules='gim' cannot be applied to this model: the attention of layer "
                f"{number} takes {blocks[number].n_softmax or 'no'} softmax that can be seen"
            )


# -- what stands in for a module -------------------------------------------------------------------


def _with_gradient_of(value: Tensor, stand_in: Tensor) -> Tensor:
    """Return a value that passes gradients as something else would."""
    stand_in = stand_in.to(value.dtype)
    return stand_in + (value - stand_in).detach()


def _frozen(module: Any, norm: Norm) -> Forward:
    """Return the forward of a norm whose scale passes no gradient."""
    forward = module.forward

    def run(stream: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with torch.no_grad():
            value: Tensor = forward(stream, *args, **kwargs)
        wide = stream.to(torch.promote_types(stream.dtype, torch.float32))
        centered = wide - wide.mean(dim=-1, keepdim=True) if norm.centered else wide
        scaled = norm.scale(wide).detach() * norm.weight.to(wide.dtype)
        return _with_gradient_of(value, centered * scaled)

    return run


def _as_factor(module: Any) -> Forward:
    """Return the forward of an activation that passes gradients as a constant factor would."""
    forward = module.forward

    def run(x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        with torch.no_grad():
            value: Tensor = forward(x, *args, **kwargs)
            factor = value / torch.where(x.abs() < TINY, TINY, x)
        return _with_gradient_of(value, x * factor)

    return run


TINY = 1e-6


def _halve(_: Any, args: tuple[Any, ...]) -> Any:
    half = args[0] / 2
    return (half + half.detach(), *args[1:])


class _Warm(torch.autograd.Function):
    """A softmax that passes gradients at temperature 2."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, value: Tensor, dim: int) -> Tensor:
        """Return the softmax as it is."""
        ctx.save_for_backward(scores)
        ctx.dim = dim
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Return the gradient at the scores."""
        (scores,) = ctx.saved_tensors
        warm = (scores / 2).softmax(dim=ctx.dim)
        gradient = gradients[0].to(warm.dtype)
        passed = warm * (gradient - (gradient * warm).sum(dim=ctx.dim, keepdim=True))
        return passed.to(scores.dtype), None, None


class _WarmSoftmax(SoftmaxMode):
    def seen(self, args: Any, kwargs: Mapping[str, Any], value: Tensor) -> Tensor:
        scores = args[0].to(value.dtype)
        dim = kwargs.get("dim", args[1] if len(args) > 1 else -1)
        passed: Tensor = _Warm.apply(scores, value.detach(), dim)  # type: ignore[no-untyped-call]
        return passed
