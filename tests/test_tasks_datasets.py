"""Pairs from data sets: small copies of the rows of MIB as the hub serves them."""

import pytest
import torch
from datasets import Dataset

from circuitgraph.errors import PromptError
from circuitgraph.metrics import LogitDiff, LogProb
from circuitgraph.tasks import from_rows, mib
from tests.test_tasks import whole_words

WORDS = (
    "When", "Ann", "Bob", "Cid", "Dot", "met", ",", "gave", "it", "to", "The", "box", "is", "red",
    "blue", "Question", ":", "A", "B", ".", "Answer", "sum", "of", "1", "2", "3", "4", "7", "12",
    "and", "Zoe",
)  # fmt: skip
ID = {word: number for number, word in enumerate(("[UNK]", "[PAD]", "[BOS]", "[EOS]", *WORDS))}


@pytest.fixture(scope="module")
def words():
    return whole_words(WORDS)


def names(prompt: str, io: str, subject: str) -> dict[str, object]:
    return {
        "prompt": prompt,
        "choices": [io, subject],
        "answerKey": 0,
        "template": "When {name_A} and {name_B} met, {name_C} gave it to",
        "metadata": {"indirect_object": io, "subject": subject, "random_c": "Cid"},
    }


IOI = [
    names("When Ann and Bob met, Bob gave it to", "Ann", "Bob")
    | {
        "s2_io_flip_counterfactual": names("When Ann and Bob met, Ann gave it to", "Bob", "Ann"),
        "abc_counterfactual": names("When Ann and Bob met, Cid gave it to", "Dot", "Cid"),
    },
    names("When Bob and Rumpelstilz met, Bob gave it to", "Rumpelstilz", "Bob")
    | {
        "s2_io_flip_counterfactual": names("When Bob and x met, x gave it to", "Bob", "x"),
        "abc_counterfactual": names("When Bob and x met, Cid gave it to", "Dot", "x"),
    },
]


def question(prompt: str, key: int) -> dict[str, object]:
    return {
        "prompt": prompt,
        "choices": {"label": ["A", "B"], "text": ["red", "blue"]},
        "answerKey": key,
    }


COLOURS = [
    question("The box is red. Question: A. red B. blue Answer:", 0)
    | {"symbol_counterfactual": question("The box is red. Question: B. red A. blue Answer:", 1)}
]


def total(prompt: str, label: str, sign: str = "+") -> dict[str, object]:
    return {"prompt": prompt, "label": label, "operator": sign, "num_digit": 1}


SUMS = [
    total("The sum of 1 and 2 is", "3")
    | {"random_counterfactual": total("The sum of 3 and 4 is", "7")},
    total("The sum of 1 and 3 is", "4") | {"random_counterfactual": None},
    total("The sum of 3 and 1 is", "2", "-")
    | {"random_counterfactual": total("The sum of 4 and 1 is", "3", "-")},
    total("The sum of 4 and 3 is", "7") | {"random_counterfactual": total("The sum of 1 is", "1")},
]


def ids(text: str) -> list[int]:
    return [
        ID.get(word, 0)
        for word in text.replace(",", " ,").replace(".", " .").replace(":", " :").split()
    ]


@pytest.mark.parametrize("form", [list, Dataset.from_list])
def test_ioi(words, form):
    task = mib("ioi", words, rows=form(IOI))
    assert task.clean.tolist() == [ids("When Ann and Bob met, Bob gave it to")]
    assert task.corrupt.tolist() == [ids("When Ann and Bob met, Ann gave it to")]
    assert isinstance(task.metric, LogitDiff)
    assert (int(task.metric.correct), int(task.metric.incorrect)) == (ID["Ann"], ID["Bob"])
    assert "(1 of 2 rows left out; row 1: answer ' Rumpelstilz' is unknown" in task.question
    abc = mib("ioi", words, rows=form(IOI), counterfactual="abc")
    assert abc.corrupt.tolist() == [ids("When Ann and Bob met, Cid gave it to")]
    assert int(abc.metric.correct) == ID["Ann"]


