"""The tasks that the command line knows by name: plain data, so that they are listed at once."""

from dataclasses import dataclass

__all__ = ["QUESTIONS", "Question"]


@dataclass(frozen=True, slots=True)
class Question:
    """A task of `circuitgraph.tasks`.

    Attributes:
        name: What ``--task`` takes; the function has underscores instead of hyphens.
        example: A prompt.
        answer: What it goes on with, and what is wrong.
        source: Whose task it is.
    """

    name: str
    example: str
    answer: str
    source: str


QUESTIONS = (
    Question(
        "ioi",
        "Once Anna and Peter had cleaned the castle, Peter gave a map to",
        "Anna, not Peter",
        "Wang et al. 2022",
    ),
    Question(
        "greater-than",
        "The siege lasted from the year 1732 to the year 17",
        "33 and above, not below 32",
        "Hanna et al. 2023",
    ),
    Question(
        "docstring",
        "def f(self, rate, limit, flag, item): ... :param rate: ... :param limit: ... :param",
        "flag, not any other",
        "Heimersheim and Janiak 2023",
    ),
    Question(
        "pronouns",
        "So Clara is a very kind person, isn't",
        "she, not he",
        "Mathwin et al. 2023",
    ),
    Question(
        "agreement",
        "The keys near the door",
        "are, not is",
        "Linzen et al. 2016",
    ),
    Question(
        "induction",
        "random tokens: 7 3 9 5 2 ... 7 3 9",
        "5",
        "Olsson et al. 2022",
    ),
    Question(
        "capitals",
        "The capital of France is the city of",
        "Paris, not Madrid",
        "facts",
    ),
)
