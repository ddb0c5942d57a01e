"""Pairs of one's own from files: what comes out, and every fault with its line."""

import csv
import json
from pathlib import Path

import pytest
import torch

from circuitgraph.errors import PromptError
from circuitgraph.metrics import LogitDiff, LogitMargin, LogOdds, LogProb, ProbabilityDiff
from circuitgraph.metrics import Prompts as Bound
from circuitgraph.tasks import Task, ioi, load, save
from tests.test_tasks import whole_words

WORDS = (
    "The", "capital", "of", "France", "Spain", "is", "Paris", "Madrid", "a", "and", "Rome", "big",
    "New", "York", ".", "x",
)  # fmt: skip
ID = {word: number for number, word in enumerate(("[UNK]", "[PAD]", "[BOS]", "[EOS]", *WORDS))}

FRANCE = {
    "clean": "The capital of France is",
    "corrupt": "The capital of Spain is",
    "answer": " Paris",
    "wrong": " Madrid",
    "positions": {"country": "France", "verb": 4},
    "corrupt_positions": {"country": "Spain"},
}
LONG = {
    "clean": "The big big capital of Spain is",
    "corrupt": "The big big capital of France is",
    "answer": " Madrid",
    "wrong": " Rome",
    "positions": {"country": "Spain", "verb": ["is", 1]},
}


@pytest.fixture(scope="module")
def words():
    return whole_words(WORDS)


def write(folder: Path, *rows: object, name: str = "own.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))
    return path


def table(folder: Path, *rows: dict[str, object]) -> Path:
    path = folder / "own.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        for row in rows:
            writer.writerow(
                {k: json.dumps(v) if isinstance(v, dict | list) else v for k, v in row.items()}
            )
    return path


def check_capitals(task: Task) -> None:
    """What FRANCE and LONG say, worked out by hand."""
    pad = ID["[PAD]"]
    the, capital, of, is_ = (ID[word] for word in ("The", "capital", "of", "is"))
    france, spain, big = ID["France"], ID["Spain"], ID["big"]
    assert task.clean.tolist() == [
        [the, capital, of, france, is_, pad, pad],
        [the, big, big, capital, of, spain, is_],
    ]
    assert task.corrupt.tolist() == [
        [the, capital, of, spain, is_, pad, pad],
        [the, big, big, capital, of, france, is_],
    ]
    assert task.lengths.tolist() == [5, 7]
    assert {name: index.tolist() for name, index in task.positions.items()} == {
        "country": [3, 5],
        "verb": [4, 6],
        "end": [4, 6],
    }
    assert task.answers == ((" Paris", " Madrid"), (" Madrid", " Rome"))
    assert isinstance(task.metric, LogitDiff)
    assert task.metric.correct.tolist() == [ID["Paris"], ID["Madrid"]]
    assert task.metric.incorrect.tolist() == [ID["Madrid"], ID["Rome"]]
    assert task.metric.position.tolist() == [4, 6]


def test_json_lines(words, tmp_path):
    path = write(tmp_path, FRANCE, "", LONG)
    task = load(path, words)
    check_capitals(task)
    assert (task.name, task.question) == ("own", "Does the model give the answers of own.jsonl?")
    assert len(load(path, words, n=1, name="capitals", question="Which?")) == 1


def test_csv(words, tmp_path):
    path = table(tmp_path, FRANCE, LONG | {"corrupt_positions": ""})
    check_capitals(load(path, words))
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())  # as a spreadsheet writes it
    check_capitals(load(path, words))


@pytest.mark.parametrize("name", ["again.jsonl", "again.csv", "again.tsv"])
def test_what_is_saved_comes_back(words, tmp_path, name):
    task = load(write(tmp_path, FRANCE, LONG), words)
    check_capitals(load(save(task, tmp_path / name), words))
    names = ioi(whole_words(), n=6, seed=3)
    again = load(save(names, tmp_path / name), whole_words())
    for what in ("clean", "corrupt", "lengths"):
        assert torch.equal(getattr(again, what), getattr(names, what))
    assert again.answers == names.answers
    assert again.clean_text == names.clean_text
    for name_, index in names.positions.items():
        assert torch.equal(again.positions[name_], index)
        assert torch.equal(again.corrupt_positions[name_], names.corrupt_positions[name_])


