"""What the face refuses, word for word, and that it does so before any forward pass."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

import circuitgraph as cg
from circuitgraph.errors import (
    CircuitGraphError,
    MetricError,
    ModelError,
    NodeError,
    PromptError,
    RequestError,
)
from tests import models

TINY = models.tiny_gpt2()
CLEAN, CORRUPT = TINY.tokens(seed=1), TINY.tokens(seed=2)
METRIC = cg.LogitDiff([1, 2, 3], [4, 5, 6])


def short(value: object) -> str | None:
    """Names of parametrised tests: the beginning of the text that they expect."""
    return value[:50] if isinstance(value, str) else type(value).__name__


class Words:
    """A tokenizer of whole words: a word's token is its length, after one for the beginning."""

    pad_token_id, bos_token_id, eos_token_id = 0, 1, 2
    begins = True

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        start = [1] if self.begins and add_special_tokens else []
        return start + [2 + len(word) for word in text.split()]

    def decode(self, tokens: list[int]) -> str:
        return " ".join("x" * (token - 2) for token in tokens)


@contextmanager
def no_forward_pass(bridge: Any) -> Iterator[None]:
    """Any module of the model that runs is an error."""

    modules, own = set(bridge.original_model.modules()), torch.nn.Module.__call__

    def call(self: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self in modules:
            pytest.fail("the model ran")
        return own(self, *args, **kwargs)

    torch.nn.Module.__call__ = call  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        torch.nn.Module.__call__ = own  # type: ignore[method-assign]


@pytest.fixture
def bridge() -> Any:
    return TINY.new_bridge()


@pytest.fixture
def words(bridge: Any) -> Any:
    bridge.tokenizer = Words()
    return bridge


def refused(bridge: Any, error: type[Exception], **options: Any) -> str:
    """The text of an experiment's refusal, less the head line that all share."""
    given: dict[str, Any] = {"clean": CLEAN, "corrupt": CORRUPT, "metric": METRIC, **options}
    with no_forward_pass(bridge), pytest.raises(error) as caught:
        cg.Experiment(bridge, progress=False, **given)
    text = str(caught.value)
    assert text.startswith("cannot make an experiment: ")
    return text.removeprefix("cannot make an experiment: ")


# -- the model -------------------------------------------------------------------------------------


def test_training_mode(bridge: Any) -> None:
    bridge.train()
    assert refused(bridge, ModelError) == (
        "the model is in training mode, so dropout would make every run different: "
        "call model.eval()"
    )


def test_leftover_hooks(bridge: Any) -> None:
    bridge.add_hook("blocks.1.mlp.hook_out", lambda value, hook: value)
    text = refused(bridge, ModelError)
    assert text.startswith("hooks were left on the model at blocks.1.")
    assert "model.reset_hooks(including_permanent=True)" in text
    bridge.reset_hooks()
    cg.Experiment(bridge, CLEAN, CORRUPT, METRIC)


@pytest.mark.parametrize("model", [5, None, torch.nn.Linear(2, 2)], ids=["int", "None", "module"])
def test_no_model(model: Any) -> None:
    with pytest.raises(ModelError) as caught:
        cg.Experiment(model, CLEAN, CORRUPT, METRIC)
    assert str(caught.value) == (
        f"cannot make an experiment: {type(model).__name__} is no TransformerBridge, nor a causal "
        "language model of Hugging Face: load a model with cg.load_model(name), "
        "TransformerBridge.boot_transformers(name) or "
        "AutoModelForCausalLM.from_pretrained(name, attn_implementation='eager')"
    )


# -- prompts as tokens -----------------------------------------------------------------------------


def test_different_shapes(bridge: Any) -> None:
    assert refused(bridge, PromptError, corrupt=CORRUPT[:2]) == (
        "3 clean prompts but 2 corrupt ones: they are patched pair by pair"
    )
    assert refused(bridge, PromptError, corrupt=CORRUPT[:, :4]) == (
        "prompt pair 0 has 6 clean tokens but 4 corrupt ones (and 2 more pairs): clean and corrupt "
        "must be aligned token for token"
    )
    assert refused(bridge, PromptError, corrupt=CORRUPT[:, :4], lengths=[4, 3, 4]) == (
        "clean tokens have shape (3, 6), corrupt (3, 4): clean and corrupt must be aligned token "
        "for token"
    )


@pytest.mark.parametrize(
    ("tokens", "text"),
    [
        (
            CLEAN[0],
            "have shape (6,): give [prompt, pos], at least one prompt of at least one token",
        ),
        (
            CLEAN[:0],
            "have shape (0, 6): give [prompt, pos], at least one prompt of at least one token",
        ),
        (CLEAN.float(), "hold torch.float32 values: token ids are integers"),
        (CLEAN > 3, "hold torch.bool values: token ids are integers"),
        (CLEAN + 20, "hold ids outside the vocabulary of 23 tokens"),
        (CLEAN - 30, "hold ids outside the vocabulary of 23 tokens"),
    ],
    ids=short,
)
def test_what_is_no_batch_of_tokens(bridge: Any, tokens: torch.Tensor, text: str) -> None:
    for which in ("clean", "corrupt"):
        assert refused(bridge, PromptError, **{which: tokens}) == f"{which} tokens {text}"


@pytest.mark.parametrize(
    ("lengths", "text"),
    [
        (
            [7, 6, 6],
            "lengths says that prompt 0 has 7 tokens, but it must be 1..6, the padded length",
        ),
        (
            [6, 0, 6],
            "lengths says that prompt 1 has 0 tokens, but it must be 1..6, the padded length",
        ),
        (
            [6, 6],
            "lengths has shape (2,) and type torch.int64: give one whole number per prompt "
            "(3 of them)",
        ),
        (
            [1.5, 6, 6],
            "lengths has shape (3,) and type torch.float32: give one whole number per prompt "
            "(3 of them)",
        ),
    ],
    ids=short,
)
def test_lengths(bridge: Any, lengths: Any, text: str) -> None:
    assert refused(bridge, PromptError, lengths=lengths) == text


def test_left_padding(words: Any) -> None:
    clean = torch.tensor([[4, 5, 6], [0, 4, 5]])
    metric = cg.LogitDiff([1, 2], [4, 5])
    text = refused(
        words, PromptError, clean=clean, corrupt=torch.tensor([[4, 5, 7]] * 2), metric=metric
    )
    assert text == (
        "clean prompt 1 starts with the padding token 0: left padding shifts every position and is "
        "read by attention; pad on the right (tokenizer.padding_side = 'right')"
    )


def test_a_first_token_that_also_pads_is_no_left_padding(words: Any) -> None:
    """GPT-2 pads with the token that begins a text."""
    words.tokenizer.bos_token_id = 0
    cg.Experiment(words, torch.tensor([[0, 4]]), torch.tensor([[0, 5]]), cg.LogitDiff([1], [2]))


# -- prompts as text -------------------------------------------------------------------------------


def test_text_without_a_tokenizer(bridge: Any) -> None:
    bridge.tokenizer = None
    text = refused(bridge, PromptError, clean=["a b"], corrupt=["a c"])
    assert text.splitlines() == [
        "2 problems",
        "  1. clean prompts are text, but the model has no tokenizer: give tokens",
        "  2. corrupt prompts are text, but the model has no tokenizer: give tokens",
    ]


def test_different_numbers_of_tokens(words: Any) -> None:
    clean, corrupt = ["a bb", "a bb ccc", "a bb c"], ["a b", "a bb", "a"]
    assert refused(words, PromptError, clean=clean, corrupt=corrupt) == (
        "prompt pair 1 has 4 clean tokens but 3 corrupt ones (and 1 more pairs): clean and corrupt "
        "must be aligned token for token"
    )


def test_a_prompt_without_tokens(words: Any) -> None:
    words.tokenizer.begins = False
    text = refused(words, PromptError, clean=["a", ""], corrupt=["a", "b"])
    assert text == "clean prompt 1 has no tokens at all"


@pytest.mark.parametrize("clean", [[], ["a", 3], [[1, 2], [3, 4]]], ids=str)
def test_what_is_neither_text_nor_tokens(words: Any, clean: Any) -> None:
    text = refused(words, PromptError, clean=clean, corrupt=["a b"])
    assert text == "clean prompts must be a list of strings or a tensor of tokens"


# -- positions -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positions", "text"),
    [
        ({"S2": [1, 6, 2]}, "position 'S2' is 6 in clean prompt 1, which has 6 tokens (0..5)"),
        ({"S2": -1}, "position 'S2' is -1 in clean prompt 0, which has 6 tokens (0..5)"),
        (
            {"S2": [1, 2]},
            "position 'S2' has shape (2,) and type torch.int64: give one integer index per prompt "
            "(3 of them)",
        ),
        (
            {"S2": [1.0, 2.0, 3.0]},
            "position 'S2' has shape (3,) and type torch.float32: give one integer index per prompt "
            "(3 of them)",
        ),
        (
            {"each": 1},
            "no position can be named 'each': in a request @each means every position, one at a "
            "time",
        ),
        ({"3": 1}, "no position can be named '3': in a request @3 means that index"),
    ],
    ids=short,
)
def test_positions(bridge: Any, positions: Any, text: str) -> None:
    assert refused(bridge, PromptError, positions=positions) == text


