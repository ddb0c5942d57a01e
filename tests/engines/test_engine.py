"""The seam: whoever answers a plan measures clean, corrupt and patched runs by itself."""

import functools
import pickle
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import circuitgraph as cg
from circuitgraph.engines.choice import Fast, Reference, choose_engine
from circuitgraph.engines.engine import Engine, EngineChoice, EngineOptions, MeasuredCells
from circuitgraph.engines.setup import Setup
from circuitgraph.errors import RequestError
from circuitgraph.plan import Plan
from tests import models

ANSWERS = [1, 2, 3], [4, 5, 6]


@functools.cache
def half(model: str) -> Any:
    """A tiny model in bfloat16."""
    return getattr(models, f"tiny_{model}")().new_bridge().to(torch.bfloat16)


def first_token_shared() -> tuple[Tensor, Tensor]:
    """Prompts that differ from the second token on: nothing at the first position changes."""
    tiny = models.tiny_gpt2()
    clean, corrupt = tiny.tokens(seed=1), tiny.tokens(seed=2)
    corrupt[:, 0] = clean[:, 0]
    return clean, corrupt


def experiment(model: Any, **options: Any) -> cg.Experiment:
    clean, corrupt = first_token_shared()
    return cg.Experiment(model, clean, corrupt, cg.LogitDiff(*ANSWERS), progress=False, **options)


# -- one engine, one arithmetic --------------------------------------------------------------------

NOTHING = ["0.1@0 -> 1.0.k@0 => logits", "[0.1, embed]@0 => logits", "mlp0@0 -> 2.1.v@0 => logits"]


@pytest.mark.parametrize("model", ["gpt2", "gemma2"])
@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("request_", NOTHING)
def test_what_changes_nothing_has_no_effect_in_half_precision(
    model: str, engine: Any, request_: str
) -> None:
    effects = experiment(half(model)).patch(request_, engine=engine)
    patched, clean = effects.data["patched"].to_numpy(), effects.data["clean"].to_numpy()
    np.testing.assert_array_equal(patched, np.broadcast_to(clean, patched.shape))
    assert (effects.normalized().to_numpy() == 0).all()


@pytest.mark.parametrize("model", ["gpt2", "gemma2"])
def test_a_fallback_measures_everything_by_itself(model: str) -> None:
    """In mode `replace` through an MLP the reference engine answers for the fast one."""
    exp = experiment(half(model))
    asked = "0.1@0 -> 2.1.v@0 => logits", cg.Through([cg.MLP(0)]), "replace"
    with pytest.warns(UserWarning, match="the reference engine runs"):
        effects = exp.patch(*asked)
    assert effects.attrs["engine"] == "reference"
    assert effects == exp.patch(*asked, engine="reference")
    np.testing.assert_array_equal(effects.data["patched"], effects.data["clean"])


def test_the_reference_engine_measures_what_the_model_gives() -> None:
    """In bfloat16 the model's own logits are coarse; their difference is taken in float32."""
    model = half("gpt2")
    effects = experiment(model).patch("0.1 -> logits", engine="reference")
    rows = torch.arange(3)
    for name, tokens in zip(("clean", "corrupt"), first_token_shared(), strict=True):
        with torch.no_grad():
            logits = model(tokens)[rows, -1].float()
        expected = (logits[rows, ANSWERS[0]] - logits[rows, ANSWERS[1]]).double()
        np.testing.assert_array_equal(effects.data[name], expected.numpy())


def test_chunks_fall_back_together() -> None:
    """Some prompts at a time, each measured by reference engines, are all of them at once."""
    model = models.tiny_gemma2().bridge
    asked = "0.1@0 -> 2.1.v@0 => logits", cg.Through([cg.MLP(0)]), "replace"
    with pytest.warns(UserWarning, match="the reference engine runs"):
        parts = experiment(model, memory_budget=1).patch(*asked)
    assert parts.attrs["engine"] == "reference"
    whole = experiment(model).patch(*asked, engine="reference")
    for name in ("clean", "corrupt", "patched"):
        np.testing.assert_allclose(parts.data[name], whole.data[name], rtol=0, atol=1e-6)


def test_engines_of_different_arithmetic_can_be_compared() -> None:
    compared = experiment(half("gpt2")).compare("head => logits", engines=("fast", "reference"))
    assert compared.names == ("fast", "reference")


# -- an engine of one's own ------------------------------------------------------------------------


@dataclass(frozen=True)
class Constant:
    """An engine that answers every cell with one number."""

    answer: float
    is_estimate: bool = True

    @property
    def name(self) -> str:
        return f"constant {self.answer}"

    def prepare(self, setup: Setup, options: EngineOptions) -> Any:
        return ConstantEngine(setup, self)


@dataclass
class ConstantEngine:
    setup: Setup
    choice: Constant

    @property
    def name(self) -> str:
        return self.choice.name

    @property
    def clean_metric(self) -> Tensor:
        return torch.ones(self.setup.n_prompts)

    @property
    def corrupt_metric(self) -> Tensor:
        return torch.zeros(self.setup.n_prompts)

    def answering(self, plan: Plan) -> "ConstantEngine":
        return self

    def with_setup(self, setup: Setup) -> "ConstantEngine":
        return ConstantEngine(setup, self.choice)

    def run(self, plan: Plan) -> Iterator[MeasuredCells]:
        """One prompt after another."""
        for prompt in range(self.setup.n_prompts):
            values = torch.full((len(plan.cells), 1), self.choice.answer)
            yield MeasuredCells(range(len(plan.cells)), slice(prompt, prompt + 1), values)


def test_an_engine_is_given_as_a_value() -> None:
    exp = experiment(models.tiny_gpt2().bridge)
    effects = exp.patch("head -> logits", engine=Constant(0.25))
    assert effects.attrs["engine"] == "constant 0.25"
    assert effects.attrs["estimate"] is True
    np.testing.assert_array_equal(effects.normalized(), np.full((3, 3), -0.75))
    assert "estimate" not in exp.patch("head -> logits").attrs
    assert exp.patch("0.1 -> logits", engine=Fast()) == exp.patch("0.1 -> logits")


def test_engines_are_compared_by_name() -> None:
    exp = experiment(models.tiny_gpt2().bridge)
    exact = Constant(1.0, is_estimate=False), Constant(2.0, is_estimate=False)
    assert exp.compare("head => logits", engines=exact).names == ("constant 1.0", "constant 2.0")
    with pytest.raises(RequestError, match="engines names constant 1.0 twice"):
        exp.compare("head => logits", engines=(Constant(1.0), Constant(1.0)))


def test_choices_are_values() -> None:
    for choice in (Fast(), Reference()):
        assert isinstance(choice, EngineChoice)
        assert pickle.loads(pickle.dumps(choice)) == choice
        assert choose_engine(choice.name) == choice
        setup = experiment(models.tiny_gpt2().bridge)._setup
        engine = choice.prepare(setup, EngineOptions())
        assert isinstance(engine, Engine)
        assert engine.name == choice.name


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("slow", "no engine 'slow': write one of fast, reference"),
        (Constant, "engine=Constant is a class: make a value of it"),
        (None, "no engine None: write one of fast, reference"),
        (["fast"], r"no engine \['fast'\]"),
    ],
)
def test_what_is_no_engine(wrong: Any, message: str) -> None:
    exp = experiment(models.tiny_gpt2().bridge)
    with pytest.raises(RequestError, match=message):
        exp.patch("0.1 -> logits", engine=wrong)
