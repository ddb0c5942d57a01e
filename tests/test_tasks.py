"""The prompts of the tasks: alignment, positions, order, determinism, and what is refused."""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from circuitgraph.errors import PromptError
from circuitgraph.metrics import LogitDiff
from circuitgraph.tasks import Task, ioi
from circuitgraph.tasks.ioi import _NAMES, _PLACES, _TEMPLATES, _THINGS
from circuitgraph.tasks.tokens import check_tokenizer, pad_right, single_tokens

SPECIAL = ("[UNK]", "[PAD]", "[BOS]", "[EOS]")


def whole_words(names=_NAMES, *, adds="", **special) -> PreTrainedTokenizerFast:
    """A tokenizer of whole words that knows only names: every other word is unknown to it."""
    vocabulary = {word: index for index, word in enumerate((*SPECIAL, *names))}
    words = RustTokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    if adds:
        ids = [(token, vocabulary[token]) for token in SPECIAL]
        words.post_processor = TemplateProcessing(single=adds, special_tokens=ids)
    tokens = {"unk_token": "[UNK]", "pad_token": "[PAD]", "bos_token": "[BOS]"} | special
    return PreTrainedTokenizerFast(tokenizer_object=words, **tokens)


@pytest.fixture(scope="module")
def words() -> PreTrainedTokenizerFast:
    return whole_words()


@pytest.fixture
def smollm2_tokenizer(smollm2):
    return smollm2.tokenizer


def rows(task: Task) -> Iterator[tuple[list[int], list[int], dict[str, int], int, int]]:
    """Per prompt: clean and corrupt tokens, named positions, the two answers."""
    for prompt in range(len(task)):
        yield (
            task.clean[prompt].tolist(),
            task.corrupt[prompt].tolist(),
            {name: int(place[prompt]) for name, place in task.positions.items()},
            int(task.metric.correct[prompt]),
            int(task.metric.incorrect[prompt]),
        )


def measure(task: Task, logits: torch.Tensor) -> torch.Tensor:
    """The task's metric, from the logits of all positions and tokens."""
    prompts = torch.arange(len(task))
    read = logits[prompts, task.metric.read]
    return task.metric.measure(read.gather(-1, task.metric.tokens))


def check_ioi(task: Task) -> None:
    """Everything that must hold of IOI prompts, whatever the tokenizer."""
    assert task.clean.shape == task.corrupt.shape == (len(task), int(task.lengths.max()))
    for prompt, (clean, corrupt, at, io, subject) in enumerate(rows(task)):
        differing = [place for place in range(len(clean)) if clean[place] != corrupt[place]]
        assert differing == sorted([at["IO"], at["S1"], at["S2"]])
        assert clean[at["IO"]] == io
        assert clean[at["S1"]] == clean[at["S2"]] == subject
        assert at["S1"] < at["S2"] < at["end"]
        assert at["IO"] < at["S2"]
        assert at["S1+1"] == at["S1"] + 1
        assert at["end"] == task.lengths[prompt] - 1
        strangers = {corrupt[place] for place in differing}
        assert len(strangers) == 3
        assert strangers.isdisjoint({io, subject})
        assert not strangers & set(clean)