def test_a_position_in_the_padding(bridge: Any) -> None:
    text = refused(bridge, PromptError, positions={"S2": 4}, lengths=[6, 4, 5])
    assert text == "position 'S2' is 4 in clean prompt 1, which has 4 tokens (0..3)"


def test_corrupt_positions(bridge: Any) -> None:
    text = refused(bridge, PromptError, positions={"S2": 1}, corrupt_positions={"S2": 9})
    assert text == "position 'S2' is 9 in corrupt prompt 0, which has 6 tokens (0..5)"
    text = refused(bridge, PromptError, positions={"S2": 1}, corrupt_positions={"S1": 1})
    assert text == "corrupt_positions names 'S1', which positions does not"


# -- the metric ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (
            "logit difference",
            "'logit difference' (str) is no metric: give cg.LogitDiff(...) or the like, "
            "cg.Activation(...), or a function from logits [prompt, pos, d_vocab] to [prompt]",
        ),
        (
            lambda logits: logits.mean(),
            "the metric '<lambda>' gave () for 3 prompts: it must return a tensor of shape (3,), "
            "one number per prompt",
        ),
        (
            lambda logits: logits[:, -1],
            "the metric '<lambda>' gave (3, 23) for 3 prompts: it must return a tensor of shape "
            "(3,), one number per prompt",
        ),
        (
            lambda logits: 1.0,
            "the metric '<lambda>' gave float for 3 prompts: it must return a tensor of shape (3,), "
            "one number per prompt",
        ),
        (
            cg.LogitDiff([1, 2], [3, 4]),
            "LogitDiff's correct answer has shape (2,) for 3 prompts: give one token per prompt",
        ),
        (
            cg.LogitDiff([1, 2, 3], [4, 2, 6]),
            "LogitDiff's correct and incorrect answers are the same token (2) in prompt 1",
        ),
        (
            cg.LogitDiff([1, 2, 23], [4, 5, 6]),
            "LogitDiff's correct answer holds ids outside the vocabulary of 23 tokens",
        ),
        (
            cg.LogitDiff([1, 2, 3], [4.0, 5.0, 6.0]),  # type: ignore[list-item]
            "LogitDiff's incorrect answer holds torch.float32 values: token ids are integers",
        ),
        (
            cg.LogProb([1, 2, 3], position="S9"),
            "LogProb reads position 'S9', but known are end: name it with "
            "Experiment(..., positions={...}) or give indices",
        ),
        (
            cg.LogProb([1, 2, 3], position=6),
            "LogProb reads position 6 of prompt 0, which has 6 positions (0..5)",
        ),
        (
            cg.Rank([1, 2, 3], position=-1),
            "Rank reads position -1 of prompt 0, which has 6 positions (0..5)",
        ),
        (
            cg.KLDivergence(position=[1, 2]),
            "KLDivergence has positions of shape (2,) for 3 prompts: give one index per prompt, one "
            "integer, or a name",
        ),
        (
            cg.Probability("Mary"),
            "Probability's answer holds words, but the model has no tokenizer: give token ids",
        ),
    ],
    ids=short,
)
def test_metrics(bridge: Any, metric: Any, text: str) -> None:
    bridge.tokenizer = None
    assert refused(bridge, MetricError, metric=metric) == text


