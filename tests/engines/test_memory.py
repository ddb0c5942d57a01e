"""Memory budgets: reading them, and trying again with less when the device runs out."""

import functools
import gc
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import GPT2Config, GPT2LMHeadModel

import circuitgraph as cg
from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.choice import Fast
from circuitgraph.engines.fast import (
    ChunkedEngine,
    FastEngine,
    measure,
    memory,
    prompts_at_once,
    recompute,
    send,
)
from circuitgraph.engines.fast.memory import parse_budget, recording_bytes, rows_that_fit
from circuitgraph.engines.splitting import in_stacks
from circuitgraph.errors import RequestError
from circuitgraph.nodes import Head
from tests.engines.cases import case, close, run
from tests.engines.peak import PeakMemory

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        (1, 1),
        (4096, 4096),
        ("1", 1),
        ("2kB", 2000),
        ("2KiB", 2048),
        ("1.5 GiB", 3 * 2**29),
        ("500MB", 500_000_000),
        (" 3 mib ", 3 * 2**20),
        ("1e", None),
    ],
)
def test_budgets(text: object, amount: int | None) -> None:
    if amount is None:
        with pytest.raises(RequestError):
            parse_budget(text, CPU)  # type: ignore[arg-type]
    else:
        assert parse_budget(text, CPU) == amount  # type: ignore[arg-type]