class TestIoi:
    def test_clean_and_corrupt_differ_in_the_three_names_alone(self, words):
        check_ioi(ioi(words, n=60, seed=3))

    def test_is_what_an_experiment_takes(self, words):
        task = ioi(words, n=4)
        assert isinstance(task.metric, LogitDiff)
        assert list(task.positions) == ["IO", "S1", "S1+1", "S2", "end"]
        for name, place in task.positions.items():
            assert place.shape == (4,)
            assert torch.equal(place, task.corrupt_positions[name])
        assert task.clean.dtype == task.corrupt.dtype == torch.int64
        assert len(task) == len(task.clean_text) == len(task.corrupt_text) == 4

    def test_metric_is_the_indirect_object_over_the_subject_at_the_end(self, words):
        task = ioi(words, n=5)
        logits = torch.zeros(5, task.clean.shape[1], len(words))
        for prompt, (_, _, at, io, subject) in enumerate(rows(task)):
            logits[prompt, at["end"], io] = 3.0 + prompt
            logits[prompt, at["end"], subject] = 1.0
        assert measure(task, logits).tolist() == [2.0, 3.0, 4.0, 5.0, 6.0]

    def test_text_is_what_the_tokens_say(self, words):
        task = ioi(words, n=12, seed=5)
        for prompt, (io, subject) in enumerate(task.answers):
            found = re.findall("|".join(_NAMES), task.clean_text[prompt])
            assert Counter(found) == {io.strip(): 1, subject.strip(): 2}
            length = int(task.lengths[prompt])
            assert words.encode(task.clean_text[prompt]) == task.clean[prompt, :length].tolist()
            assert words.encode(task.corrupt_text[prompt]) == task.corrupt[prompt, :length].tolist()

    def test_both_orders_by_turns(self, words):
        task = ioi(words, n=10)
        io_first = (task.positions["IO"] < task.positions["S1"]).tolist()
        assert io_first == [True, False] * 5

    @pytest.mark.parametrize(("order", "io_first"), [("ABBA", True), ("BABA", False)])
    def test_one_order(self, words, order, io_first):
        task = ioi(words, n=20, order=order)
        assert ((task.positions["IO"] < task.positions["S1"]) == io_first).all()

    def test_every_sentence_form_in_both_orders_comes_before_any_comes_again(self, words):
        task = ioi(words, n=2 * len(_TEMPLATES), seed=11)
        forms = [re.sub("|".join((*_NAMES, *_PLACES, *_THINGS)), "_", t) for t in task.clean_text]
        assert set(Counter(forms[::2]).values()) == set(Counter(forms[1::2]).values()) == {1}

    def test_names_the_tokenizer_splits_are_left_out(self):
        kept = ("Anna", "Peter", "Maria", "Thomas", "Laura")
        task = ioi(whole_words(kept), n=20)
        named = {name for text in task.clean_text for name in re.findall("|".join(_NAMES), text)}
        assert named == set(kept)

    def test_pads_on_the_right(self, words):
        task = ioi(words, n=30)
        assert len(set(task.lengths.tolist())) > 1
        for tokens in (task.clean, task.corrupt):
            for row, length in zip(tokens, task.lengths, strict=True):
                assert (row[length:] == words.pad_token_id).all()
                assert (row[:length] != words.pad_token_id).all()


class TestSeeds:
    def test_the_same_seed_gives_the_same_prompts(self, words):
        first, again, other = ioi(words, seed=1), ioi(words, seed=1), ioi(words, seed=2)
        assert (first.clean_text, first.corrupt_text) == (again.clean_text, again.corrupt_text)
        assert torch.equal(first.clean, again.clean)
        assert first.clean_text != other.clean_text

    def test_a_shorter_task_is_the_beginning_of_a_longer_one(self, words):
        assert ioi(words, n=7, seed=4).clean_text == ioi(words, n=40, seed=4).clean_text[:7]

    def test_leaves_the_global_random_state_alone(self, words):
        before = torch.random.get_rng_state()
        ioi(words)
        assert torch.equal(torch.random.get_rng_state(), before)

    def test_the_same_seed_gives_the_same_prompts_in_every_process(self, words):
        here = ioi(words, n=6, seed=9)
        script = (
            "import json; from tests.test_tasks import *; task = ioi(whole_words(), n=6, seed=9); "
            "print(json.dumps([task.clean_text, task.corrupt_text, task.clean.tolist()]))"
        )
        for hash_seed in ("1", "2"):
            there = subprocess.run(
                [sys.executable, "-c", script],
                env=os.environ | {"PYTHONHASHSEED": hash_seed},
                cwd=Path(__file__).parents[1],
                capture_output=True,
                text=True,
                check=True,
            )
            clean_text, corrupt_text, clean = json.loads(there.stdout)
            assert tuple(clean_text) == here.clean_text
            assert tuple(corrupt_text) == here.corrupt_text
            assert clean == here.clean.tolist()