def test_an_answer_of_several_tokens(words: Any) -> None:
    text = refused(words, MetricError, metric=cg.LogitDiff("Mary", "John Smith"))
    assert text == (
        "LogitDiff's incorrect answer 'John Smith' is 2 tokens (['xxxx', 'xxxxx']): an answer must "
        "be one token (mind the leading space), since the metric reads one position"
    )


def test_clean_and_corrupt_measure_the_same(bridge: Any) -> None:
    """This one needs both prompts to be run."""
    with pytest.raises(MetricError) as caught:
        cg.Experiment(bridge, CLEAN, CLEAN, METRIC)
    text = str(caught.value)
    assert text.startswith("clean and corrupt prompts measure the same (mean logit difference ")
    assert text.endswith(
        "): effects cannot be normalised; choose corrupt prompts that change the metric, or pass "
        "allow_no_difference=True to work with raw values"
    )
    experiment = cg.Experiment(bridge, CLEAN, CLEAN, METRIC, allow_no_difference=True)
    assert (experiment.clean_metric == experiment.corrupt_metric).all()


def test_a_metric_that_is_no_number(bridge: Any) -> None:
    def ratio(logits: torch.Tensor) -> torch.Tensor:
        found = logits[:, -1, 0].clone()
        found[1] = torch.nan
        return found

    with pytest.raises(MetricError) as caught:
        cg.Experiment(bridge, CLEAN, CORRUPT, ratio)
    assert str(caught.value) == (
        "ratio is nan on clean prompt 1: a metric gives one finite number per prompt"
    )


