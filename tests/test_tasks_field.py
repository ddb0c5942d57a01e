"""The field's tasks: what each prompt asks, read off its tokens and texts again."""

import re

import pytest
import torch
from tokenizers import Regex
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Sequence as InTurn
from tokenizers.pre_tokenizers import Split, Whitespace
from transformers import PreTrainedTokenizerFast

from circuitgraph import tasks
from circuitgraph.cli.questions import QUESTIONS
from circuitgraph.cli.setting import TASKS
from circuitgraph.errors import PromptError
from circuitgraph.metrics import LogitDiff, LogitMargin, LogProb, ProbabilityDiff
from circuitgraph.metrics import Prompts as Bound
from circuitgraph.tasks import Task
from circuitgraph.tasks.greater_than import _NOUNS

SPECIAL = ["[UNK]", "[PAD]", "[BOS]"]


def digits(width: int) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words and of so many digits together, as GPT-2 or Llama 2 groups them."""
    numbers = [f"{n:0{width}d}" for n in range(10**width)]
    known = ["The", "lasted", "from", "the", "year", "to", "in", *_NOUNS, *numbers]
    words = RustTokenizer(
        WordLevel({w: n for n, w in enumerate(SPECIAL + known)}, unk_token="[UNK]")
    )
    words.pre_tokenizer = InTurn([Whitespace(), Split(Regex(rf"\d{{{width}}}"), "isolated")])
    return PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]")


@pytest.fixture
def tokenizer(smollm2):
    return smollm2.tokenizer


def aligned(task: Task, tokenizer: PreTrainedTokenizerFast) -> None:
    """What holds of every task: texts are tokens, twins align, the same seed gives the same."""
    assert task.clean.shape == task.corrupt.shape
    for row, length in enumerate(task.lengths.tolist()):
        for tokens, texts in ((task.clean, task.clean_text), (task.corrupt, task.corrupt_text)):
            assert tokens[row, :length].tolist() == tokenizer.encode(texts[row])
        assert int(task.positions["end"][row]) == length - 1
        assert task.clean_text[row] != task.corrupt_text[row]


def word_at(
    task: Task, tokenizer: PreTrainedTokenizerFast, name: str, row: int, corrupt: bool = False
) -> str:
    tokens, places = (
        (task.corrupt, task.corrupt_positions) if corrupt else (task.clean, task.positions)
    )
    return tokenizer.decode([int(tokens[row, places[name][row]])])


def sets_of(task: Task, d_vocab: int) -> list[tuple[set[int], set[int]]]:
    """Each prompt's right and wrong tokens, from the metric as it is bound."""
    width = task.clean.shape[1]
    bound = task.metric.bind(Bound(len(task), width, d_vocab, task.positions, task.lengths))
    return [
        (set(ids[side == 1].tolist()), set(ids[side == -1].tolist()))
        for ids, side in zip(bound.ids, bound.side, strict=True)
    ]


@pytest.mark.parametrize("width", [1, 2])
def test_greater_than(width):
    words = digits(width)
    task = tasks.greater_than(words, n=30, seed=3)
    aligned(task, words)
    assert isinstance(task.metric, ProbabilityDiff)
    for row, (right, wrong) in enumerate(sets_of(task, len(words))):
        form = r"The (\w+) lasted from the year (\d\d)(\d\d) to the year (\d\d)"
        noun, century, year, again = re.fullmatch(form, task.clean_text[row]).groups()
        assert century == again
        assert (
            task.corrupt_text[row]
            == f"The {noun} lasted from the year {century}01 to the year {century}"
        )
        start = year[:width]
        assert word_at(task, words, "YY", row) == start
        numbers = {f"{n:0{width}d}" for n in range(10**width)}
        assert right == {words.convert_tokens_to_ids(n) for n in numbers if n > start}
        assert wrong == {words.convert_tokens_to_ids(n) for n in numbers if n < start}
        assert right
        assert wrong


def test_greater_than_needs_digits():
    with pytest.raises(PromptError, match="neither one token of two digits nor one of each"):
        tasks.greater_than(digits(3))
    with pytest.raises(PromptError, match="needs the model's tokenizer, got None"):
        tasks.greater_than(None)


def test_greater_than_in_smollm2(tokenizer):
    task = tasks.greater_than(tokenizer, n=10)
    aligned(task, tokenizer)
    for row in range(10):
        assert (
            word_at(task, tokenizer, "YY", row) == re.search(r"\d\d(\d)\d", task.clean_text[row])[1]
        )


def test_docstring(tokenizer):
    task = tasks.docstring(tokenizer, n=12, seed=2)
    aligned(task, tokenizer)
    assert isinstance(task.metric, LogitMargin)
    for row, (right, wrong) in enumerate(sets_of(task, len(tokenizer))):
        names = re.search(r"\(self, (.*)\)", task.clean_text[row])[1].split(", ")
        assert re.findall(r":param (\w+)", task.clean_text[row]) == names[:2]
        assert [word_at(task, tokenizer, f"{x}_def", row).strip() for x in "ABCD"] == names
        assert [word_at(task, tokenizer, f"{x}_doc", row).strip() for x in "AB"] == names[:2]
        others = re.search(r"\(self, (.*)\)", task.corrupt_text[row])[1].split(", ")
        others += re.findall(r":param (\w+)", task.corrupt_text[row])
        assert len({*names, *others}) == 10
        assert [word_at(task, tokenizer, f"{x}_doc", row, True).strip() for x in "AB"] == others[4:]
        assert right == set(tokenizer.encode(f" {names[2]}"))
        assert wrong == {
            t for name in {*names, *others} - {names[2]} for t in tokenizer.encode(f" {name}")
        }


