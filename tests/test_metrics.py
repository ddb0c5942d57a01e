"""Metrics: what they read, what they make of it, and binding them to prompts."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitgraph.errors import MetricError, PromptError
from circuitgraph.metrics import (
    Accuracy,
    AnyMetric,
    KLDivergence,
    LogitDiff,
    LogProb,
    Metric,
    Probability,
    Prompts,
    Rank,
    as_metric,
)

N_PROMPTS, N_POS, D_VOCAB = 3, 5, 7
PROMPTS = Prompts(
    N_PROMPTS,
    N_POS,
    D_VOCAB,
    positions={"end": torch.tensor([4, 2, 3]), "S2": torch.tensor([1, 0, 2])},
    lengths=torch.tensor([5, 3, 4]),
)
LOGITS = torch.randn(
    2, N_PROMPTS, N_POS, D_VOCAB, generator=torch.Generator().manual_seed(0), dtype=torch.float64
)
ANSWER, WRONG = [1, 2, 3], [4, 5, 6]


def read(metric: Metric, logits: Tensor) -> Tensor:
    """What an engine hands to a metric, by plain loops: of full logits, what it says it reads."""
    if metric.read is None:
        return logits
    rows = []
    for row in logits:
        prompts = []
        for prompt, position in enumerate(metric.read.tolist()):
            at = row[prompt, position]
            prompts.append(at if metric.tokens is None else at[metric.tokens[prompt]])
        rows.append(torch.stack(prompts))
    return torch.stack(rows)


def measured(metric: Any, logits: Tensor = LOGITS, clean: Tensor | None = None) -> Tensor:
    bound = as_metric(metric).bind(PROMPTS)
    return bound.measure(
        read(bound, logits), None if clean is None else read(bound, clean[None])[0]
    )


def at_end(row: int, prompt: int) -> list[float]:
    return LOGITS[row, prompt, int(PROMPTS.positions["end"][prompt])].tolist()


def each(make: Any) -> Tensor:
    """A number for every row and prompt, from its seven logits and its answer."""
    return torch.tensor(
        [[make(at_end(row, p), ANSWER[p]) for p in range(N_PROMPTS)] for row in range(2)],
        dtype=torch.float64,
    )


def softmax(logits: list[float]) -> list[float]:
    total = sum(map(math.exp, logits))
    return [math.exp(logit) / total for logit in logits]


# -- what they make of logits ----------------------------------------------------------------------


def test_logit_diff() -> None:
    expected = each(lambda logits, right: logits[right] - logits[WRONG[ANSWER.index(right)]])
    assert torch.allclose(measured(LogitDiff(ANSWER, WRONG)), expected)


def test_log_prob() -> None:
    expected = each(lambda logits, right: math.log(softmax(logits)[right]))
    assert torch.allclose(measured(LogProb(ANSWER)), expected)


def test_probability() -> None:
    expected = each(lambda logits, right: softmax(logits)[right])
    assert torch.allclose(measured(Probability(ANSWER)), expected)


def test_rank() -> None:
    expected = each(lambda logits, right: sum(other > logits[right] for other in logits))
    assert torch.equal(measured(Rank(ANSWER)), expected)
    assert set(expected.flatten().tolist()) > {expected.min().item()}, "or the test says nothing"


def test_accuracy() -> None:
    best = [max(range(D_VOCAB), key=at_end(0, p).__getitem__) for p in range(N_PROMPTS)]
    assert measured(Accuracy(best))[0].tolist() == [1, 1, 1]
    assert measured(Accuracy([(token + 1) % D_VOCAB for token in best]))[0].tolist() == [0, 0, 0]


def test_kl_divergence() -> None:
    def divergence(row: int, prompt: int) -> float:
        clean, patched = softmax(at_end(0, prompt)), softmax(at_end(row, prompt))
        return sum(p * math.log(p / q) for p, q in zip(clean, patched, strict=True))

    found = measured(KLDivergence(), LOGITS, clean=LOGITS[0])
    expected = [[divergence(row, prompt) for prompt in range(N_PROMPTS)] for row in range(2)]
    assert torch.allclose(found, torch.tensor(expected, dtype=torch.float64))
    assert (found[0].abs() < 1e-15).all()
    assert (found[1] > 0.1).all()


def test_any_function() -> None:
    def spread(logits: Tensor) -> Tensor:
        assert logits.shape == (N_PROMPTS, N_POS, D_VOCAB)
        return logits.amax(dim=(1, 2)) - logits.amin(dim=(1, 2))

    found = measured(spread)
    assert torch.equal(found, torch.stack([spread(LOGITS[0]), spread(LOGITS[1])]))
    # Without rows it is the same function.
    assert torch.equal(AnyMetric(spread).measure(LOGITS[0]), spread(LOGITS[0]))


# -- what they read --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "position", ["S2", [1, 0, 2], torch.tensor([1, 0, 2])], ids=["name", "list", "tensor"]
)
def test_positions(position: Any) -> None:
    for metric in (
        LogitDiff(ANSWER, WRONG, position),
        LogProb(ANSWER, position),
        KLDivergence(position),
    ):
        bound = metric.bind(PROMPTS)
        assert bound.read is not None
        assert bound.read.tolist() == [1, 0, 2]


def test_one_position_for_all_prompts() -> None:
    bound = LogitDiff(ANSWER, WRONG, 2).bind(PROMPTS)
    assert bound.read is not None
    assert bound.read.tolist() == [2, 2, 2]


def test_what_is_declared() -> None:
    bound = LogitDiff(ANSWER, WRONG).bind(PROMPTS)
    assert bound.tokens is not None
    assert bound.tokens.tolist() == [[1, 4], [2, 5], [3, 6]]
    for metric in (
        LogProb(ANSWER),
        Probability(ANSWER),
        Rank(ANSWER),
        Accuracy(ANSWER),
        KLDivergence(),
    ):
        bound = metric.bind(PROMPTS)
        assert bound.tokens is None
        assert bound.read is not None
    bound = as_metric(lambda logits: logits[:, 0, 0]).bind(PROMPTS)
    assert bound.read is None
    assert bound.tokens is None


def test_names() -> None:
    def my_metric(logits: Tensor) -> Tensor:
        return logits[:, 0, 0]

    class Mine:
        def __call__(self, logits: Tensor) -> Tensor:
            return logits[:, 0, 0]

    metrics = {
        "logit difference": LogitDiff(ANSWER, WRONG),
        "LogProb": LogProb(ANSWER),
        "Probability": Probability(ANSWER),
        "Rank": Rank(ANSWER),
        "Accuracy": Accuracy(ANSWER),
        "KL divergence from clean": KLDivergence(),
        "my_metric": my_metric,
        "Mine": Mine(),
    }
    assert [as_metric(m).bind(PROMPTS).name for m in metrics.values()] == list(metrics)


def test_one_answer_for_all_prompts() -> None:
    assert torch.equal(measured(LogProb(torch.tensor(2))), measured(LogProb([2, 2, 2])))


class Words:
    """Every word is a token, its length."""

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        assert not add_special_tokens, "an answer stands in the middle of a text"
        return [len(word) for word in text.split()]

    def decode(self, tokens: list[int]) -> str:
        return "x" * tokens[0]


def test_words_as_answers() -> None:
    prompts = Prompts(
        N_PROMPTS, N_POS, D_VOCAB, PROMPTS.positions, PROMPTS.lengths, tokenizer=Words()
    )
    bound = LogitDiff(["a", "bb", "ccc"], " Mary").bind(prompts)
    assert bound.tokens is not None
    assert bound.tokens.tolist() == [[1, 4], [2, 4], [3, 4]]
    with pytest.raises(MetricError, match=r"answer 'a b' is 2 tokens \(\['x', 'x'\]\)"):
        LogProb("a b").bind(prompts)


# -- what is refused -------------------------------------------------------------------------------


def test_a_function_is_tried_out_when_it_is_bound() -> None:
    seen: list[torch.Size] = []

    def wrong(logits: Tensor) -> Tensor:
        seen.append(logits.shape)
        return logits[..., 0]

    with pytest.raises(MetricError, match=r"the metric 'wrong' gave \(3, 5\) for 3 prompts"):
        as_metric(wrong).bind(PROMPTS)
    assert seen == [(N_PROMPTS, N_POS, D_VOCAB)]


def test_a_function_is_held_to_its_shape_later_too() -> None:
    calls: list[int] = []

    def fickle(logits: Tensor) -> Tensor:
        calls.append(1)
        return logits[:, 0, 0] if len(calls) == 1 else logits[:, 0]

    bound = as_metric(fickle).bind(PROMPTS)
    with pytest.raises(MetricError, match=r"gave \(3, 7\) for 3 prompts"):
        bound.measure(LOGITS)


@pytest.mark.parametrize("thing", [None, 3, "logit_diff", [1, 2]])
def test_what_is_no_metric(thing: Any) -> None:
    with pytest.raises(MetricError, match=rf"\({type(thing).__name__}\) is no metric"):
        as_metric(thing)


def test_a_position_in_the_padding() -> None:
    with pytest.raises(PromptError, match=r"reads position 3 of prompt 1, which has 3 positions"):
        LogitDiff(ANSWER, WRONG, 3).bind(PROMPTS)


def test_metrics_are_bound_before_they_are_used() -> None:
    for metric in (LogitDiff(ANSWER, WRONG), LogProb(ANSWER), KLDivergence()):
        with pytest.raises(AssertionError, match="bound before"):
            metric.read