# -- the rest of an experiment ---------------------------------------------------------------------


def test_memory_budget(bridge: Any) -> None:
    for options in ({}, {"allow_no_difference": True}):
        assert refused(bridge, RequestError, memory_budget="lots", **options) == (
            "memory_budget='lots' is no amount of memory: write bytes, '500MB' or '2GiB'"
        )


def test_several_problems_together(bridge: Any) -> None:
    bridge.train()
    text = refused(
        bridge,
        ModelError,
        positions={"S2": 9, "IO": [1, 2]},
        metric=cg.LogitDiff([1], [2]),
        memory_budget="lots",
    )
    assert text.splitlines() == [
        "5 problems",
        "  1. the model is in training mode, so dropout would make every run different: call "
        "model.eval()",
        "  2. position 'S2' is 9 in clean prompt 0, which has 6 tokens (0..5)",
        "  3. position 'IO' has shape (2,) and type torch.int64: give one integer index per prompt "
        "(3 of them)",
        "  4. memory_budget='lots' is no amount of memory: write bytes, '500MB' or '2GiB'",
        "  5. LogitDiff's correct answer has shape (1,) for 3 prompts: give one token per prompt",
    ]


# -- requests --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def experiment() -> cg.Experiment:
    return cg.Experiment(TINY.bridge, CLEAN, CORRUPT, METRIC, {"S2": [1, 2, 3]}, progress=False)


Ask = Callable[[cg.Experiment], Any]


