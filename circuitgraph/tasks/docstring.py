'''Docstrings: after the parameters that were described so far, which one comes next?

The task is that of Heimersheim and Janiak 2023, with functions and words of this project's own. A
prompt looks like this, and goes on with " flag"::

    def merge(self, rate, limit, flag, item):
        """cloud winter

        :param rate: paper
        :param limit: stone
        :param
'''

from random import Random

from circuitgraph.tasks.drawing import draw_task
from circuitgraph.tasks.pairs import Pair
from circuitgraph.tasks.task import Task
from circuitgraph.tasks.tokens import Tokenizer

__all__ = ["docstring"]


def docstring(
    tokenizer: Tokenizer, n: int = 25, seed: int = 0, *, prepend_bos: bool | None = None
) -> Task:
    """Write functions whose docstring breaks off where the third parameter comes.

    In the corrupt twin all parameters have other names, and other ones in the docstring than in the
    definition, so that nothing says what comes next.

    Args:
        tokenizer: The model's tokenizer.
        n: How many prompt pairs.
        seed: Which prompts.
        prepend_bos: Whether each begins with the BOS token; None does as the tokenizer does.

    Returns:
        The task, with the positions ``A_def``, ``B_def``, ``C_def`` (the answer), ``D_def``,
        ``A_doc``, ``B_doc`` and ``end``. It measures the logit of C less the largest logit of the
        other names in both prompts (`LogitMargin`).

    Raises:
        PromptError: Arguments that cannot be, or a tokenizer that few of the prompts suit.
    """

    def draw(source: Random) -> Pair:
        function = source.choice(_FUNCTIONS)
        names = source.sample(_NAMES, 10)
        clean, other = names[:4], names[4:]
        words = source.sample(_WORDS, 4)
        a, b, c, d = clean
        return Pair(
            where="pair",
            clean=_prompt(function, clean, clean[:2], words),
            corrupt=_prompt(function, other[:4], other[4:], words),
            answer=(f" {c}",),
            wrong=tuple(f" {name}" for name in (a, b, d, *other)),
            positions={
                **{f"{letter}_def": (name, 1) for letter, name in zip("ABCD", clean, strict=True)},
                "A_doc": (a, 2),
                "B_doc": (b, 2),
            },
            corrupt_positions={
                **{
                    f"{letter}_def": (name, 1)
                    for letter, name in zip("ABCD", other[:4], strict=True)
                },
                "A_doc": (other[4], 1),
                "B_doc": (other[5], 1),
            },
        )

    question = "Does the model name the parameter whose turn it is?"
    return draw_task(
        "docstring",
        question,
        draw,
        tokenizer,
        n,
        seed,
        metric="logit margin",
        prepend_bos=prepend_bos,
    )


def _prompt(function: str, defined: list[str], described: list[str], words: list[str]) -> str:
    first, second = described
    return (
        f"def {function}(self, {', '.join(defined)}):\n"
        f'    """{words[0]} {words[1]}\n\n'
        f"    :param {first}: {words[2]}\n"
        f"    :param {second}: {words[3]}\n"
        "    :param"
    )


_FUNCTIONS = ("merge", "split", "draw", "read", "build", "copy", "update", "close", "start")
_NAMES = (
    "rate", "limit", "flag", "item", "size", "path", "mode", "color", "user", "table", "count",
    "index", "value", "date", "text", "level", "width", "group", "label", "state", "offset",
    "order", "image", "result", "shape",
)  # fmt: skip
_WORDS = (
    "cloud", "winter", "paper", "stone", "river", "garden", "music", "silver", "forest", "bridge",
    "copper", "market", "island", "summer", "bread",
)  # fmt: skip
