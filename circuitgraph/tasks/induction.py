"""Induction: random tokens, then the same again, as far as one whose successor is known by now.

No text and no words, so it suits any vocabulary (Elhage et al. 2021; Olsson et al. 2022,
arXiv:2209.11895).
"""

import random
from collections.abc import Callable
from typing import Any

import torch

from circuitgraph.errors import Problems, PromptError
from circuitgraph.metrics import LogProb
from circuitgraph.tasks.task import Task
from circuitgraph.tasks.tokens import Tokenizer, check_tokenizer, encode, prefix

__all__ = ["induction"]

_ENOUGH = 1000


def induction(
    tokenizer: Tokenizer | int,
    n: int = 25,
    seed: int = 0,
    *,
    length: int = 12,
    prepend_bos: bool | None = None,
) -> Task:
    """Write random tokens twice, the second time as far as one token.

    In ``7 3 9 5 .. 7 3 9`` the next token is 5, as after the first 9. The corrupt twin has other
    tokens in the first part, so that nothing says what follows.

    Args:
        tokenizer: The model's tokenizer, or the number of tokens in its vocabulary.
        n: How many prompt pairs.
        seed: Which tokens.
        length: Tokens that are repeated, at least 3.
        prepend_bos: Whether each prompt begins with the BOS token; None does as the tokenizer does.

    Returns:
        The task, with the positions ``A`` (the first place of the last token), ``B`` (after it, the
        answer) and ``end``. It measures the answer's log-probability, whose negative is the loss of
        the papers.

    Raises:
        PromptError: Arguments that cannot be.
    """
    problems = Problems()
    for what, value, least in (("n", n, 1), ("length", length, 3), ("seed", seed, None)):
        if isinstance(value, bool) or not isinstance(value, int) or value < (least or value):
            more = "" if least is None else f" of {least} or more"
            problems.add(PromptError(f"{what} must be a whole number{more}, got {value!r}"))
    if not isinstance(tokenizer, int):
        problems.add(check_tokenizer(tokenizer))
    elif isinstance(tokenizer, bool) or tokenizer <= 2 * length:
        problems.add(
            PromptError(
                f"a vocabulary of {tokenizer!r} tokens is too small for {2 * length} of them"
            )
        )
    problems.raise_if_any("cannot write induction prompts")
    source = random.Random(seed)
    start = [] if isinstance(tokenizer, int) else prefix(tokenizer, prepend_bos)
    tokens = _tokens(tokenizer, source, 2 * length)
    rows = [_row(source.sample(tokens, 2 * length), source, length) for _ in range(n)]
    shown = _shown(tokenizer)
    before = len(start)
    positions = {
        "A": torch.tensor([before + last for _, _, last in rows]),
        "B": torch.tensor([before + last + 1 for _, _, last in rows]),
        "end": torch.tensor([before + length + last for _, _, last in rows]),
    }
    answers = [first[last + 1] for first, _, last in rows]
    width = before + 2 * length
    clean, corrupt = (
        torch.tensor([(start + part + again + tail)[:width] for part, again, tail in parts])
        for parts in (
            [(first, first[: last + 1], first) for first, _, last in rows],
            [(other, first[: last + 1], first) for first, other, last in rows],
        )
    )
    lengths = positions["end"] + 1
    widest = int(lengths.max())
    return Task(
        name="induction",
        question="Does the model go on as it did after the same tokens before?",
        clean=clean[:, :widest],
        corrupt=corrupt[:, :widest],
        **{
            f"{which}_text": tuple(
                shown(row[:length_])
                for row, length_ in zip(part.tolist(), lengths.tolist(), strict=True)
            )
            for which, part in (("clean", clean), ("corrupt", corrupt))
        },
        answers=tuple((shown([token]), ()) for token in answers),
        positions=positions,
        corrupt_positions=dict(positions),
        metric=LogProb(torch.tensor(answers), positions["end"]),
        lengths=lengths,
        from_text=False,
    )


Row = tuple[list[int], list[int], int]


def _row(drawn: list[int], source: random.Random, length: int) -> Row:
    """Return the tokens that are repeated, those instead of them, and how far the second time."""
    return drawn[:length], drawn[length:], source.randrange(1, length - 1)


def _tokens(tokenizer: Tokenizer | int, source: random.Random, least: int) -> list[int]:
    """Return tokens to draw from: any number of a vocabulary, or those that are whole texts."""
    if isinstance(tokenizer, int):
        return source.sample(range(tokenizer), min(tokenizer, _ENOUGH))
    reader: object = tokenizer
    size = len(reader)  # type: ignore[arg-type]  # every Hugging Face tokenizer has a length
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    special = {*known, tokenizer.unk_token_id, *getattr(reader, "all_special_ids", ())}
    found = []
    for token in source.sample(range(size), size):
        text = _shown(tokenizer)([token])
        if token not in special and text.strip() and encode(tokenizer, text) == [token]:
            found.append(token)
        if len(found) == _ENOUGH:
            break
    if len(found) < least:
        raise PromptError(
            f"cannot write induction prompts: this tokenizer has {len(found)} tokens that are "
            f"texts of their own, and {least} are needed"
        )
    return found


def _shown(tokenizer: Tokenizer | int) -> Callable[[list[int]], str]:
    if isinstance(tokenizer, int):
        return lambda tokens: "".join(f"<{token}>" for token in tokens)
    reader: Any = tokenizer
    return lambda tokens: str(reader.decode(tokens))