@pytest.mark.parametrize(
    ("ask", "error", "text"),
    [
        (
            lambda e: e.patch("3.0 -> logits"),
            NodeError,
            "cannot compile '3.0 -> logits': no node '3.0' in this graph (3 layers of 3 heads): "
            "layer must be 0..2; did you mean 2.0?",
        ),
        (
            lambda e: e.patch("0.3 -> 1.0.k => logits"),
            NodeError,
            "cannot compile '0.3 -> 1.0.k => logits': no node '0.3' in this graph (3 layers of 3 "
            "heads): head must be 0..2; did you mean 0.2?",
        ),
        (
            lambda e: e.patch([cg.Edge(cg.MLP(3), cg.Logits())]),
            NodeError,
            "cannot compile 'mlp3 -> logits': no node 'mlp3' in this graph (3 layers of 3 heads): "
            "layer must be 0..2; did you mean mlp2?",
        ),
        (
            lambda e: e.patch("1.0 -> 0.0.q => logits"),
            NodeError,
            "cannot compile '1.0 -> 0.0.q => logits': 1.0 does not come before 0.0.q: it must write "
            "to the residual stream before the receiver reads it",
        ),
        (
            lambda e: e.patch("0.0 -> 1.0.x => logits"),
            RequestError,
            "cannot read the request '0.0 -> 1.0.x => logits': at character 8: no port 'x' on "
            "1.0: its ports are q, k, v",
        ),
        (
            lambda e: e.patch(7),  # type: ignore[arg-type]
            RequestError,
            "7 (int) is no request: give text such as '9.9 -> logits', a Request, an Edge or a list "
            "of Edges",
        ),
        (
            lambda e: e.patch("0.0@S1 -> logits@6"),
            RequestError,
            "cannot patch '0.0@S1 -> logits@6': 2 problems\n"
            "  1. no position named 'S1': known are S2, end; name positions with "
            "Experiment(..., positions={'end': indices})\n"
            "  2. position 6 is outside the prompts, which have 6 positions (0..5)",
        ),
        (
            lambda e: e.patch("0.0 -> logits", variant="mlp"),  # type: ignore[arg-type]
            RequestError,
            "cannot compile '0.0 -> logits': no variant 'mlp': write 'mlps' (direct paths pass "
            "through MLPs), 'single-pass' (through nothing) or cg.Through(nodes)",
        ),
        (
            lambda e: e.patch("0.0 -> logits", variant=[cg.MLP(0)]),  # type: ignore[arg-type]
            RequestError,
            "cannot compile '0.0 -> logits': no variant [MLP(layer=0)]: write 'mlps' (direct paths "
            "pass through MLPs), 'single-pass' (through nothing) or cg.Through(nodes)",
        ),
        (
            lambda e: e.patch("0.0 -> logits", mode="get"),  # type: ignore[arg-type]
            RequestError,
            "cannot compile '0.0 -> logits': no mode 'get': write one of set, add, replace",
        ),
        (
            lambda e: e.patch("0.0 -> logits", source="noise"),  # type: ignore[arg-type]
            RequestError,
            "cannot compile '0.0 -> logits': no source 'noise': write one of corrupt, zero, mean, "
            "mean-position, given",
        ),
        (
            lambda e: e.patch("9.0 -> logits", "mlp", "get", source="noise"),  # type: ignore[arg-type]
            RequestError,
            "cannot compile '9.0 -> logits': 4 problems\n"
            "  1. no variant 'mlp': write 'mlps' (direct paths pass through MLPs), 'single-pass' "
            "(through nothing) or cg.Through(nodes)\n"
            "  2. no mode 'get': write one of set, add, replace\n"
            "  3. no source 'noise': write one of corrupt, zero, mean, mean-position, given\n"
            "  4. no node '9.0' in this graph (3 layers of 3 heads): layer must be 0..2; did you "
            "mean 2.0?",
        ),
        (
            lambda e: e.patch("0.0 -> logits", engine="slow"),  # type: ignore[arg-type]
            RequestError,
            "no engine 'slow': write one of fast, reference",
        ),
        (
            lambda e: e.patch("0.0 -> logits", values={cg.Head(0, 0): torch.zeros(4)}),
            RequestError,
            "cannot patch '0.0 -> logits': values are given, but source='corrupt' would not use "
            "them: pass source='given'",
        ),
        (
            lambda e: e.patch("{0.0, 0.1} -> logits", source="given", values={"0.0": 1}),  # type: ignore[dict-item]
            RequestError,
            "cannot patch '{0.0, 0.1} -> logits': 3 problems\n"
            "  1. no value given for 0.0: source='given' needs values={0.0: tensor}\n"
            "  2. no value given for 0.1: source='given' needs values={0.1: tensor}\n"
            "  3. values holds '0.0' (str): its keys are senders such as cg.Head(9, 9)",
        ),
        (
            lambda e: e.patch("0.0 -> logits", dataset=CLEAN),
            RequestError,
            "cannot patch '0.0 -> logits': a data set is given, but source='corrupt' would not use "
            "it: pass source='mean' or source='mean-position'",
        ),
        (
            lambda e: e.patch("0.0 -> logits", source="mean", dataset=CLEAN[0]),
            RequestError,
            "cannot patch '0.0 -> logits': the data set must be tokens [sample, pos], got (6,)",
        ),
        (
            lambda e: e.patch("0.0 -> logits", source="mean", dataset=CLEAN.double()),
            RequestError,
            "cannot patch '0.0 -> logits': the data set holds torch.float64 values: token ids are "
            "integers",
        ),
        (
            lambda e: e.patch("0.0 -> logits", source="mean", dataset=CLEAN + 20),
            RequestError,
            "cannot patch '0.0 -> logits': the data set holds ids outside the vocabulary of 23 "
            "tokens",
        ),
        (
            lambda e: e.patch("0.0 -> logits", source="mean-position", dataset=CLEAN[:, :2]),
            RequestError,
            "cannot patch '0.0 -> logits': the data set has 2 positions, the prompts 6: a mean per "
            "position needs at least as many",
        ),
    ],
    ids=short,
)
@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_requests(
    experiment: cg.Experiment, engine: Any, ask: Ask, error: type[Exception], text: str
) -> None:
    class With:
        """The experiment, asked for one engine unless the request names its own."""

        @staticmethod
        def patch(*asked: Any, **options: Any) -> Any:
            return experiment.patch(*asked, **{"engine": engine, **options})

    with no_forward_pass(experiment.model), pytest.raises(error) as caught:
        ask(With)  # type: ignore[arg-type]
    assert str(caught.value) == text