def test_positions_elsewhere_in_the_corrupt_prompt(words, tmp_path):
    row = {
        "clean": "France and a and Spain",
        "corrupt": "a and Rome and Spain",
        "answer": " x",
        "positions": {"name": "France", "second": ["and", 2]},
        "corrupt_positions": {"name": "Rome"},
    }
    task = load(write(tmp_path, row), words)
    assert task.positions["name"].tolist() == [0]
    assert task.corrupt_positions["name"].tolist() == [2]
    assert task.positions["second"].tolist() == task.corrupt_positions["second"].tolist() == [3]
    again = load(save(task, tmp_path / "b.csv"), words)
    assert again.corrupt_positions["name"].tolist() == [2]


def test_a_bos_token_counts(tmp_path):
    words = whole_words(WORDS, adds="[BOS] $A")
    task = load(write(tmp_path, FRANCE | {"positions": {"country": "France"}}), words)
    assert task.clean[0, 0] == ID["[BOS]"]
    assert task.positions["country"].tolist() == [4]
    plain = load(tmp_path / "own.jsonl", words, prepend_bos=False)
    assert plain.positions["country"].tolist() == [3]


def measured(task: Task, logits: torch.Tensor) -> list[float]:
    """What the task's metric says of logits at the last token, through binding."""
    bound = task.metric.bind(
        Bound(len(task), task.clean.shape[1], logits.shape[-1], task.positions, task.lengths)
    )
    read = logits if bound.tokens is None else logits.gather(-1, bound.tokens)
    return bound.measure(read).tolist()


BARE = {key: FRANCE[key] for key in ("clean", "corrupt")}


@pytest.mark.parametrize(
    ("answers", "kind", "value"),
    [
        (
            {"answer": " Paris", "wrong": " Rome"},
            LogitDiff,
            lambda p: (p["Paris"] / p["Rome"]).log(),
        ),
        ({"answer": " Paris"}, LogProb, lambda p: p["Paris"].log()),
        ({"answer": [" Paris", " Rome"]}, LogOdds, lambda p: (p["Paris"] + p["Rome"]).log()),
        (
            {"answer": [" Paris", " Rome"], "wrong": [" Madrid", " a", " x"]},
            LogOdds,
            lambda p: ((p["Paris"] + p["Rome"]) / (p["Madrid"] + p["a"] + p["x"])).log(),
        ),
        (
            {"answer": " Paris", "wrong": [" Madrid", " a"], "metric": "logit margin"},
            LogitMargin,
            lambda p: (p["Paris"] / max(p["Madrid"], p["a"])).log(),
        ),
        (
            {"answer": [" Paris", " x"], "wrong": " a", "metric": "probability difference"},
            ProbabilityDiff,
            lambda p: p["Paris"] + p["x"] - p["a"],
        ),
        (
            {"answer": " Paris", "metric": "probability difference"},
            ProbabilityDiff,
            lambda p: p["Paris"],
        ),
    ],
)
def test_what_is_measured(words, tmp_path, answers, kind, value):
    task = load(write(tmp_path, BARE | answers), words)
    assert type(task.metric) is kind
    logits = torch.randn(
        1, len(ID), generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )
    chances = dict(zip(ID, logits.softmax(-1)[0], strict=True))
    expected = float(value(chances))
    assert measured(task, logits) == pytest.approx([expected], abs=1e-12)
    for name in ("again.jsonl", "again.csv"):
        again = load(save(task, tmp_path / name), words)
        assert type(again.metric) is kind
        assert again.answers == task.answers
        assert measured(again, logits) == pytest.approx([expected], abs=1e-12)


def test_prompts_as_tokens(words, tmp_path):
    row = {"clean": [5, 6, 7], "corrupt": [5, 8, 7], "answer": " a", "positions": {"x": 1}}
    task = load(write(tmp_path, row), words)
    assert (task.clean.tolist(), task.corrupt.tolist()) == ([[5, 6, 7]], [[5, 8, 7]])
    assert task.clean_text == ("capital of France",)
    again = load(save(task, tmp_path / "b.jsonl"), words)
    assert again.clean.tolist() == [[5, 6, 7]]
    assert not again.from_text