@pytest.mark.parametrize(("gibibytes", "expected"), [(64, 16), (4, 2)])
def test_by_default_a_quarter_of_the_machine(
    gibibytes: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_machine_memory", lambda: gibibytes * 2**30)
    assert parse_budget(None, CPU) == expected * 2**30


@pytest.mark.parametrize("wrong", ["", "lots", "0", 0, -5, "-1GB", "1.2.3GB", True, "2 TiB"])
def test_what_is_no_budget(wrong: object) -> None:
    message = f"memory_budget={wrong!r} is no amount of memory: write bytes, '500MB' or '2GiB'"
    with pytest.raises(RequestError) as caught:
        FastEngine(case("gpt2").setup, memory_budget=wrong)  # type: ignore[arg-type]
    assert str(caught.value) == message


def test_at_least_one_row_fits() -> None:
    assert rows_that_fit(10, 1000) == 1
    assert rows_that_fit(1000, 10) == 100
    assert rows_that_fit(5, 0) == 5


def test_stacks_are_halved_when_the_device_runs_out() -> None:
    tried: list[int] = []

    def run(items: Sequence[int]) -> int:
        tried.append(len(items))
        if len(items) > 3:
            raise torch.OutOfMemoryError
        return sum(items)

    found = list(in_stacks(list(range(10)), 8, run))
    assert tried == [8, 4, 2, 2, 2, 2, 2]
    assert [item for items, _ in found for item in items] == list(range(10))
    assert [result for _, result in found] == [1, 5, 9, 13, 17]


def test_one_row_that_does_not_fit_is_an_error() -> None:
    def run(items: Sequence[int]) -> int:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(in_stacks([1, 2], 2, run))


# -- some prompts at a time ------------------------------------------------------------------------

REQUESTS = [
    ("head -> logits", "mlps", "set", "corrupt"),
    ("[embed, 0.1] -> {1.0.q@end, 1.1.v} => logits", "single-pass", "add", "corrupt"),
    ("0.1@S2 -> 1.0.k => logits", "mlps", "set", "mean"),
    ("head => logits", "mlps", "set", "mean-position"),
    ("0.0 -> 1.1.v -> logits", "mlps", "replace", "zero"),
]


@pytest.mark.parametrize("model", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("metric", ["logit diff", "log prob", "KL"])
def test_numbers_do_not_depend_on_how_many_prompts_run_at_once(
    model: str, size: int, metric: str
) -> None:
    one = case(model, metric)
    engine = ChunkedEngine(one.setup, size)
    for request, variant, mode, source in REQUESTS:
        plan = compile_request(one.graph, request, variant, mode=mode, source=source, n_positions=6)
        expected = run(one.reference, plan)
        assert close(run(engine.answering(plan), plan), expected)
    assert close(engine.clean_metric, one.reference.clean_metric)
    assert close(engine.corrupt_metric, one.reference.corrupt_metric)


def test_a_small_budget_cuts_up_the_prompts_and_changes_nothing() -> None:
    tiny = case("gpt2").tiny
    clean, corrupt = tiny.tokens(7, 6, seed=1), tiny.tokens(7, 6, seed=2)
    metrics = {
        "difference": cg.LogitDiff([1] * 7, [2] * 7, position=5),
        "surprise": cg.LogProb([3] * 7, position=4),
    }
    budget = 4 * 3 * recording_bytes(case("gpt2").setup)

    def made(budget: int | None) -> cg.Experiment:
        return cg.Experiment(
            tiny.bridge, clean, corrupt, metrics["difference"], memory_budget=budget
        )

    whole, parts = made(None), made(budget)
    assert [rows for rows, _ in parts._engine(Fast()).chunks()] == [
        slice(0, 3),
        slice(3, 6),
        slice(6, 7),
    ]
    for one, other in zip(
        map(whole.patch("head -> 1.0.q => logits", metrics=metrics).__getitem__, metrics),
        map(parts.patch("head -> 1.0.q => logits", metrics=metrics).__getitem__, metrics),
        strict=True,
    ):
        assert np.allclose(
            one.data["patched"], other.data["patched"], rtol=0, atol=1e-9, equal_nan=True
        )
        assert np.allclose(
            one.data["clean"], other.data["clean"], rtol=0, atol=1e-9, equal_nan=True
        )
    values = {Head(0, 1): torch.randn(7, 6, tiny.bridge.cfg.d_head, dtype=torch.float64)}
    asked = {"request": "0.1 => logits", "source": "given", "values": values}
    assert np.allclose(
        whole.patch(**asked).data["patched"],
        parts.patch(**asked).data["patched"],
        atol=1e-9,
        equal_nan=True,
    )


def test_a_function_of_all_logits_is_never_cut_up() -> None:
    one = case("gpt2", "everything")
    assert prompts_at_once(one.setup, 1) == one.setup.n_prompts
    assert prompts_at_once(case("gpt2", "logit diff").setup, 1) == 1


# -- the peak --------------------------------------------------------------------------------------


@functools.cache
def wide_model() -> Any:
    """A GPT-2 wide enough that tensors of the streams outweigh everything else."""
    config = GPT2Config(n_layer=5, n_head=4, n_embd=64, vocab_size=50, n_positions=32)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = GPT2LMHeadModel(config).eval()
    return build_bridge_from_module(model, architecture="GPT2LMHeadModel", hf_config=config)


@pytest.mark.parametrize("times", [pytest.param(1, marks=pytest.mark.large), 4, 16])
@pytest.mark.parametrize(
    "request_",
    [
        "head -> logits",
        "head -> {2.0, 2.1, 3.0, 3.1}.v => logits",
        "head => logits",
        "0.1 -> head.q => logits",
        "[embed, 0.1, mlp1] -> 2.1.k -> 4.0.q => logits",
        "head -> 4.0.q@end => logits",
    ],
)
def test_the_peak_stays_within_the_budget(request_: str, times: int) -> None:
    """From what holds the recordings of a single prompt to what holds many."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 50, (6, 20), generator=generator)
    corrupt = torch.randint(0, 50, (6, 20), generator=generator)
    metric = cg.LogitDiff([1] * 6, [2] * 6)
    whole = cg.Experiment(wide_model(), clean, corrupt, metric)
    budget = int(4.5 * times * recording_bytes(whole._setup))
    expected = whole.patch(request_)
    del whole
    gc.collect()
    with PeakMemory() as counted:
        exp = cg.Experiment(wide_model(), clean, corrupt, metric, memory_budget=budget)
        found = exp.patch(request_)
    assert budget / 20 < counted.peak <= budget
    assert np.allclose(found.data["patched"], expected.data["patched"], atol=1e-4, equal_nan=True)


def test_what_was_recorded_goes_with_the_engine() -> None:
    """Nothing waits for the garbage collector: chunks of prompts would pile up."""
    one = case("gpt2", "logit diff")
    gc.collect()
    gc.disable()
    try:
        for request in ("head -> logits", "head => logits", "0.0 -> 1.1.v -> logits"):
            engine = FastEngine(one.setup)
            run(engine, compile_request(one.graph, request))
            recorded = weakref.ref(engine.state.clean.layers[0].resid)
            del engine
            assert recorded() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("times", [1, 4, 100])
@pytest.mark.parametrize(
    "request_", ["head -> logits", "head@end -> {2.0, 3.0}.v => logits", "0.1 -> 2.0.v -> 4.1.q"]
)
def test_a_schedule_tells_how_many_stacks_there_will_be(
    request_: str, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(0, 50, (6, 20), generator=generator)
    corrupt = torch.cat([clean[:, :7], (clean[:, 7:] + 1) % 50], dim=1)
    metric = cg.LogitDiff([1] * 6, [2] * 6)
    setup = cg.Experiment(wide_model(), clean, corrupt, metric)._setup
    budget = int(4.5 * times * recording_bytes(setup))
    exp = cg.Experiment(wide_model(), clean, corrupt, metric, memory_budget=budget)
    request_ = request_ if request_.endswith("logits") else f"{request_} => logits"
    schedule = exp.schedule(request_)
    counted: list[int] = []

    def counting(items: Any, most: int, run: Any) -> Any:
        stacks = list(in_stacks(items, most, run))
        counted.append(len(stacks))
        return iter(stacks)

    for room in (send, recompute, measure):
        monkeypatch.setattr(room, "in_stacks", counting)
    exp.patch(request_)
    told = [
        count
        for count, stage in zip(schedule.stacks, schedule.stages, strict=True)
        if stage.name != "read out"
    ]
    assert sum(counted) == sum(told)
    assert f" {schedule.stacks[0]} " in str(schedule)
