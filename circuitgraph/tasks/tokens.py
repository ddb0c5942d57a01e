"""From words to aligned tokens: what every task needs to know of a tokenizer.

The tokenizer is a parameter of everything here; none is loaded, and none is changed.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from circuitgraph.errors import PromptError

__all__ = ["Tokenizer", "check_tokenizer", "encode", "pad_right", "prefix", "single_tokens"]


class Tokenizer(Protocol):
    """What a task asks of a tokenizer; every Hugging Face tokenizer has it."""

    @property
    def bos_token_id(self) -> int | None:
        """The token that begins a text, if there is one."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text, if there is one."""

    @property
    def pad_token_id(self) -> int | None:
        """The token that fills up a short text, if there is one."""

    @property
    def unk_token_id(self) -> int | None:
        """The token that stands for unknown words, if there is one."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Turn text into token ids."""


_ASKED = ("bos_token_id", "eos_token_id", "pad_token_id", "unk_token_id", "encode")


def check_tokenizer(tokenizer: object) -> PromptError | None:
    """Say what is wrong if this is not a tokenizer; models without one are the usual cause.

    Example:
        >>> print(check_tokenizer(None))
        this needs the model's tokenizer, got None: give the model one, or pass one of your own
    """
    # By name, not by type: from Python 3.12 on `isinstance` looks past attributes that a
    # tokenizer makes up when asked, as those of special tokens are.
    if all(hasattr(tokenizer, name) for name in _ASKED):
        return None
    if tokenizer is None:
        return PromptError(
            "this needs the model's tokenizer, got None: "
            "give the model one, or pass one of your own"
        )
    return PromptError(
        f"this needs a tokenizer, got {type(tokenizer).__name__}: pass model.tokenizer"
    )


def prefix(tokenizer: Tokenizer, prepend_bos: bool | None) -> list[int]:
    """Return the tokens put before every prompt: the BOS token or nothing.

    Args:
        tokenizer: The tokenizer.
        prepend_bos: Whether to begin with BOS; None does as the tokenizer itself does when it is
            called on a text.

    Raises:
        PromptError: BOS is asked for and the tokenizer has none.
    """
    bos = tokenizer.bos_token_id
    if prepend_bos is None:
        with_special, without = encode(tokenizer, "a", special=True), encode(tokenizer, "a")
        prepend_bos = bos is not None and with_special[:1] == [bos] and without[:1] != [bos]
    if not prepend_bos:
        return []
    if bos is None:
        raise PromptError(
            "prepend_bos=True, but the tokenizer has no BOS token: "
            "leave prepend_bos out, or set tokenizer.bos_token"
        )
    return [bos]


def encode(tokenizer: Tokenizer, text: str, *, special: bool = False) -> list[int]:
    """Turn text into token ids, by default without any special tokens."""
    return list(tokenizer.encode(text, add_special_tokens=special))


def single_tokens(tokenizer: Tokenizer, words: Iterable[str]) -> dict[str, int]:
    """Keep the words that are one token each inside a sentence, with that token.

    Inside a sentence means after a space, as in `"and Mary"`. Unknown words are dropped, and so are
    words that the tokenizer cannot tell from one kept before. The order of the words is kept.
    """
    before = encode(tokenizer, "and")
    kept: dict[str, int] = {}
    for word in words:
        tokens = encode(tokenizer, f"and {word}")
        if len(tokens) != len(before) + 1 or tokens[:-1] != before:
            continue
        token = tokens[-1]
        if token != tokenizer.unk_token_id and token not in kept.values():
            kept[word] = token
    return kept


def pad_right(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> Int[Tensor, "prompt pos"]:
    """Stack token lists of any lengths, filled up on the right.

    The filling is the tokenizer's padding token, else its EOS, else 0: a causal model never sees it
    from the positions before.
    """
    candidates = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    filling = next(token for token in candidates if token is not None)
    padded = torch.full((len(rows), max(map(len, rows))), filling, dtype=torch.int64)
    for row, tokens in zip(padded, rows, strict=True):
        row[: len(tokens)] = torch.tensor(tokens, dtype=torch.int64)
    return padded
