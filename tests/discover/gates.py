"""Models that compute a gate of two heads: every number can be checked on paper.

One position, one layer, no norm. Token 1 carries the signal 1, token 0 carries 0. Heads 0.0 and 0.1
copy it, each into a dimension of its own; the MLP makes a gate of their sum ``s`` out of ``relu(s)``
and ``relu(s - 1)``; logit 0 is ``scale`` times the gate, logit 1 is 0.
"""

import functools

import torch

from tests.engines.known_models import _bridge, _native

__all__ = ["gate", "linear_noise"]

GATES = {"or": (1.0, -1.0), "xor": (1.0, -2.0), "and": (0.0, 1.0)}


@functools.cache
def gate(name: str, scale: float = 4.0):
    """A bridge of the model whose MLP computes ``or``, ``xor`` or ``and`` of two heads."""
    model = _native(
        n_layers=1,
        n_heads=2,
        d_model=4,
        d_head=2,
        d_mlp=2,
        d_vocab=2,
        n_ctx=1,
        act_fn="relu",
    )
    (block,) = model.layers
    model.tok_embed.weight[1, 0] = 1.0
    for head in (0, 1):
        block.attn.v.weight[2 * head, 0] = 1.0
        block.attn.o.weight[1 + head, 2 * head] = 1.0
    block.mlp.fc_in.weight[:, 1:3] = 1.0
    block.mlp.fc_in.bias.copy_(torch.tensor([0.0, -1.0]))
    block.mlp.fc_out.weight[3].copy_(torch.tensor(GATES[name]))
    model.head.weight[0, 3] = scale
    return _bridge(model)


@functools.cache
def linear_noise(seed: int = 0):
    """A random model that is linear: uniform attention, no MLP, no norm.

    Where clean and corrupt prompts are drawn alike, no edge has an effect on average.
    """
    model = _native(
        n_layers=2, n_heads=3, d_model=12, d_head=4, d_vocab=23, n_ctx=8, attn_only=True
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if not name.endswith(("q.weight", "k.weight", "q.bias", "k.bias")):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(0.4 * noise)
    return _bridge(model)
