"""RelP and GIM in plain torch, from their papers' formulas: other gradients, the same values.

A constant is written as a detached factor, a share of a gradient as a sum of a live and a detached
part. A softmax at temperature 2 passes the gradient that ``2 softmax(x / 2)`` has. No module is
looked into and nothing of the engines is used.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.oracles.pieces import linear
from tests.oracles.plain import PlainTransformer

Function = Callable[[Tensor], Tensor]


def by_rule(plain: PlainTransformer, hf: Any, rule: str) -> PlainTransformer:
    """Return a GPT-2 or a Llama whose gradients pass by ``relp`` or ``gim``."""
    gpt2 = hasattr(hf, "transformer")
    blocks = hf.transformer.h if gpt2 else hf.model.layers
    norm, mlp = (_layer_norm, _plain_mlp) if gpt2 else (_rms_norm, _gated_mlp)
    first, second = ("ln_1", "ln_2") if gpt2 else ("input_layernorm", "post_attention_layernorm")
    layers = []
    for layer, block in zip(plain.layers, blocks, strict=True):
        assert layer.mlp is not None
        attention = replace(layer.attention, norm=norm(getattr(block, first)))
        function = mlp(block.mlp, rule)
        after = replace(layer.mlp, function=function, norm=norm(getattr(block, second)))
        layers.append(replace(layer, attention=attention, mlp=after))
    final = norm(hf.transformer.ln_f if gpt2 else hf.model.norm)
    changed = replace(plain, layers=tuple(layers), final_norm=final)
    if rule == "relp":
        return changed
    return _Gim(**{one.name: getattr(changed, one.name) for one in fields(changed)})


def _share(value: Tensor, of_gradient: float) -> Tensor:
    return of_gradient * value + (1 - of_gradient) * value.detach()


class _Gim(PlainTransformer):
    """Gradients of queries and keys a quarter, of values a half, softmax at temperature 2."""

    def q(self, layer: int, head: int, residual: Tensor) -> Tensor:
        return _share(super().q(layer, head, residual), 0.25)

    def k(self, layer: int, head: int, residual: Tensor) -> Tensor:
        return _share(super().k(layer, head, residual), 0.25)

    def v(self, layer: int, head: int, residual: Tensor) -> Tensor:
        return _share(super().v(layer, head, residual), 0.5)

    def pattern(self, layer: int, q: Tensor, k: Tensor) -> Tensor:
        attention = self.layers[layer].attention
        assert attention.window is None
        assert attention.score_cap is None
        value = super().pattern(layer, q, k).detach()
        if self.rotary is not None:
            q, k = self.rotary(q), self.rotary(k)
        there = torch.arange(q.shape[1])
        hidden = there[None, :] > there[:, None]
        scores = (q @ k.mT * attention.scale).masked_fill(hidden, float("-inf"))
        warm = 2 * F.softmax(scores / 2, dim=-1)
        return value + warm - warm.detach()


def _layer_norm(module: Any) -> Function:
    def norm(x: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        size = (centred.pow(2).mean(-1, keepdim=True) + module.eps).sqrt().detach()
        return centred / size * module.weight + module.bias

    return norm


def _rms_norm(module: Any) -> Function:
    def norm(x: Tensor) -> Tensor:
        size = (x.pow(2).mean(-1, keepdim=True) + module.variance_epsilon).sqrt().detach()
        return x / size * module.weight

    return norm


def _plain_mlp(module: Any, rule: str) -> Function:
    def run(x: Tensor) -> Tensor:
        inner = x @ module.c_fc.weight + module.c_fc.bias
        gelu = F.gelu(inner, approximate="tanh")
        if rule == "relp":
            gelu = inner * (gelu / inner).detach()
        return gelu @ module.c_proj.weight + module.c_proj.bias

    return run


def _gated_mlp(module: Any, rule: str) -> Function:
    gate, up, down = (linear(getattr(module, f"{name}_proj")) for name in ("gate", "up", "down"))

    def run(x: Tensor) -> Tensor:
        inner, through = x @ gate[0] + gate[1], x @ up[0] + up[1]
        opened = F.silu(inner)
        if rule == "relp":
            opened = inner * (opened / inner).detach()
        product = 0.5 * (opened * through.detach() + opened.detach() * through)
        return product @ down[0] + down[1]

    return run
