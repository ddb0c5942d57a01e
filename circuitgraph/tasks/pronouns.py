"""Gendered pronouns: "So Clara is a very kind person, isn't" goes on with " she".

The task is that of Mathwin et al. 2023; sentences and names are this project's own.
"""

from random import Random

from circuitgraph.tasks.drawing import draw_task
from circuitgraph.tasks.pairs import Pair
from circuitgraph.tasks.task import Task
from circuitgraph.tasks.tokens import Tokenizer

__all__ = ["pronouns"]


def pronouns(
    tokenizer: Tokenizer, n: int = 25, seed: int = 0, *, prepend_bos: bool | None = None
) -> Task:
    """Write prompts that ask for the pronoun of a name; in the corrupt twin it is another gender's.

    Args:
        tokenizer: The model's tokenizer.
        n: How many prompt pairs.
        seed: Which prompts.
        prepend_bos: Whether each begins with the BOS token; None does as the tokenizer does.

    Returns:
        The task, with the positions ``name`` and ``end``. It measures the logit difference of
        " she" and " he", the right one less the wrong one.

    Raises:
        PromptError: Arguments that cannot be, or a tokenizer that few of the prompts suit.
    """

    def draw(source: Random) -> Pair:
        sentence, trait = source.choice(_SENTENCES), source.choice(_TRAITS)
        genders = [(source.choice(_WOMEN), " she"), (source.choice(_MEN), " he")]
        if source.random() < 0.5:
            genders.reverse()
        (name, right), (other, wrong) = genders
        return Pair(
            where="pair",
            clean=sentence.format(name=name, trait=trait),
            corrupt=sentence.format(name=other, trait=trait),
            answer=(right,),
            wrong=(wrong,),
            positions={"name": name},
            corrupt_positions={"name": other},
        )

    question = "Does the model use the pronoun that goes with the name?"
    return draw_task("pronouns", question, draw, tokenizer, n, seed, prepend_bos=prepend_bos)


_SENTENCES = (
    "So {name} is a very {trait} person, isn't",
    "I hear that {name} is a {trait} neighbour, isn't",
    "Everybody says {name} was {trait} yesterday, wasn't",
    "After all {name} has been {trait} for years, hasn't",
)
_TRAITS = ("kind", "quiet", "busy", "clever", "honest", "funny", "patient", "brave", "tired")
_WOMEN = (
    "Anna", "Maria", "Laura", "Helen", "Emma", "Julia", "Clara", "Sarah", "Alice", "Sophie",
    "Susan", "Diana", "Lisa", "Linda", "Carol", "Jane", "Rachel", "Emily", "Kate", "Lucy",
)  # fmt: skip
_MEN = (
    "Peter", "Thomas", "Simon", "Oliver", "Lucas", "Felix", "Daniel", "Robert", "Victor", "Henry",
    "Marcus", "George", "Edward", "Walter", "Arthur", "Albert", "Philip", "Paul", "David", "Eric",
)  # fmt: skip