class TestBeginningOfSequence:
    def test_does_as_the_tokenizer_does(self, words):
        adding = whole_words(adds="[BOS] $A")
        plain, with_bos = ioi(words, n=6), ioi(adding, n=6)
        check_ioi(with_bos)
        assert (plain.clean[:, 0] != words.bos_token_id).all()
        assert (with_bos.clean[:, 0] == adding.bos_token_id).all()
        assert torch.equal(with_bos.clean[:, 1:], plain.clean)
        for name, place in plain.positions.items():
            assert torch.equal(with_bos.positions[name], place + 1)

    def test_can_be_asked_for_and_declined(self, words):
        adding = whole_words(adds="[BOS] $A")
        asked, declined = ioi(words, prepend_bos=True), ioi(adding, prepend_bos=False)
        assert (asked.clean[:, 0] == words.bos_token_id).all()
        assert torch.equal(declined.clean, ioi(words).clean)

    def test_an_end_of_text_that_the_tokenizer_adds_is_left_out(self, words):
        ending = whole_words(adds="$A [EOS]", eos_token="[EOS]")
        assert torch.equal(ioi(ending).clean, ioi(words).clean)

    def test_none_to_prepend(self):
        with pytest.raises(PromptError) as caught:
            ioi(whole_words(bos_token=None), prepend_bos=True)
        assert str(caught.value) == (
            "prepend_bos=True, but the tokenizer has no BOS token: "
            "leave prepend_bos out, or set tokenizer.bos_token"
        )


class TestErrors:
    @pytest.mark.parametrize("n", [0, -3, 2.5, True])
    def test_number_of_prompts(self, words, n):
        with pytest.raises(PromptError) as caught:
            ioi(words, n=n)
        assert str(caught.value) == (
            f"cannot write IOI prompts: n must be a whole number of 1 or more, got {n!r}"
        )

    @pytest.mark.parametrize("seed", [None, 1.5, "one", True])
    def test_a_seed_that_does_not_say_which_prompts(self, words, seed):
        with pytest.raises(
            PromptError, match="seed must be a whole number, such as 0, got"
        ) as caught:
            ioi(words, seed=seed)
        assert repr(seed) in str(caught.value)

    def test_problems_come_together(self):
        with pytest.raises(PromptError) as caught:
            ioi(None, n=0, order="AB")
        assert str(caught.value) == (
            "cannot write IOI prompts: 3 problems\n"
            "  1. this needs the model's tokenizer, got None: "
            "give the model one, or pass one of your own\n"
            "  2. n must be a whole number of 1 or more, got 0\n"
            "  3. order must be one of 'both', 'ABBA', 'BABA', got 'AB'"
        )

    def test_a_model_in_place_of_its_tokenizer(self):
        with pytest.raises(PromptError) as caught:
            ioi(torch.nn.Linear(2, 2))
        assert str(caught.value) == (
            "cannot write IOI prompts: this needs a tokenizer, got Linear: pass model.tokenizer"
        )

    def test_too_few_names(self):
        with pytest.raises(PromptError) as caught:
            ioi(whole_words(("Anna", "Peter", "Maria", "Thomas")))
        assert str(caught.value) == (
            f"cannot write IOI prompts: only 4 of {len(_NAMES)} names (Anna, Peter, Maria, Thomas) "
            "are single tokens for this tokenizer, and a prompt pair needs 5. "
            "Use a tokenizer with a larger vocabulary of English words"
        )

    def test_no_names_at_all(self):
        with pytest.raises(PromptError, match=r"only 0 of \d+ names are single tokens"):
            ioi(whole_words(()))

    def test_names_merged_with_what_stands_beside_them(self):
        class Merging:
            """Keeps `and Anna` as two tokens, but joins a name to the word after it."""

            bos_token_id = eos_token_id = pad_token_id = unk_token_id = None

            def __init__(self):
                self.ids = {}

            def encode(self, text, *, add_special_tokens=True):
                parts = re.findall(r"(?:Anna|Peter|Maria|Laura|Simon) \w+|\w+|[^\w ]", text)
                return [self.ids.setdefault(part, len(self.ids)) for part in parts]

        with pytest.raises(PromptError) as caught:
            ioi(Merging(), n=60)
        assert str(caught.value).startswith(
            "cannot write IOI prompts: this tokenizer does not keep the names of a prompt as "
            "tokens of their own, so clean and corrupt do not align: '"
        )


