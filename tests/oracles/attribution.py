"""Attribution of every edge in plain torch: each port reads an input of its own.

Nothing of the engines is here, and none of their shortcuts: keys and values are repeated per query
head by the oracle's loading, every port of every node reads the stream plus a zero of its own, and
the gradient at this zero is the gradient at the port's input. No projection or norm is pulled back
through by hand.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from tests.oracles.plain import EMBED, LOGITS, Edge, Node, PlainTransformer, Port

Metric = Callable[[Float[Tensor, "prompt pos d_vocab"]], Float[Tensor, " prompt"]]


def gradients(
    plain: PlainTransformer, embedding: Tensor, metric: Metric
) -> dict[Port, Float[Tensor, "prompt pos d_model"]]:
    """The gradient of a metric at every port, where the run starts from this embedding."""
    own = {port: torch.zeros_like(embedding, requires_grad=True) for port in plain.ports}
    values: dict[Node, Tensor] = {EMBED: embedding}

    def read(port: Port) -> Tensor:
        return plain.residual_at(values, port) + own[port]

    with torch.enable_grad():
        for node in plain.nodes[1:]:
            values[node] = plain.value(node, read)
        measured = metric(plain.logits(read(LOGITS))).sum()
        found = torch.autograd.grad(measured, list(own.values()))
    return dict(zip(own, found, strict=True))


def writes(plain: PlainTransformer, clean: Tensor, corrupt: Tensor) -> dict[Node, Tensor]:
    """By how much each node's write differs: of its block's contribution, with all else clean."""
    ours, theirs = plain.values(clean), plain.values(corrupt)
    found = {}
    for node in plain.nodes:
        if node[0] != "head":
            found[node] = theirs[node] - ours[node]
            continue
        zs = [ours["head", node[1], head] for head in range(plain.n_heads)]
        before = plain.attention_write(node[1], zs)
        zs[node[2]] = theirs[node]
        found[node] = plain.attention_write(node[1], zs) - before
    return found


def attribute(
    plain: PlainTransformer,
    clean: Tensor,
    corrupt: Tensor,
    metric: Metric,
    toward_clean: Sequence[float],
    by: PlainTransformer | None = None,
) -> dict[Edge, Float[Tensor, " prompt"]]:
    """Every edge's attribution per prompt: the write's change times the mean gradient.

    Args:
        plain: The model.
        clean: Its clean prompts.
        corrupt: Its corrupt prompts.
        metric: What is measured.
        toward_clean: How far from corrupt to clean the embedding is in each run.
        by: The same model with other backward rules.
    """
    ours, theirs = plain.embed(clean), plain.embed(corrupt)
    runs = [gradients(by or plain, theirs + a * (ours - theirs), metric) for a in toward_clean]
    change = writes(plain, clean, corrupt)
    return {
        (node, port): sum((change[node] * run[port]).sum((1, 2)) for run in runs) / len(runs)
        for node, port in plain.edges
    }