def test_plans_and_schedules_refuse_the_same(experiment: cg.Experiment) -> None:
    for ask in (experiment.plan, experiment.schedule):
        with pytest.raises(RequestError, match="no position named 'S1': known are S2, end"):
            ask("0.0@S1 -> logits")
        with pytest.raises(NodeError, match="no node '3.0' in this graph"):
            ask("3.0 -> logits")


# -- metrics of activations ------------------------------------------------------------------------


def firsts(value: torch.Tensor) -> torch.Tensor:
    return value.flatten(1)[:, 0]


@pytest.mark.parametrize(
    ("metric", "text"),
    [
        (
            cg.Activation("blocks.1.attn.hook_patern", firsts),
            "the model has no hook named 'blocks.1.attn.hook_patern': did you mean "
            "blocks.1.attn.hook_pattern,",
        ),
        (
            cg.Activation("embed.hook_out", firsts),
            "'embed.hook_out' comes before the first block, where no patch changes anything: read "
            "a hook of a block, of the final norm or of the unembedding",
        ),
        (
            cg.AttentionTo("mlp1", 0),
            "AttentionTo reads a head's pattern, and mlp1 is no head of this model: its layers "
            "have heads 0..2; write 9.6 for layer 9, head 6",
        ),
        (cg.AttentionTo("7.0", 0), "AttentionTo reads a head's pattern, and 7.0 is no head"),
        (cg.AttentionTo("1.3", 0), "AttentionTo reads a head's pattern, and 1.3 is no head"),
        (cg.AttentionTo("one", 0), "AttentionTo: "),
        (cg.AttentionTo("1.1", "S3"), "AttentionTo reads position 'S3', but known are S2, end"),
        (cg.AttentionTo("1.1", 99), "AttentionTo reads position 99 of prompt 0, which has"),
    ],
    ids=short,
)
def test_activations_that_are_not_there(experiment: cg.Experiment, metric: Any, text: str) -> None:
    with no_forward_pass(experiment.model), pytest.raises(CircuitGraphError) as caught:
        experiment.patch("0.1 => logits", metrics={"seen": metric})
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("request_", "hook", "text"),
    [
        (
            "head -> logits",
            "blocks.1.attn.hook_pattern",
            "cannot measure 'head -> logits': 'blocks.1.attn.hook_pattern' reads "
            "blocks.1.attn.hook_pattern, but in a request that ends in `-> logits` only what the "
            "logits read is patched: end it in `=> logits` to let the rest of the model answer, or "
            "measure the logits",
        ),
        (
            "0.1 -> 1.0.q => logits",
            "blocks.1.attn.hook_q",
            "reads blocks.1.attn.hook_q inside 1.0, whose own port is patched: a port is patched "
            "for one node by itself, so there is no one such activation",
        ),
        (
            "0.1 -> mlp1 => logits",
            "blocks.1.mlp.hook_post",
            "reads blocks.1.mlp.hook_post inside mlp1, whose own port is patched",
        ),
    ],
    ids=short,
)
def test_activations_that_a_request_cannot_show(
    experiment: cg.Experiment, request_: str, hook: str, text: str
) -> None:
    with no_forward_pass(experiment.model), pytest.raises(CircuitGraphError) as caught:
        experiment.patch(request_, metrics={"seen": cg.Activation(hook, firsts)})
    assert text in str(caught.value)


def test_no_metric_at_all(experiment: cg.Experiment) -> None:
    with pytest.raises(MetricError, match="no metric is given: name one or more"):
        experiment.patch("0.1 => logits", metrics={})


def test_an_activation_measured_in_the_wrong_shape(experiment: cg.Experiment) -> None:
    metric = cg.Activation("blocks.1.attn.hook_pattern", lambda pattern: pattern[:, 0])
    with pytest.raises(MetricError, match=r"gave \(3, 6, 6\) for 3 prompts"):
        experiment.patch("0.1 => logits", metrics={"seen": metric})
    assert not any(point.fwd_hooks for point in experiment.model.hook_dict.values())


def test_a_metric_of_float64_weights() -> None:
    """A function is tried on logits of the model's own type."""
    weight = torch.randn(TINY.bridge.cfg.d_vocab, dtype=torch.float64)
    exp = cg.Experiment(TINY.bridge, CLEAN, CORRUPT, lambda logits: logits[:, -1] @ weight)
    assert len(exp.clean_metric) == 3
