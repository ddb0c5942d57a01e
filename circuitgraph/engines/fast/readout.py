"""From the end of the residual stream to the metric: norm, unembed what is read, measure."""

import torch
from jaxtyping import Float
from torch import Tensor

from circuitgraph.engines.fast.state import State

__all__ = ["clean_logits", "measure_rows"]

LOGITS_AT_ONCE = 2**27
"""How many logits are made at once."""


def measure_rows(
    state: State, change: Float[Tensor, "row prompt read d_model"], clean: Tensor | None = None
) -> Float[Tensor, "row value"]:
    """Return the metric where the residual stream after the last block changes by ``change``.

    Args:
        state: The experiment.
        change: At the one position that the metric reads, or at all positions where it reads all.
        clean: Logits of the clean run to compare with, where they are not those at the same place.
    """
    d_vocab = state.blocks.limits.d_vocab_out
    metric = state.setup.metric
    if not metric.metrics:
        return change.new_zeros(len(change), 0)
    per_row = change.shape[1] * change.shape[2] * (1 if few_tokens(state) else d_vocab)
    most = max(1, LOGITS_AT_ONCE // per_row)
    if clean is None:
        clean = clean_logits(state)
    parts = [metric.measure(logits_read(state, part), clean) for part in change.split(most)]
    return torch.cat(parts)


def clean_logits(state: State) -> Float[Tensor, "prompt *read"]:
    """Return the clean run's logits that the metric reads."""
    n_read = state.n_pos if state.setup.metric.read is None else 1
    shape = (1, state.n_prompts, n_read, state.final.shape[-1])
    change = torch.zeros(shape, dtype=state.delta_dtype, device=state.final.device)
    with torch.no_grad():
        return logits_read(state, change)[0]


def few_tokens(state: State) -> bool:
    """Return whether the metric reads few tokens that can be unembedded by themselves."""
    return state.setup.metric.tokens is not None and state.traits.plain_readout


def logits_read(state: State, change: Tensor) -> Float[Tensor, "row prompt *read"]:
    """Return the logits that the metric reads: of its tokens, of all, or of all positions."""
    metric, blocks = state.setup.metric, state.blocks
    n_rows, n_prompts = change.shape[:2]
    at = metric.read
    clean = state.final if at is None else state.final[state.rows, at[:, None]]
    tokens = metric.tokens
    if few_tokens(state) and tokens is not None:
        # In a wide type, so that a small change survives its way through a half-precision model.
        wide = state.delta_dtype
        return blocks.read_tokens((clean.to(wide) + change)[:, :, 0], tokens)
    hidden = (clean + change.to(clean.dtype)).flatten(0, 1)
    if at is None:
        return blocks.read_out(hidden, state.layer(0).call).unflatten(0, (n_rows, n_prompts))
    logits = blocks.read_out(hidden, state.layer(0).call).unflatten(0, (n_rows, n_prompts))[:, :, 0]
    logits = logits.to(state.delta_dtype)
    if tokens is None:
        return logits
    return logits.gather(-1, tokens.expand(n_rows, *tokens.shape))
