"""What an experiment takes: a task whole, tensors that it copies, padding that somebody declares."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.errors import PromptError, RequestError
from circuitgraph.tasks import Task
from tests import models
from tests.engines.asking import oracle_logits
from tests.test_experiment_errors import Words, no_forward_pass

TINY = models.tiny_gpt2()
CLEAN, CORRUPT = TINY.tokens(seed=1), TINY.tokens(seed=2)
LENGTHS = torch.tensor([6, 4, 5])
HERE = {"S2": torch.tensor([2, 1, 3])}
THERE = {"S2": torch.tensor([3, 1, 0])}


def metric() -> cg.LogitDiff:
    return cg.LogitDiff([1, 2, 3], [4, 5, 6])


def a_task(**changes: Any) -> Task:
    parts = {
        "name": "tiny",
        "question": "Which?",
        "clean": CLEAN,
        "corrupt": CORRUPT,
        "clean_text": ("a", "b", "c"),
        "corrupt_text": ("a", "b", "c"),
        "answers": (("x", "y"),) * 3,
        "positions": HERE,
        "corrupt_positions": THERE,
        "metric": metric(),
        "lengths": LENGTHS,
    }
    return Task(**{**parts, **changes})


# -- a task whole ----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["corrupt", "mean", "mean-position"])
def test_a_task_is_all_of_its_parts(source: Any) -> None:
    """Lengths and corrupt positions are easily forgotten: both change these numbers."""
    bridge, asked = TINY.bridge, ("[0.1, 1.2]@S2 => logits",)
    whole = cg.Experiment(bridge, a_task(), progress=False).patch(*asked, source=source)
    parts = cg.Experiment(
        bridge,
        CLEAN,
        CORRUPT,
        metric(),
        HERE,
        corrupt_positions=THERE,
        lengths=LENGTHS,
        progress=False,
    )
    assert whole == parts.patch(*asked, source=source)
    forgetful = cg.Experiment(bridge, CLEAN, CORRUPT, metric(), HERE, progress=False)
    assert not np.allclose(whole.data["patched"], forgetful.patch(*asked).data["patched"])


def test_another_metric_beside_a_task() -> None:
    exp = cg.Experiment(TINY.bridge, a_task(), metric=cg.LogProb([1, 2, 3]), progress=False)
    assert exp.patch("0.1 -> logits").attrs["metric"] == cg.LogProb([1]).name


@pytest.mark.parametrize(
    "beside",
    [
        {"corrupt": CORRUPT},
        {"positions": HERE},
        {"corrupt_positions": THERE},
        {"lengths": LENGTHS},
    ],
)
def test_a_task_brings_its_own(beside: dict[str, Any]) -> None:
    (name,) = beside
    with no_forward_pass(TINY.bridge), pytest.raises(PromptError, match=f"{name} is given beside"):
        cg.Experiment(TINY.bridge, a_task(), **beside)


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ((CLEAN,), "corrupt and metric are missing"),
        ((CLEAN, CORRUPT), "metric is missing"),
        ((CLEAN, None, metric()), "corrupt is missing"),
        ((None, CORRUPT, metric()), "clean prompts must be"),
        ((Task,), "corrupt and metric are missing"),
    ],
)
def test_what_is_missing(given: Any, missing: str) -> None:
    with no_forward_pass(TINY.bridge), pytest.raises(PromptError, match=missing):
        cg.Experiment(TINY.bridge, *given)


# -- copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda buffer: cg.LogitDiff(buffer, torch.tensor([4, 5, 6])),
        lambda buffer: cg.LogitDiff(torch.tensor([4, 5, 6]), buffer),
        lambda buffer: cg.LogProb(buffer),
        lambda buffer: cg.Probability(buffer),
        lambda buffer: cg.Rank(buffer),
        lambda buffer: cg.LogProb([1, 2, 3], position=buffer),
        lambda buffer: cg.KLDivergence(position=buffer),
    ],
)
def test_a_metric_keeps_what_it_was_given_before_it_meets_prompts(make: Any) -> None:
    buffer = torch.tensor([1, 2, 3])
    metric, expected = make(buffer), make(buffer.clone())
    buffer.fill_(0)
    found, same = (
        cg.Experiment(TINY.bridge, CLEAN, CORRUPT, one, lengths=LENGTHS, progress=False)
        .patch("0.0 => logits")
        .data["patched"]
        .to_numpy()
        for one in (metric, expected)
    )
    assert np.array_equal(found, same)


def test_a_metric_keeps_a_list_that_is_written_to() -> None:
    answers = [1, 2, 3]
    metric = cg.LogProb(answers)
    answers[0] = 9
    assert list(metric.answer) == [1, 2, 3]


def test_the_callers_buffers_are_copied() -> None:
    """Every tensor that is handed in may be written to, before anything is recorded and after."""
    buffers = {
        "clean": CLEAN.clone(),
        "corrupt": CORRUPT.clone(),
        "lengths": LENGTHS.clone(),
        "answer": torch.tensor([1, 2, 3]),
        "wrong": torch.tensor([4, 5, 6]),
        "read": LENGTHS - 1,
        "here": HERE["S2"].clone(),
        "there": THERE["S2"].clone(),
    }
    exp = cg.Experiment(
        TINY.bridge,
        buffers["clean"],
        buffers["corrupt"],
        cg.LogitDiff(buffers["answer"], buffers["wrong"], position=buffers["read"]),
        {"S2": buffers["here"]},
        corrupt_positions={"S2": buffers["there"]},
        lengths=buffers["lengths"],
        progress=False,
        allow_no_difference=True,
    )
    for buffer in buffers.values():
        buffer.zero_()
    expected = cg.Experiment(TINY.bridge, a_task(), progress=False)
    for source in ("corrupt", "mean"):
        found = exp.patch("head@S2 => logits", source=source)
        assert found == expected.patch("head@S2 => logits", source=source)


# -- padding ---------------------------------------------------------------------------------------


def padded() -> tuple[Any, torch.Tensor, torch.Tensor]:
    bridge = TINY.new_bridge()
    bridge.tokenizer = Words()
    clean, corrupt = TINY.tokens(seed=1), TINY.tokens(seed=2)
    for tokens in (clean, corrupt):
        tokens[tokens == 0] = 7
        tokens[1, 4:] = Words.pad_token_id
    return bridge, clean, corrupt


def test_padding_that_nobody_declares_is_refused() -> None:
    bridge, clean, corrupt = padded()
    message = (
        r"clean prompt 1 ends in the tokenizer's padding token 0, and lengths are not given: pass "
        r"lengths, the real length of each prompt \(task.lengths\), or lengths=\[6\] \* 3 where "
        "these tokens are meant"
    )
    with no_forward_pass(bridge), pytest.raises(PromptError, match=message):
        cg.Experiment(bridge, clean, corrupt, metric())


@pytest.mark.parametrize("lengths", [[6, 4, 6], [6, 6, 6]])
def test_padding_is_what_lengths_say(lengths: list[int]) -> None:
    bridge, clean, corrupt = padded()
    exp = cg.Experiment(bridge, clean, corrupt, metric(), lengths=lengths, progress=False)
    assert exp.positions["end"].tolist() == [length - 1 for length in lengths]


def test_a_tokenizer_beyond_the_vocabulary() -> None:
    bridge = TINY.new_bridge()
    bridge.tokenizer = Words()
    with no_forward_pass(bridge), pytest.raises(PromptError, match="outside the vocabulary of 23"):
        cg.Experiment(bridge, ["a " + "b" * 40], ["a b"], metric())


# -- positions that meet ---------------------------------------------------------------------------

AT = ["", "@S2", "@end", "@1"]
STEPS = ["0.1{} -> 2.0.q{}", "0.1{} -> 1.1.q{} -> 2.0.v{}", "0.1{} -> 1.1.k{} -> 2.0.v{}"]
STEPS += ["0.1{} -> mlp1{} -> 2.0.v{}"]


@pytest.mark.parametrize("variant", ["mlps", "single-pass", cg.Through([cg.Head(1, 0)])])
def test_what_cannot_be_heard_is_refused_and_nothing_else(variant: Any) -> None:
    """The oracle finds nothing changed exactly where a request is refused."""
    clean, corrupt = TINY.tokens(n_prompts=2, seed=3), TINY.tokens(n_prompts=2, seed=4)
    positions = {"S2": torch.tensor([2, 1]), "end": torch.tensor([5, 5])}
    exp = cg.Experiment(TINY.bridge, clean, corrupt, every_logit, positions, progress=False)

    def oracle(request: str, corrupt: torch.Tensor) -> torch.Tensor:
        return oracle_logits(
            TINY.plain, exp.graph, clean, corrupt, request, variant, "set", positions, positions
        )

    unchanged = oracle("0.1 => logits", clean)
    refused = 0
    for steps in STEPS:
        for at in itertools.product(AT, repeat=steps.count("{}")):
            request = steps.format(*at) + " => logits"
            try:
                exp.plan(request, variant)
            except RequestError as error:
                assert "cannot be heard at" in str(error)
                refused += 1
                arrives = False
            else:
                arrives = True
            change = (oracle(request, corrupt) - unchanged).abs().max()
            assert (change > 1e-12) == arrives, request
    assert refused > 20


def every_logit(logits: torch.Tensor) -> torch.Tensor:
    return (logits * torch.arange(logits.shape[-1])).sum(dim=(1, 2))


def test_cells_of_a_sweep_that_cannot_be_heard_are_left_out() -> None:
    exp = cg.Experiment(TINY.bridge, CLEAN, CORRUPT, metric(), HERE, progress=False)
    patched = exp.patch("0.1@each -> 2.0.q@S2 => logits").data["patched"].to_numpy()
    assert np.isnan(patched).all(axis=1).tolist() == [True, False, False, False, True, True]


def test_an_edge_of_a_list_that_cannot_be_heard() -> None:
    exp = cg.Experiment(TINY.bridge, CLEAN, CORRUPT, metric(), HERE, progress=False)
    with pytest.raises(RequestError, match=r"0\.1@S2 cannot be heard at 2\.0\.q@end"):
        exp.plan("0.0 -> 1.1.k, 0.1@S2 -> 2.0.q@end => logits")


def test_cells_are_counted_before_any_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny = models.tiny_gpt2()
    clean, corrupt = tiny.tokens(2, 4, seed=1), tiny.tokens(2, 4, seed=2)
    exp = cg.Experiment(tiny.bridge, clean, corrupt, cg.LogitDiff([1, 2], [3, 4]))
    asked, n_cells = "head -> head.q -> logits", len(exp.plan("head -> head.q -> logits").cells)
    monkeypatch.setenv("CIRCUITGRAPH_MAX_CELLS", str(n_cells - 1))
    with pytest.raises(RequestError, match=f"has {n_cells} cells, more than {n_cells - 1}: name"):
        exp.patch(asked)
    monkeypatch.setenv("CIRCUITGRAPH_MAX_CELLS", str(n_cells))
    assert np.isfinite(exp.patch(asked).data["patched"].to_numpy()).any()
    monkeypatch.setenv("CIRCUITGRAPH_MAX_CELLS", "many")
    with pytest.raises(RequestError, match="CIRCUITGRAPH_MAX_CELLS='many' must be a whole number"):
        exp.patch(asked)
