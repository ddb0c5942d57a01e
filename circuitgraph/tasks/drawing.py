"""Drawing pairs that suit a tokenizer: what it cannot align or answer in one token is passed by."""

from collections.abc import Callable
from random import Random

from circuitgraph.errors import Problems, PromptError
from circuitgraph.tasks.pairs import Pair, faults_of, make_task
from circuitgraph.tasks.task import Task
from circuitgraph.tasks.tokens import Tokenizer, check_tokenizer

__all__ = ["draw_task"]

_TRIES = 200
"""How many pairs are drawn for each one that is needed, at most."""


def draw_task(
    name: str,
    question: str,
    draw: Callable[[Random], Pair],
    tokenizer: Tokenizer,
    n: int,
    seed: int,
    *,
    metric: str | None = None,
    prepend_bos: bool | None = None,
) -> Task:
    """Return a task of the first `n` pairs that suit the tokenizer.

    Args:
        name: The task's short name.
        question: What it asks of a model.
        draw: Writes one pair.
        tokenizer: The model's tokenizer.
        n: How many pairs.
        seed: Which pairs; the first of a longer task are those of a shorter one.
        metric: See `circuitgraph.tasks.pairs.make_task`.
        prepend_bos: Whether prompts begin with the BOS token; None does as the tokenizer does.

    Raises:
        PromptError: `n` below 1, a seed that is no whole number, no tokenizer, or one for which too
            few pairs suit.
    """
    problems = Problems()
    problems.add(check_tokenizer(tokenizer))
    if isinstance(n, bool) or not isinstance(n, int) or n < 1:
        problems.add(PromptError(f"n must be a whole number of 1 or more, got {n!r}"))
    if isinstance(seed, bool) or not isinstance(seed, int):
        problems.add(PromptError(f"seed must be a whole number, such as 0, got {seed!r}"))
    problems.raise_if_any(f"cannot write {name} prompts")
    source, pairs, fault = Random(seed), [], ""
    for _ in range(_TRIES * n):
        pair = draw(source)
        found = faults_of(pair, tokenizer, prepend_bos).found
        if found:
            fault = str(found[0])
            continue
        pairs.append(pair)
        if len(pairs) == n:
            return make_task(
                name, question, pairs, tokenizer, metric=metric, prepend_bos=prepend_bos
            )
    raise PromptError(
        f"cannot write {name} prompts: only {len(pairs)} of {_TRIES * n} drawn suit this "
        f"tokenizer, and {n} are needed; the last did not because: {fault}"
    )
