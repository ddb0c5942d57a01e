"""On every family: fast == reference == the three steps with raw hooks, or refused by name."""

import warnings
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch

from circuitgraph.checks import random_prompts, run_checks
from circuitgraph.checks.precision import measure_precision
from circuitgraph.checks.subject import Subject
from circuitgraph.errors import ModelError
from circuitgraph.experiment import Experiment
from circuitgraph.lens.backend import backend_of
from tests.families.raw_hooks import RawModel, Sender
from tests.families.registry import FAMILIES, Family
from tests.families.table import PAGE, check_row, page, row_of, rows_on, special
from tests.families.wide import float64_throughout
from tests.golden import writing

REFUSED = {
    "BLOOM": "adds the residual stream to its own output",
    "MPT": "adds the residual stream to its own output",
    "GPT-1": "the residual stream of this model is no sum",
    "OPT, norms after adding": "this model cannot be run",
    "OPT-350m": "the residual stream of this model is no sum",
    "DeepSeek-V3": "no attention with separate q, k, v and o",
}
CHANGES_NOTHING = {"1 equal prompts", "1 equal sender", "untouched"}
EXACT = [family for family in FAMILIES if family.name not in REFUSED]

by_family = pytest.mark.parametrize("family", EXACT, ids=lambda family: family.name)


def tokens(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 37, (3, 7), generator=generator)


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, 3] - logits[:, -1, 5]


def tolerance(family: Family) -> float:
    return 1e-9 if family.dtype == torch.float64 else 3e-5


def as_exact_as_can_be(family: Family) -> AbstractContextManager[None]:
    """Where code allows float64 weights, float32 steps between them are taken in float64, too."""
    return float64_throughout() if family.dtype == torch.float64 else nullcontext()


@by_family
def test_every_check_holds(family: Family) -> None:
    """Fast == reference for every kind of request, and the properties; no fallback, no gap."""
    bridge, module = family.bridge(), family.module()
    with warnings.catch_warnings(), as_exact_as_can_be(family):
        warnings.simplefilter("error")  # no family may fall back to the reference engine
        results = list(run_checks(bridge, cells=2, n_prompts=2, n_pos=6))
        precision = measure_precision(backend_of(bridge), tokens(1))
    assert precision.float64_inside == (family.dtype == torch.float64)
    subject = Subject.of(bridge, *random_prompts(bridge, 2, 6), cells=1)
    shape, traits = subject.graph.shape, subject.answering.traits

    assert [r for r in results if r.status in ("failed", "refused")] == []
    left_out = {result.name for result in results if result.status == "left out"}
    expected = set() if shape.grouped else {"key-value heads", "12 groups"}
    expected |= {"MLPs"} if shape.attn_only else set()
    assert left_out == expected
    for result in results:
        if result.deviation is not None:
            assert result.deviation < tolerance(family), result
            assert result.effect > 1e-6 or result.name in CHANGES_NOTHING, result
    features = special(shape, traits, bridge, module)
    check_row(family.name, row_of(family.name, features, subject.precision, results))


IN_FLOAT32 = ("to logits, mlps", "keys", "5 all writers", "14 batch", "14 padding")


@by_family
def test_float32_steps_leave_what_the_page_says(family: Family) -> None:
    """As users run it: what float32 rounding inside a float64 model can be held to anywhere."""
    bridge = family.bridge()
    subject = Subject.of(bridge, *random_prompts(bridge, 2, 6), cells=1)
    if subject.precision.float64_inside or family.dtype != torch.float64:
        pytest.skip("has no float32 steps between float64 ones")
    results = list(run_checks(bridge, only=IN_FLOAT32, cells=1, n_prompts=2, n_pos=6))
    assert [result.name for result in results] == list(IN_FLOAT32)
    for result in results:
        assert result.status == "passed", result
        assert result.allowed == 1e-4
        assert result.effect > 1e-6


@by_family
def test_equals_raw_hooks_on_the_model_itself(family: Family) -> None:
    """Every kind of sender and of receiver, under both variants."""
    with as_exact_as_can_be(family):
        equals_raw_hooks(family, family.bridge())


