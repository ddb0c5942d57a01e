"""Values to patch in that are not the corrupt run's: zero, means, tensors of one's own."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.engines.reference import ReferenceEngine
from circuitgraph.errors import RequestError
from circuitgraph.nodes import MLP, Embed, Head, Writer
from tests.engines.asking import oracle_node
from tests.engines.cases import N_POS, POSITIONS, case, close, run
from tests.oracles.path_patching import At, Sent, live, patch_receivers
from tests.oracles.plain import LOGITS

ENGINES = {"reference": ReferenceEngine, "fast": FastEngine}


def senders_of(model: str) -> tuple[Writer, ...]:
    """An MLP's value is its output before a norm that the block puts after it; the oracle's is what
    comes after, so there they are not compared."""
    return (Embed(), Head(0, 1), *(() if model == "gemma2" else (MLP(0),)))


PORTS = (("k", 1, 0), ("v", 1, 1), ("mlp", 2), LOGITS)
DATASET = torch.randint(0, 23, (5, N_POS + 2), generator=torch.Generator().manual_seed(9))

both_engines = pytest.mark.parametrize("engine", ENGINES)
models = pytest.mark.parametrize("model", ["gpt2", "llama", "neox", "gemma2"])


def values_of(model: str, source: str, dataset: Tensor | None) -> dict[Writer, Tensor]:
    """Every sender's value in a source, made from the oracle's values."""
    one = case(model)
    like = one.tiny.plain.values(one.setup.corrupt)
    samples = like if dataset is None else one.tiny.plain.values(dataset)
    found = {}
    for node in senders_of(model):
        shape, value = like[oracle_node(node)].shape, samples[oracle_node(node)]
        match source:
            case "corrupt":
                made = like[oracle_node(node)]
            case "zero":
                made = torch.zeros(shape, dtype=torch.float64)
            case "mean":
                made = value.mean(dim=(0, 1)).expand(shape)
            case "mean-position":
                made = value.mean(dim=0)[: shape[1]].expand(shape)
            case _:
                raise AssertionError(source)
        found[node] = made
    return found


def expected(model: str, values: Mapping[Writer, Tensor], at: Any, downstream: bool) -> Tensor:
    """What the oracle makes of patching the senders with these values."""
    one = case(model)
    where = None if at is None else [At(POSITIONS[at])]
    sent = {oracle_node(node): Sent(value, where) for node, value in values.items()}
    plain = one.tiny.plain
    if downstream:
        logits = live(plain, one.setup.clean, lambda p, v: plain.residual_at(v, p), sent)
    else:
        logits = patch_receivers(
            plain,
            one.setup.clean,
            dict.fromkeys(PORTS[:-1], sent),
            through=plain.mlps,
            mode="add",
        )
    return one.reference.measure(logits)


def engine_with(model: str, engine: str, **options: Any) -> Any:
    """An engine on the shared prompts, whose named positions stand alike in clean and corrupt."""
    setup = case(model).setup
    positions = replace(setup.positions, corrupt={})
    return ENGINES[engine](replace(setup, positions=positions, **options))


@models
@both_engines
@pytest.mark.parametrize("source", ["corrupt", "zero", "mean", "mean-position"])
@pytest.mark.parametrize("dataset", [None, DATASET], ids=["corrupt prompts", "data set"])
@pytest.mark.parametrize("at", [None, "end"])
def test_sources(model: str, engine: str, source: Any, dataset: Any, at: Any) -> None:
    made = engine_with(model, engine, dataset=dataset)
    values = values_of(model, source, dataset)
    if source == "zero":
        # Without an embedding the stream is nothing but rounding errors, which norms blow up.
        del values[Embed()]
    joint = "{" + ", ".join(map(str, values)) + "}" + (f"@{at}" if at else "")
    for request, downstream in (
        (f"{joint} => logits", True),
        (f"{joint} -> {{1.0.k, 1.1.v, mlp2}} => logits", False),
    ):
        plan = compile_request(made.setup.graph, request, mode="add", source=source)
        (found,) = run(made, plan)
        assert close(found, expected(model, values, at, downstream)), request


@models
@both_engines
def test_given_values(model: str, engine: str) -> None:
    """Of any shape that broadcasts to ``[prompt, pos, width]``; a head's is its z."""
    one = case(model)
    like = one.tiny.plain.values(one.setup.corrupt)
    generator = torch.Generator().manual_seed(3)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    width = {node: like[oracle_node(node)].shape[-1] for node in senders_of(model)}
    shapes = {Embed(): (), Head(0, 1): (N_POS,), MLP(0): (3, 1)}
    given = {node: draw(*shapes[node], width[node]) for node in width}
    made = engine_with(model, engine, given=given)
    full = {node: value.expand_as(like[oracle_node(node)]) for node, value in given.items()}
    joint = "{" + ", ".join(map(str, given)) + "}"
    for request, downstream in (
        (f"{joint} => logits", True),
        (f"{joint} -> {{1.0.k, 1.1.v, mlp2}} => logits", False),
    ):
        plan = compile_request(made.setup.graph, request, mode="add", source="given")
        (found,) = run(made, plan)
        assert close(found, expected(model, full, None, downstream)), request


@both_engines
def test_the_clean_values_change_nothing(engine: str) -> None:
    one = case("gpt2")
    values = one.tiny.plain.values(one.setup.clean)
    made = engine_with(
        "gpt2", engine, given={n: values[oracle_node(n)] for n in senders_of("gpt2")}
    )
    plan = compile_request(one.graph, "[embed, 0.1, mlp0] -> logits", source="given")
    found = run(made, plan)
    clean = one.reference.measure(one.reference.clean.logits)
    assert close(found, clean.expand_as(found))


@both_engines
def test_what_was_not_given_is_asked_for_by_name(engine: str) -> None:
    made = engine_with("gpt2", engine, given={Head(0, 1): torch.zeros(4)})
    plan = compile_request(made.setup.graph, "{0.1, 0.2} => logits", source="given")
    with pytest.raises(RequestError) as caught:
        run(made, plan)
    assert str(caught.value) == (
        "no value given for 0.2: source='given' needs values={0.2: tensor}"
    )


@both_engines
def test_a_value_of_the_wrong_shape(engine: str) -> None:
    made = engine_with("gpt2", engine, given={Head(0, 1): torch.zeros(7)})
    plan = compile_request(made.setup.graph, "0.1 => logits", source="given")
    with pytest.raises(RequestError) as caught:
        run(made, plan)
    assert str(caught.value) == (
        "the value given for 0.1 has shape (7,): "
        "it must broadcast to (3, 6, 4) [prompt, pos, width]"
    )


@both_engines
def test_a_data_set_that_is_too_short(engine: str) -> None:
    made = engine_with("gpt2", engine, dataset=DATASET[:, :4])
    plan = compile_request(made.setup.graph, "0.1 => logits", source="mean-position")
    with pytest.raises(RequestError) as caught:
        run(made, plan)
    assert str(caught.value) == (
        "the data set has 4 positions, the prompts 6: a mean per position needs at least as many"
    )
