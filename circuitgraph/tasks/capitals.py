"""Facts: "The capital of France is the city of" goes on with " Paris"."""

from random import Random

from circuitgraph.tasks.drawing import draw_task
from circuitgraph.tasks.pairs import Pair
from circuitgraph.tasks.task import Task
from circuitgraph.tasks.tokens import Tokenizer

__all__ = ["capitals"]


def capitals(
    tokenizer: Tokenizer, n: int = 25, seed: int = 0, *, prepend_bos: bool | None = None
) -> Task:
    """Write prompts that ask for a country's capital; the corrupt twin asks for another country's.

    Args:
        tokenizer: The model's tokenizer.
        n: How many prompt pairs.
        seed: Which prompts.
        prepend_bos: Whether each begins with the BOS token; None does as the tokenizer does.

    Returns:
        The task, with the positions ``country`` (its last token) and ``end``. It measures the logit
        difference of both capitals.

    Raises:
        PromptError: Arguments that cannot be, or a tokenizer that few of the prompts suit.
    """

    def draw(source: Random) -> Pair:
        (country, capital), (other, others) = source.sample(_CAPITALS, 2)
        sentence = source.choice(_SENTENCES)
        return Pair(
            where="pair",
            clean=sentence.format(country),
            corrupt=sentence.format(other),
            answer=(f" {capital}",),
            wrong=(f" {others}",),
            positions={"country": country},
            corrupt_positions={"country": other},
        )

    question = "Does the model name the capital of the country rather than another one?"
    return draw_task("capitals", question, draw, tokenizer, n, seed, prepend_bos=prepend_bos)


_SENTENCES = (
    "The capital of {} is the city of",
    "As everybody knows, the government of {} has its seat in",
    "Our flight to {} landed late in the capital,",
)
_CAPITALS = (
    ("France", "Paris"), ("Spain", "Madrid"), ("Italy", "Rome"), ("Germany", "Berlin"),
    ("Egypt", "Cairo"), ("Japan", "Tokyo"), ("Russia", "Moscow"), ("Austria", "Vienna"),
    ("Greece", "Athens"), ("Ireland", "Dublin"), ("Norway", "Oslo"), ("Sweden", "Stockholm"),
    ("Portugal", "Lisbon"), ("Poland", "Warsaw"), ("Hungary", "Budapest"), ("Cuba", "Havana"),
    ("Peru", "Lima"), ("China", "Beijing"), ("Thailand", "Bangkok"), ("Kenya", "Nairobi"),
    ("Iran", "Tehran"), ("Iraq", "Baghdad"), ("Turkey", "Ankara"), ("England", "London"),
    ("Canada", "Ottawa"), ("India", "Delhi"), ("Syria", "Damascus"), ("Belgium", "Brussels"),
    ("Denmark", "Copenhagen"), ("Finland", "Helsinki"),
)  # fmt: skip