class TestWords:
    """The sentences are written so that clean and corrupt align under any tokenizer."""

    @pytest.mark.parametrize("template", _TEMPLATES)
    def test_template(self, template):
        assert re.findall(r"\{\w+\}", template) in (
            ["{0}", "{1}", "{place}", "{2}", "{thing}"],
            ["{place}", "{0}", "{1}", "{2}", "{thing}"],
        )
        assert not template.startswith("{")
        assert not re.search(r"\{\d\}[^ ]", template)
        assert not set(re.findall(r"\w+", template)) & {*_NAMES, *_PLACES, *_THINGS}

    def test_words_are_different(self):
        for listed in (_TEMPLATES, _NAMES, _PLACES, _THINGS):
            assert len(set(listed)) == len(listed)
        assert len(_TEMPLATES) >= 12

    def test_things_follow_an_article(self):
        assert not [thing for thing in _THINGS if thing[0] in "aeiou"]


class TestTokens:
    def test_a_tokenizer_is_one(self, words):
        assert check_tokenizer(words) is None

    def test_single_tokens_keep_their_order(self):
        tokenizer = whole_words(("Ruth", "Adam"))
        assert single_tokens(tokenizer, ["Adam", "Nobody", "Ruth", "Adam"]) == {
            "Adam": 5,
            "Ruth": 4,
        }

    @pytest.mark.parametrize(
        ("special", "filling"),
        [
            ({}, 1),
            ({"pad_token": None, "eos_token": "[EOS]"}, 3),
            ({"pad_token": None}, 0),
        ],
    )
    def test_pad_right(self, special, filling):
        padded = pad_right(whole_words(**special), [[7, 8, 9], [5]])
        assert padded.tolist() == [[7, 8, 9], [5, filling, filling]]


class TestTask:
    def test_reads_well(self, words):
        task = ioi(words, n=5, seed=2)
        lines = str(task).splitlines()
        assert lines[0] == (
            "ioi: Does the model name the indirect object rather than the subject that was named "
            "twice? (5 prompt pairs)"
        )
        io, subject = task.answers[0]
        assert lines[1] == f"  clean    {task.clean_text[0]} ->{io}, not{subject}"
        assert lines[2] == f"  corrupt  {task.corrupt_text[0]}"
        assert lines[-1] == "  ... and 2 more"
        assert len(lines) == 8

    def test_shapes_that_differ(self, words):
        task = ioi(words, n=2)
        with pytest.raises(PromptError) as caught:
            replace(task, corrupt=task.corrupt[:, 1:])
        shape = tuple(task.clean.shape)
        assert str(caught.value) == (
            "task 'ioi' is not well formed: clean and corrupt must be two token tensors "
            f"[prompt, pos] of one shape, got {shape} and {(2, shape[1] - 1)}"
        )

    def test_problems_come_together(self, words):
        task = ioi(words, n=2)
        length = task.lengths.tolist()
        places = {"end": torch.tensor([0, length[1]]), "S1": torch.tensor([1])}
        with pytest.raises(PromptError) as caught:
            replace(task, clean_text=("one",), positions=places, corrupt_positions={})
        assert str(caught.value) == (
            "task 'ioi' is not well formed: 4 problems\n"
            "  1. clean_text has 1 entries for 2 prompts\n"
            "  2. positions and corrupt_positions must have the same names, "
            "got ['S1', 'end'] and []\n"
            f"  3. positions['end'] points outside its prompt, got [0, {length[1]}]\n"
            "  4. positions['S1'] must be an int64 tensor of 2 indices, "
            "got torch.int64 of shape (1,)"
        )

    def test_lengths(self, words):
        task = ioi(words, n=2)
        with pytest.raises(PromptError, match=r"lengths must be 1\.\.\d+, got \[0, 99\]"):
            replace(task, lengths=torch.tensor([0, 99]))
        with pytest.raises(PromptError, match="lengths has 1 entries for 2 prompts"):
            replace(task, lengths=task.lengths[:1])

    def test_no_prompts(self, words):
        task = ioi(words, n=1)
        with pytest.raises(PromptError, match="it holds no prompts"):
            replace(task, clean=task.clean[:0], corrupt=task.corrupt[:0])