def test_pronouns(tokenizer):
    from circuitgraph.tasks.pronouns import _MEN, _WOMEN

    task = tasks.pronouns(tokenizer, n=20, seed=1)
    aligned(task, tokenizer)
    seen = set()
    for row, answers in enumerate(task.answers):
        name = word_at(task, tokenizer, "name", row).strip()
        other = word_at(task, tokenizer, "name", row, corrupt=True).strip()
        assert (name in _WOMEN, other in _MEN) in {(True, True), (False, False)}
        assert answers == ((" she", " he") if name in _WOMEN else (" he", " she"))
        assert task.clean_text[row].replace(name, other) == task.corrupt_text[row]
        seen.add(answers)
    assert len(seen) == 2
    assert not set(_MEN) & set(_WOMEN)


def test_agreement(tokenizer):
    task = tasks.agreement(tokenizer, n=20, seed=1)
    aligned(task, tokenizer)
    for row, (right, wrong) in enumerate(task.answers):
        subject = word_at(task, tokenizer, "subject", row).strip()
        other = word_at(task, tokenizer, "subject", row, corrupt=True).strip()
        assert {subject, other} == {
            min(subject, other, key=len),
            min(subject, other, key=len) + "s",
        }
        assert (right in {" are", " were", " have"}) == subject.endswith("s")
        assert {right, wrong} in ({" is", " are"}, {" was", " were"}, {" has", " have"})
        assert task.clean_text[row].endswith(word_at(task, tokenizer, "other", row))


def test_capitals(tokenizer):
    from circuitgraph.tasks.capitals import _CAPITALS

    known = dict(_CAPITALS)
    task = tasks.capitals(tokenizer, n=20, seed=1)
    aligned(task, tokenizer)
    assert isinstance(task.metric, LogitDiff)
    for row, answers in enumerate(task.answers):
        country = word_at(task, tokenizer, "country", row).strip()
        other = word_at(task, tokenizer, "country", row, corrupt=True).strip()
        assert answers == (f" {known[country]}", f" {known[other]}")


@pytest.mark.parametrize("length", [3, 12])
def test_induction(length):
    task = tasks.induction(500, n=20, seed=4, length=length)
    assert isinstance(task.metric, LogProb)
    assert not task.from_text
    for row, size in enumerate(task.lengths.tolist()):
        clean, corrupt = task.clean[row, :size].tolist(), task.corrupt[row, :size].tolist()
        first, again = clean[:length], clean[length:]
        assert first[: len(again)] == again
        assert len(set(first)) == length
        assert int(task.metric.answer[row]) == first[len(again)]
        assert corrupt[length:] == again
        assert not set(corrupt[:length]) & set(first)
        a, b, end = (int(task.positions[name][row]) for name in ("A", "B", "end"))
        assert clean[a] == clean[end] == again[-1]
        assert (b, end) == (a + 1, size - 1)
        assert clean[b] == int(task.metric.answer[row])


def test_induction_on_texts_comes_back_from_a_file(tokenizer, tmp_path):
    task = tasks.induction(tokenizer, n=5, seed=4)
    again = tasks.load(tasks.save(task, tmp_path / "own.jsonl"), tokenizer)
    for row, size in enumerate(task.lengths.tolist()):
        assert again.clean[row, :size].equal(task.clean[row, :size])
    assert again.metric.answer.equal(task.metric.answer)


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_listed_and_repeatable(name, tokenizer):
    write = getattr(tasks, name.replace("-", "_"))
    one, same, longer, other = (
        write(tokenizer, n=n, seed=s) for n, s in ((3, 1), (3, 1), (5, 1), (3, 2))
    )
    assert one.clean_text == same.clean_text == longer.clean_text[:3]
    assert one.clean.equal(same.clean)
    assert one.clean_text != other.clean_text
    assert name in str(one) or name.replace("-", " ") in str(one)
    assert len(one.split(0.4)[0] + one.split(0.4)[1]) == 3
    with pytest.raises(PromptError, match="n must be a whole number of 1 or more, got 0"):
        write(tokenizer, n=0)
    with pytest.raises(PromptError, match="seed must be a whole number"):
        write(tokenizer, seed=None)
    assert name in {question.name for question in QUESTIONS}


def test_bos_moves_positions(tokenizer):
    for name in TASKS:
        write = getattr(tasks, name.replace("-", "_"))
        plain, begun = (write(tokenizer, n=3, seed=1, prepend_bos=bos) for bos in (False, True))
        assert begun.clean[:, 0].eq(tokenizer.bos_token_id).all()
        for place, index in plain.positions.items():
            assert torch.equal(begun.positions[place], index + 1), (name, place)