@pytest.mark.parametrize("which", ["mcqa", "arc_easy", "arc_challenge"])
def test_questions_with_choices(words, which):
    task = mib(which, words, rows=Dataset.from_list(COLOURS))
    assert task.corrupt.tolist() == [ids("The box is red. Question: B. red A. blue Answer:")]
    assert (int(task.metric.correct), int(task.metric.incorrect)) == (ID["A"], ID["B"])
    assert task.positions["end"].tolist() == [
        len(ids("The box is red. Question: A. red B. blue Answer:")) - 1
    ]


def test_arithmetic(words):
    task = mib("arithmetic_addition", words, rows=SUMS)
    assert task.clean_text == ("The sum of 1 and 2 is",)
    assert task.corrupt_text == ("The sum of 3 and 4 is",)
    assert task.answers == (("3", "7"),)
    assert "(1 of 2 rows left out; row 1: clean has 7 tokens and corrupt 5" in task.question
    less = mib("arithmetic_subtraction", words, rows=SUMS)
    assert less.answers == (("2", "3"),)


def test_any_rows(words):
    rows = [
        {"good": "The box is", "bad": "The sum is", "next": [" red", " blue"], "no": None},
        {"good": "The box is", "bad": "The it is", "next": [" red"], "no": None},
    ]
    columns = {"clean": "good", "corrupt": "bad", "answer": "next"}
    task = from_rows(rows, words, columns, name="boxes", question="Which colour?", n=1)
    assert task.answers == (((" red", " blue"), ()),)
    plain = [{"clean": "The box", "corrupt": "The sum", "answer": " is"}]
    assert isinstance(from_rows(plain, words).metric, LogProb)
    assert torch.equal(from_rows(plain, words).clean, torch.tensor([ids("The box")]))
    both = [plain[0] | {"wrong": " of"}]
    assert isinstance(from_rows(both, words).metric, LogitDiff)


def test_faults(words):
    good = {"clean": "The box", "corrupt": "The sum", "answer": " is"}
    with pytest.raises(
        PromptError, match=r"rows, row 1: no column 'corrupt'; there are clean, answer"
    ):
        from_rows([good, {"clean": "a", "answer": "b"}], words)
    with pytest.raises(PromptError, match=r"rows, row 0: column 'clean' holds 3, not a text"):
        from_rows([good | {"clean": 3}], words)
    with pytest.raises(PromptError, match=r"row 1: clean has 2 tokens and corrupt 1"):
        from_rows([good, good | {"corrupt": "The"}], words)
    with pytest.raises(PromptError, match="columns names 'question'"):
        from_rows([good], words, {"question": "clean"})
    with pytest.raises(PromptError, match="no benchmark 'sums' in MIB: there is ioi, mcqa"):
        mib("sums", words)
    with pytest.raises(
        PromptError, match="no column 'xyz_counterfactual'; counterfactuals are abc"
    ):
        mib("ioi", words, rows=IOI, counterfactual="xyz")
    with pytest.raises(PromptError, match="none of the 1 rows of mib ioi can be patched"):
        mib("ioi", words, rows=IOI[1:])
    with pytest.raises(
        PromptError, match=r"row 0: it is not as the benchmark's are: KeyError\('metadata'\)"
    ):
        mib("ioi", words, rows=COLOURS, counterfactual="symbol")
    with pytest.raises(PromptError, match="there are no pairs in it"):
        mib("ioi", words, rows=[])


def test_a_hub_that_cannot_be_reached(words, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("datasets.load_dataset", unreachable)
    with pytest.raises(
        PromptError, match=r"cannot load the data set 'mib-bench/arc_easy' .*: no route"
    ):
        mib("arc_easy", words)


@pytest.mark.network
def test_the_benchmark_itself(words):
    task = mib("ioi", words, n=1, split="test")
    assert len(task) == 1
