"""Random aligned prompts for a model, and an answer on which clean and corrupt differ."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitgraph.errors import PromptError
from circuitgraph.lens.backend import Backend, backend_of
from circuitgraph.metrics import LogitDiff

__all__ = ["random_prompts", "telling_metric"]


def random_prompts(
    model: Any, n_prompts: int = 3, n_pos: int = 7, seed: int = 0
) -> tuple[Int[Tensor, "prompt pos"], Int[Tensor, "prompt pos"]]:
    """Return clean and corrupt tokens that differ everywhere but at the first position.

    The first token is the tokenizer's own beginning, where it has one; no other special token is
    drawn. Prompts are cut to the longest that the model takes.

    Args:
        model: Anything that an `Experiment` takes.
        n_prompts: How many pairs.
        n_pos: Their length.
        seed: Which ones; the global random state is left alone.

    Raises:
        PromptError: Fewer than one prompt, or less than two tokens.

    Example:
        >>> clean, corrupt = random_prompts(model, n_prompts=2)  # doctest: +SKIP
        >>> (clean == corrupt).sum(dim=1)  # doctest: +SKIP
        tensor([1, 1])
    """
    backend = backend_of(model)
    n_pos = min(n_pos, backend.limits.n_ctx or n_pos)
    if n_prompts < 1 or n_pos < 2:
        raise PromptError(
            f"checks need at least one prompt of at least two tokens, got {n_prompts} of {n_pos}"
        )
    words = _words(backend)
    if len(words) < 3:
        raise PromptError(f"checks need at least three tokens to choose from, got {len(words)}")
    generator = torch.Generator().manual_seed(seed)
    shape = (n_prompts, n_pos)
    clean = torch.randint(0, len(words), shape, generator=generator)
    step = torch.randint(1, len(words), shape, generator=generator)
    step[:, 0] = 0
    pair = [words[clean], words[(clean + step) % len(words)]]
    first = getattr(backend.tokenizer, "bos_token_id", None)
    if first is not None:
        for tokens in pair:
            tokens[:, 0] = int(first)
    return pair[0], pair[1]


def _words(backend: Backend) -> Int[Tensor, " token"]:
    """Return the tokens that stand for something: of the vocabulary, those that are not special."""
    tokenizer = backend.tokenizer
    n_tokens = backend.limits.d_vocab
    if tokenizer is None:
        return torch.arange(n_tokens)
    keep = torch.zeros(n_tokens, dtype=torch.bool)
    keep[: len(tokenizer)] = True
    keep[[token for token in tokenizer.all_special_ids if token < n_tokens]] = False
    return keep.nonzero().flatten()


def telling_metric(
    clean: Float[Tensor, "prompt pos d_vocab"],
    corrupt: Float[Tensor, "prompt pos d_vocab"],
    lengths: Int[Tensor, " prompt"],
) -> LogitDiff:
    """Return the logit difference that tells the two runs apart best, at each prompt's end."""
    rows = torch.arange(len(clean))
    change = (clean - corrupt)[rows, lengths.to(clean.device) - 1]
    return LogitDiff(change.argmax(dim=-1), change.argmin(dim=-1))