@pytest.mark.parametrize("shape", [(4, 4), (5, 5), (1, 5), (2, 6)])
@pytest.mark.parametrize("name", ["Falcon, ALiBi", "GPT-2", "Llama"])
def test_as_many_prompts_as_tokens_or_heads(name: str, shape: tuple[int, int]) -> None:
    """Whatever the sizes are, one knows which axis of a block's arguments is which."""
    (family,) = (family for family in FAMILIES if family.name == name)
    clean, corrupt = (
        torch.randint(1, 37, shape, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    )
    with as_exact_as_can_be(family):
        raw = RawModel(family.module(), family.bridge())
        exp = Experiment(family.bridge(), clean, corrupt, metric, progress=False)
        for request, receiver in (("0.1 -> 2.2.q => logits", "q2.2"), ("0.1 -> logits", "logits")):
            theirs = metric(raw.patched(clean, corrupt, (0, 1), receiver, "mlps")).numpy()
            assert np.abs(theirs - exp.clean_metric).max() > 1e-4
            for engine in ("fast", "reference"):
                ours = exp.patch(request, engine=engine).data["patched"].values
                assert np.abs(ours - theirs).max() < 1e-9, (request, engine)


def equals_raw_hooks(family: Family, model: Any) -> None:
    """Compare a model with raw hooks; a bridge over the same lends the names of its parts."""
    bridge = family.bridge()
    exp = Experiment(model, tokens(3), tokens(4), metric, progress=False)
    raw = RawModel(family.module(), bridge)
    clean, corrupt = tokens(3), tokens(4)
    own = raw.run(clean)["logits"]
    with torch.no_grad():
        apart = (bridge(clean) - own).abs().max().item()
    scale = own.abs().max().item()
    allowed = tolerance(family) * scale + 50 * apart
    assert apart < 1e-4 * scale

    last_kv = raw.n_kv_heads - 1
    cases: list[tuple[str, Sender, str]] = [
        ("embed -> logits", None, "logits"),
        ("0.1 -> logits", (0, 1), "logits"),
        ("1.3 -> logits", (1, 3), "logits"),
        ("0.1 -> 2.2.q => logits", (0, 1), "q2.2"),
        ("embed -> 1.3.q => logits", None, "q1.3"),
        (f"0.1 -> 2.kv{last_kv}.k => logits", (0, 1), f"k2.{last_kv}"),
        (f"embed -> 1.kv{last_kv}.v => logits", None, f"v1.{last_kv}"),
    ]
    if exp.graph.mlps:
        cases += [
            ("mlp0 -> logits", 0, "logits"),
            ("mlp1 -> 2.1.q => logits", 1, "q2.1"),
            ("mlp0 -> 2.kv0.v => logits", 0, "v2.0"),
            ("0.1 -> mlp2 => logits", (0, 1), "mlp2"),
            ("mlp0 -> mlp1 => logits", 0, "mlp1"),
        ]
    for variant in ("mlps", "single-pass"):
        for request, sender, receiver in cases:
            theirs = metric(raw.patched(clean, corrupt, sender, receiver, variant)).double()
            for engine in ("fast", "reference"):
                ours = exp.patch(request, variant, engine=engine).data["patched"].values
                assert np.abs(ours - theirs.numpy()).max() < allowed, (request, variant, engine)
            assert np.abs(theirs.numpy() - exp.clean_metric).max() > 100 * tolerance(family)


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name in REFUSED], ids=lambda f: f.name)
def test_refused_by_name(family: Family) -> None:
    for self_check in (True, False):
        with pytest.raises(ModelError, match=REFUSED[family.name]):
            Experiment(family.bridge(), tokens(3), tokens(4), metric, self_check=self_check)
    (result,) = run_checks(family.bridge())
    assert result.status == "refused"
    assert REFUSED[family.name] in result.reason
    check_row(family.name, row_of(family.name, [], None, [result]))


@pytest.mark.skipif(writing(), reason="the page is being written, row by row")
def test_the_page_has_these_families_and_says_what_the_suite_would() -> None:
    text = PAGE.read_text(encoding="utf-8")
    rows = rows_on(text)
    assert list(rows) == [family.name for family in FAMILIES]
    assert text == page(rows)


PROCESSINGS = ("fold_ln", "fold_value_biases", "center_unembed", "center_writing_weights")


@pytest.mark.parametrize("processing", PROCESSINGS)
@by_family
def test_13_processed_weights_leave_effects_alone(family: Family, processing: str) -> None:
    """Where TransformerLens' processing leaves the model's own answers alone, which is everywhere."""
    if (family.name, processing) == ("gpt-oss", "fold_value_biases"):
        pytest.skip("TransformerLens cannot fold gpt-oss' value biases")
    if (family.name, processing) == ("OPT, projected words", "center_writing_weights"):
        pytest.skip("TransformerLens' centering changes this model's own answers")
    clean, corrupt = tokens(1), tokens(2)
    processed = family.new_bridge()
    options = dict.fromkeys(PROCESSINGS, False) | {processing: True}
    processed.enable_compatibility_mode(disable_warnings=True, **options)
    before, after = (
        Experiment(bridge, clean, corrupt, metric) for bridge in (family.bridge(), processed)
    )
    scale = np.abs(before.clean_metric - before.corrupt_metric).max()
    # A processed bridge takes its norms in float32.
    assert np.allclose(after.clean_metric, before.clean_metric, rtol=0, atol=1e-4 * scale)
    for request, variant in (
        ("head -> logits", "mlps"),
        ("{embed, 0.1} -> {1.1.k, 1.0.v} => logits", "single-pass"),
    ):
        one, other = (
            exp.patch(request, variant).data["patched"].to_numpy() for exp in (before, after)
        )
        assert np.allclose(one, other, rtol=0, atol=1e-4 * scale, equal_nan=True)
        assert np.nanmax(np.abs(one - before.clean_metric)) > 1e-3 * scale
