"""Models whose circuits are known, as bridges: one worked out by hand, and compiled programs."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.oracles import tracr


@functools.cache
def hand_worked() -> Any:
    """Attention only, no norm, d_model = d_head = 2: every number can be checked on paper.

    Two layers of two heads; ``W_V`` is diag(1, 2) for head 0 and diag(3, 4) for head 1, ``W_O`` and
    the unembedding are the identity, token 0 is (1, 1) and token 1 is (-1, -1).
    """
    model = _native(n_layers=2, n_heads=2, d_model=2, d_head=2, d_vocab=2, n_ctx=1, attn_only=True)
    model.tok_embed.weight.copy_(torch.tensor([[1.0, 1.0], [-1.0, -1.0]]))
    for block in model.layers:
        block.attn.v.weight.copy_(
            torch.cat([torch.diag(torch.tensor(d)) for d in ([1.0, 2.0], [3.0, 4.0])])
        )
        block.attn.o.weight.copy_(torch.eye(2).repeat(1, 2))
    model.head.weight.copy_(torch.eye(2))
    return _bridge(model)


@functools.cache
def compiled_program(name: str) -> Any:
    """One of the programs compiled by tracr, which attend in both directions."""
    arrays = tracr.arrays(name)
    attention, mlps = arrays["attention"], arrays["mlps"]
    n_heads, d_model, d_head = attention[0]["w_q"].shape
    model = _native(
        n_layers=len(attention),
        n_heads=n_heads,
        d_model=d_model,
        d_head=d_head,
        d_mlp=mlps[0]["w_in"].shape[1],
        d_vocab=len(arrays["w_e"]),
        d_vocab_out=arrays["w_u"].shape[1],
        n_ctx=len(arrays["w_pos"]),
        act_fn="relu",
        attention_dir="bidirectional",
    )
    model.tok_embed.weight.copy_(arrays["w_e"])
    model.pos.weight.copy_(arrays["w_pos"])
    model.head.weight.copy_(arrays["w_u"].T)
    for block, heads, mlp in zip(model.layers, attention, mlps, strict=True):
        for kind in "qkv":
            linear = getattr(block.attn, kind)
            linear.weight.copy_(heads[f"w_{kind}"].permute(0, 2, 1).flatten(0, 1))
            linear.bias.copy_(heads[f"b_{kind}"].flatten())
        block.attn.o.weight.copy_(heads["w_o"].flatten(0, 1).T)
        block.attn.o.bias.copy_(heads["b_o"])
        for kind, linear in (("in", block.mlp.fc_in), ("out", block.mlp.fc_out)):
            linear.weight.copy_(mlp[f"w_{kind}"].T)
            linear.bias.copy_(mlp[f"b_{kind}"])
    return _bridge(model)


def _native(**options: Any) -> Any:
    """TransformerLens' own module without norms, in float64, all its parameters zero."""
    from transformer_lens.config import TransformerBridgeConfig
    from transformer_lens.model_bridge.sources.native import NativeModel

    config = TransformerBridgeConfig(
        **options,
        normalization_type=None,
        positional_embedding_type="standard",
        dtype=torch.float64,
    )
    with torch.random.fork_rng(devices=[]):
        model = NativeModel(config).to(torch.float64).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.zero_()
    return model


def _bridge(model: Any) -> Any:
    from transformer_lens.model_bridge.sources import build_bridge_from_module

    return build_bridge_from_module(model, "TransformerLensNative", tl_config=model.cfg)


def only_at(position: int, token: int) -> Callable[[Tensor], Tensor]:
    """A metric: one logit at one position."""

    def logit(logits: Tensor) -> Tensor:
        return logits[:, position, token]

    return logit