FAULTS = [
    (
        {"corrupt": "The capital of big Spain is"},
        "clean has 5 tokens and corrupt 6; .*from token 3",
    ),
    ({"answer": " New York"}, r"answer ' New York' is 2 tokens \['New', 'York'\], and must be one"),
    ({"wrong": " Berlin"}, "wrong ' Berlin' is unknown to this tokenizer"),
    ({"answer": "Paris"}, r"answer 'Paris' would go on with the prompt's last word .* ' Paris'"),
    ({"wrong": " Paris"}, "the same token is answer and wrong: 'Paris'"),
    ({"answer": [" Paris", " Paris"]}, "answer names a token twice"),
    ({"answer": []}, "it has no answer"),
    ({"clean": "", "corrupt": ""}, "the clean prompt has no tokens"),
    ({"positions": {"x": "Rome"}}, "positions: x: 'Rome' does not stand in 'The capital"),
    ({"positions": {"x": "Fran"}}, "positions: x: 'Fran' does not stand in"),
    ({"clean": "The of of France is"}, "'of' stands 2 times in .*: say which"),
    ({"positions": {"x": ["of", 2]}}, "'of' stands 1 times in .*, not 2 times"),
    ({"positions": {"x": 5}}, "there is no token 5 in a prompt of 5 tokens"),
    ({"positions": {"x": -1}}, "there is no token -1"),
    ({"positions": {"x": 1.5}}, "in positions: x must be a word, a list such as .*, got 1.5"),
    ({"positions": {"x": ["of"]}}, "in positions: x must be a word, a list such as"),
    ({"positions": {"end": 2}}, "end is the last token, 4, by itself"),
    ({"corrupt_positions": {"y": 1}}, "corrupt_positions names 'y', which positions does not"),
    ({"corrupt_positions": {"x": "France"}}, "corrupt_positions: x: 'France' does not stand in"),
    ({"answr": " Paris"}, "'answr' is unknown"),
    ({"answer": 3}, "answer must be a text or a list of texts, got 3"),
    ({"clean": [1.5]}, "clean must be a text or a list of token ids, got"),
    ({"metric": "loss"}, "metric"),
]


@pytest.mark.parametrize(("change", "message"), FAULTS)
def test_a_fault_is_told_with_its_line(words, tmp_path, change, message):
    base = FRANCE | {"positions": {"x": "of"}, "corrupt_positions": {}}
    path = write(tmp_path, base, "", base | change)
    with pytest.raises(PromptError, match=rf"(?s)own\.jsonl'.*line 3: .*{message}"):
        load(path, words)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], "line 1: no JSON object on one line"),
        (["[1]"], "line 1: .*it is no object such as"),
        (['{"clean": "a", "clean": "a"}'], "line 1: .*the key 'clean' stands twice"),
        ([{"clean": "a", "answer": "b"}], "line 1: 'corrupt' is missing"),
        ([], "there are no pairs in it"),
        ([FRANCE, FRANCE | {"positions": {}}], "line 2: it names the positions .* line 1"),
        (
            [BARE | {"answer": " a"}, FRANCE | {"positions": {}, "corrupt_positions": {}}],
            "line 2: it has wrong",
        ),
        ([FRANCE, FRANCE | {"metric": "log odds"}], "its lines name different metrics"),
        (
            [FRANCE | {"wrong": [" a", " x"], "metric": "logit difference"}],
            "needs one answer and one",
        ),
    ],
)
def test_faults_of_the_file(words, tmp_path, rows, message):
    with pytest.raises(PromptError, match=rf"(?s)own\.jsonl'.*{message}"):
        load(write(tmp_path, *rows), words)


def test_all_faults_at_once(words, tmp_path):
    rows = [FRANCE, FRANCE | {"answer": " New York"}, FRANCE | {"wrong": " Berlin"}]
    with pytest.raises(PromptError, match="(?s)2 problems.*line 2: .*line 3: "):
        load(write(tmp_path, *rows), words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("clean,corrupt,answer\na,x\n", "line 2: it has 2 cells for 3 columns; .* double quotes"),
        ('clean,corrupt,answer\na,"x, a\n', "line 2: quotes: unexpected end"),
        ('clean,corrupt,answer\na,"x"y, a\n', "line 2: quotes: ',' expected after"),
        ("clean,corrupt,result\na,x, of\n", "line 1: no column 'result'; there are clean, corrupt"),
        ("a, x, of\n", "line 1: no column 'a'; .*first line"),
        ("clean,corrupt,answer,clean\n", "line 1: a column is named twice"),
        ("clean,corrupt\na,x\n", "line 2: 'answer' is missing"),
        ("", "there are no pairs in it"),
        ("clean,corrupt,answer\n", "there are no pairs in it"),
    ],
)
def test_faults_of_tables(words, tmp_path, text, message):
    path = tmp_path / "own.csv"
    path.write_text(text)
    with pytest.raises(PromptError, match=rf"own\.csv'.*{message}"):
        load(path, words)


