"""Subject and verb agree: "The keys near the door" goes on with " are", whatever the door is.

The task is that of Linzen et al. 2016 (arXiv:1611.01368) and Finlayson et al. 2021
(arXiv:2106.06087); nouns and sentences are this project's own.
"""

from random import Random

from circuitgraph.tasks.drawing import draw_task
from circuitgraph.tasks.pairs import Pair
from circuitgraph.tasks.task import Task
from circuitgraph.tasks.tokens import Tokenizer

__all__ = ["agreement"]


def agreement(
    tokenizer: Tokenizer, n: int = 25, seed: int = 0, *, prepend_bos: bool | None = None
) -> Task:
    """Write prompts that ask for a verb; in the corrupt twin the subject has the other number.

    Between subject and verb stands another noun, of one number or the other.

    Args:
        tokenizer: The model's tokenizer.
        n: How many prompt pairs.
        seed: Which prompts.
        prepend_bos: Whether each begins with the BOS token; None does as the tokenizer does.

    Returns:
        The task, with the positions ``subject``, ``other`` (the noun between) and ``end``. It
        measures the logit difference of the verb that agrees and the one that does not.

    Raises:
        PromptError: Arguments that cannot be, or a tokenizer that few of the prompts suit.
    """

    def draw(source: Random) -> Pair:
        noun, other = source.sample(_NOUNS, 2)
        number, others = source.randrange(2), source.randrange(2)
        between = source.choice(_BETWEEN)
        verbs = source.choice(_VERBS)
        clean, corrupt = (
            f"The {noun[k]} {between} the {other[others]}" for k in (number, 1 - number)
        )
        return Pair(
            where="pair",
            clean=clean,
            corrupt=corrupt,
            answer=(verbs[number],),
            wrong=(verbs[1 - number],),
            positions={"subject": noun[number], "other": other[others]},
            corrupt_positions={"subject": noun[1 - number]},
        )

    question = "Does the verb agree with its subject rather than with the noun between?"
    return draw_task("agreement", question, draw, tokenizer, n, seed, prepend_bos=prepend_bos)


_NOUNS = (
    ("key", "keys"), ("door", "doors"), ("teacher", "teachers"), ("window", "windows"),
    ("letter", "letters"), ("picture", "pictures"), ("author", "authors"), ("farmer", "farmers"),
    ("bottle", "bottles"), ("tree", "trees"), ("car", "cars"), ("student", "students"),
    ("doctor", "doctors"), ("book", "books"), ("table", "tables"), ("garden", "gardens"),
    ("house", "houses"), ("driver", "drivers"), ("river", "rivers"), ("ship", "ships"),
)  # fmt: skip
_BETWEEN = ("near", "behind", "beside", "in front of", "next to")
_VERBS = ((" is", " are"), (" was", " were"), (" has", " have"))
