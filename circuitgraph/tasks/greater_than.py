"""Greater-than: "The siege lasted from the year 1732 to the year 17" goes on with a larger year.

The task is that of Hanna et al. 2023 (arXiv:2305.00586); nouns are this project's own.
"""

from collections.abc import Sequence
from random import Random

from circuitgraph.errors import PromptError
from circuitgraph.tasks.drawing import draw_task
from circuitgraph.tasks.pairs import Pair
from circuitgraph.tasks.task import Task
from circuitgraph.tasks.tokens import Tokenizer, check_tokenizer, encode, prefix

__all__ = ["greater_than"]


def greater_than(
    tokenizer: Tokenizer, n: int = 25, seed: int = 0, *, prepend_bos: bool | None = None
) -> Task:
    """Write prompts that ask for a year after another one; in the corrupt twin that is ..01.

    Where the tokenizer has a token for two digits (GPT-2), the two last digits of the year are
    asked for; where each digit is a token (Llama 2, SmolLM2), the last but one, and years of the
    same decade count as neither right nor wrong.

    Args:
        tokenizer: The model's tokenizer.
        n: How many prompt pairs.
        seed: Which prompts.
        prepend_bos: Whether each begins with the BOS token; None does as the tokenizer does.

    Returns:
        The task, with the positions ``YY`` (the digits that the answer must exceed) and ``end``. It
        measures the probability of all larger answers less that of all smaller ones
        (`ProbabilityDiff`).

    Raises:
        PromptError: Arguments that cannot be, or a tokenizer that groups digits in another way.
    """
    problem = check_tokenizer(tokenizer)
    if problem is not None:
        raise PromptError(f"cannot write greater-than prompts: {problem}")
    steps = _steps(tokenizer)
    start = len(prefix(tokenizer, prepend_bos))
    years = range(2, 99) if len(steps) == 100 else range(10, 90)

    def draw(source: Random) -> Pair:
        century, year = source.choice(range(11, 19)), source.choice(years)
        before = f"The {source.choice(_NOUNS)} lasted from the year {century}"
        limit = year if len(steps) == 100 else year // 10
        larger, smaller = steps[limit + 1 :], steps[:limit]
        after = f" to the year {century}"
        return Pair(
            where="pair",
            clean=f"{before}{year:02d}{after}",
            # Written apart, digits are tokens of their own in some years only: such a year is out.
            corrupt=f"{before}01{after}" if _apart(tokenizer, before, year, steps) else "",
            answer=tuple(larger),
            wrong=tuple(smaller),
            positions={"YY": start + len(encode(tokenizer, before))},
        )

    question = "Does the model give a year that is later than the first?"
    return draw_task(
        "greater-than",
        question,
        draw,
        tokenizer,
        n,
        seed,
        metric="probability difference",
        prepend_bos=prepend_bos,
    )


def _steps(tokenizer: Tokenizer) -> Sequence[str]:
    """Return what the answer counts in: all pairs of digits, or all digits.

    Raises:
        PromptError: The tokenizer groups digits in another way.
    """
    for steps in ([f"{number:02d}" for number in range(100)], [str(digit) for digit in range(10)]):
        tokens = {step: encode(tokenizer, step) for step in steps}
        years = (f"in 17{step}" for step in steps)
        followed = [encode(tokenizer, year)[len(encode(tokenizer, "in 17")) :] for year in years]
        alone = all(
            len(token) == 1 and token[0] != tokenizer.unk_token_id for token in tokens.values()
        )
        if alone and sum(row == tokens[step] for row, step in zip(followed, steps, strict=True)) > (
            len(steps) // 2
        ):
            return steps
    raise PromptError(
        "cannot write greater-than prompts: this tokenizer makes neither one token of two digits "
        "nor one of each, so a year does not go on after its century"
    )


def _apart(tokenizer: Tokenizer, before: str, year: int, steps: Sequence[str]) -> bool:
    """Return whether the year's digits are tokens after those of its century, in both prompts."""
    wide = 2 if len(steps) == 100 else 1

    def split(digits: str) -> list[int]:
        parts = [digits[at : at + wide] for at in range(0, 2, wide)]
        return [*encode(tokenizer, before), *(t for part in parts for t in encode(tokenizer, part))]

    return all(
        encode(tokenizer, before + digits) == split(digits) for digits in (f"{year:02d}", "01")
    )


_NOUNS = (
    "siege", "war", "famine", "journey", "dispute", "reign", "drought", "alliance", "blockade",
    "trial", "voyage", "project", "strike", "plague", "marriage", "revolt", "truce", "exile",
)  # fmt: skip