def test_files_that_cannot_be_read(words, tmp_path):
    with pytest.raises(PromptError, match="no file '.*nowhere.csv'"):
        load(tmp_path / "nowhere.csv", words)
    path = tmp_path / "own.csv"
    path.write_bytes(b"clean,corrupt,answer\nna\xefve,x, a\n")
    with pytest.raises(PromptError, match="is not UTF-8: line 2 holds the byte 0xef"):
        load(path, words)
    with pytest.raises(PromptError, match="has 1 pairs, and 2 are asked for"):
        load(write(tmp_path, FRANCE), words, n=2)
    with pytest.raises(PromptError, match="needs the model's tokenizer, got None"):
        load(write(tmp_path, FRANCE), None)


def test_what_no_file_can_say(words, tmp_path):
    task = load(write(tmp_path, FRANCE), words)
    for metric, name in (
        (lambda logits: logits[:, 0, 0], "<lambda>"),
        (LogProb([3], 2), "LogProb"),
    ):
        with pytest.raises(PromptError, match=f"this measures '{name}'; with_metric gives"):
            save(task.with_metric(metric), tmp_path / "b.jsonl")


# -- tasks from tasks ----------------------------------------------------------------------------


def test_tasks_are_joined_and_split(words, tmp_path):
    one, other = load(write(tmp_path, FRANCE), words), load(write(tmp_path, LONG), words)
    both = one + other
    check_capitals(
        Task(
            **{f: getattr(both, f) for f in both.__slots__}
            | {"clean": repadded(both.clean), "corrupt": repadded(both.corrupt)}
        )
    )
    assert both.pick([0]).clean.tolist() == one.clean.tolist()
    task = ioi(whole_words(), n=9, seed=1)
    first, second = task.split(1 / 3, seed=4)
    assert (len(first), len(second)) == (3, 6)
    assert sorted(first.clean_text + second.clean_text) == sorted(task.clean_text)
    assert set(first.clean_text).isdisjoint(second.clean_text)
    for part in (first, second):
        for row, text in enumerate(part.clean_text):
            there = task.clean_text.index(text)
            assert part.metric.correct[row] == task.metric.correct[there]
            assert part.positions["S2"][row] == task.positions["S2"][there]
            length = int(part.lengths[row])
            assert part.clean[row, :length].equal(task.clean[there, :length])
    again, _ = task.split(1 / 3, seed=4)
    assert again.clean_text == first.clean_text
    with pytest.raises(PromptError, match="leaves one part without any"):
        one.split()
    with pytest.raises(PromptError, match="the positions of one are"):
        _ = one + task
    with pytest.raises(PromptError, match="one measures LogitDiff, the other LogProb"):
        _ = one + other.with_metric(LogProb([5]))
    with pytest.raises(PromptError, match="the metric is a function"):
        both.with_metric(lambda logits: logits[:, 0, 0]).split()


def repadded(tokens: torch.Tensor) -> torch.Tensor:
    """Rows filled up with the padding token of the words, as `load` does for a whole file."""
    filled = tokens.clone()
    filled[0, 5:] = ID["[PAD]"]
    return filled


def test_sets_of_answers_are_joined_and_split(words, tmp_path):
    rows = [
        FRANCE | {"wrong": [" Rome", " a"]},
        FRANCE | {"wrong": [" Madrid"], "metric": "log odds"},
    ]
    one, other = load(write(tmp_path, rows[0]), words), load(write(tmp_path, rows[1]), words)
    both = one + other
    logits = torch.randn(2, len(ID), generator=torch.Generator().manual_seed(1))
    left, right = both.pick([0]), both.pick([1])
    assert measured(left, logits[:1]) + measured(right, logits[1:]) == measured(both, logits)
    assert "Rome/ a" in str(both)


def test_a_task_shows_itself(words, tmp_path):
    task = load(write(tmp_path, FRANCE | {"clean": "The capital of France is"}, LONG), words)
    assert repr(task) == str(task)
    assert "The capital of France is -> Paris, not Madrid" in str(task)
    page = task._repr_html_()
    assert page.count("<tr>") == 3
    assert "<td style='text-align:left'> Paris</td>" in page
    sly = load(write(tmp_path, FRANCE), words, name="<b>", question="<script>")
    assert "<script>" not in sly._repr_html_()