class TestSmolLM2Tokenizer:
    def test_every_sentence_form_aligns(self, smollm2_tokenizer):
        task = ioi(smollm2_tokenizer, n=200, seed=0)
        check_ioi(task)
        for prompt, (clean, _, at, _, _) in enumerate(rows(task)):
            decode = smollm2_tokenizer.decode
            assert decode(clean[: at["end"] + 1]) == task.clean_text[prompt]
            assert (decode(clean[at["IO"]]), decode(clean[at["S2"]])) == task.answers[prompt]

    def test_most_names_are_single_tokens(self, smollm2_tokenizer):
        assert len(single_tokens(smollm2_tokenizer, _NAMES)) >= 60

    def test_no_bos_unless_asked_for(self, smollm2_tokenizer):
        bos = smollm2_tokenizer.bos_token_id
        assert (ioi(smollm2_tokenizer).clean[:, 0] != bos).all()
        asked = ioi(smollm2_tokenizer, prepend_bos=True)
        check_ioi(asked)
        assert (asked.clean[:, 0] == bos).all()


# -- what becomes of the names ---------------------------------------------------------------------


def three_names(
    task: Task, words: PreTrainedTokenizerFast, prompt: int
) -> tuple[list[str], list[str]]:
    """The names of a clean prompt and of its corrupt twin in reading order, read off the tokens."""
    slots = sorted(int(task.positions[name][prompt]) for name in ("IO", "S1", "S2"))
    return tuple(
        words.convert_ids_to_tokens([int(tokens[prompt, slot]) for slot in slots])
        for tokens in (task.clean, task.corrupt)
    )


@pytest.mark.parametrize(
    ("corrupt", "abb", "bab"),
    [
        ("ABB->XYZ, BAB->XYZ", "XYZ", "XYZ"),
        ("ABB->BAB, BAB->ABB", "BAB", "ABB"),
        ("ABB -> ACC,BAB->CAC", "ACC", "CAC"),
        ("BAB->BAC, ABB->ABC", "ABC", "BAC"),
        ("ABB->CBB, ABA->ACA", "CBB", "BCB"),  # letters belong to their own rule
        ("ABB->CDD, BAB->DCD", "CDD", "DCD"),
    ],
)
def test_corruptions_in_letters(words, corrupt, abb, bab):
    task = ioi(words, n=12, seed=5, corrupt=corrupt)
    plain = ioi(words, n=12, seed=5)
    assert task.clean.equal(plain.clean)
    for prompt in range(12):
        clean, other = three_names(task, words, prompt)
        io_first = bool(task.positions["IO"][prompt] < task.positions["S1"][prompt])
        subject = clean[2]
        io = clean[0] if io_first else clean[1]
        assert clean == ([io, subject, subject] if io_first else [subject, io, subject])
        names: dict[str, str] = {"A": io, "B": subject}
        for letter, name in zip(abb if io_first else bab, other, strict=True):
            assert names.setdefault(letter, name) == name
        assert len(set(names.values())) == len(names)  # new letters are new names
        differing = (task.clean[prompt] != task.corrupt[prompt]).sum()
        assert differing == sum(one != two for one, two in zip(clean, other, strict=True))


def test_the_usual_corruption_is_what_it_was(words):
    usual = ioi(words, n=8, seed=2)
    assert usual.corrupt.equal(ioi(words, n=8, seed=2, corrupt="ABB->XYZ, BAB->XYZ").corrupt)
    assert ioi(words, n=4, order="ABBA", corrupt="ABB->BAB").corrupt.shape[0] == 4


@pytest.mark.parametrize(
    ("corrupt", "message"),
    [
        ("ABB->XYZ", "has no rule for the prompts BAB: add 'BAB->XYZ'"),
        ("ABB->XY, BAB->XYZ", "cannot read 'ABB->XY'; write three letters"),
        ("ABB=>XYZ", "cannot read 'ABB=>XYZ'"),
        ("ABB->XYZ,", "cannot read ''"),
        ("", "cannot read ''"),
        (None, "corrupt=None: write rules such as 'ABB->XYZ, BAB->XYZ'"),
        ("ABC->XYZ", "no clean prompt has the names ABC; they are ABB or BAB"),
        ("BAB->XYZ, ABA->XYZ", "two rules for the prompts ABA"),
        ("ABB->ABB, BAB->ABB", "ABB->ABB changes nothing"),
    ],
)
def test_corruptions_that_make_no_sense(words, corrupt, message):
    with pytest.raises(PromptError, match=message):
        ioi(words, corrupt=corrupt)
