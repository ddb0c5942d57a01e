"""The checks themselves: that they catch what is wrong, and say what they cannot do.

That they hold on every family is in tests/families.
"""

import pytest
import torch

from circuitgraph.checks import CHECKS, checks_named, random_prompts, run_checks
from circuitgraph.checks.footprint import Footprint
from circuitgraph.checks.precision import measure_precision
from circuitgraph.checks.subject import Subject
from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.fast import FastEngine
from circuitgraph.errors import ModelError, PromptError, RequestError
from circuitgraph.lens.backend import backend_of
from tests.models import tiny_attn_only, tiny_gpt2, tiny_llama


def results_of(bridge, *names, **options):
    return {result.name: result for result in run_checks(bridge, only=names, cells=1, **options)}


class TestCatch:
    def test_a_fast_engine_that_is_a_little_off(self, monkeypatch):
        true = FastEngine.run_schedule
        monkeypatch.setattr(
            FastEngine, "run_schedule", lambda self, schedule: true(self, schedule) * (1 + 1e-6)
        )
        for result in results_of(
            tiny_gpt2().bridge, "queries", "mode add", "5 all writers"
        ).values():
            assert result.status == "failed"
            assert 1e-8 < result.deviation < 1e-4
            assert "differs by" in result.reason
            assert "allowed is 1e-09" in result.reason

    def test_engines_that_are_wrong_alike(self, monkeypatch):
        """Two engines that agree are not enough: here both patch in zeros."""

        def zero(self, request, variant="mlps", mode="set"):
            return compile_request(self.graph, request, variant, mode=mode, source="zero")

        monkeypatch.setattr(Subject, "plan", zero)
        results = results_of(tiny_gpt2().bridge, "queries", "5 all writers")
        assert results["queries"].status == "passed"
        assert results["5 all writers"].status == "failed"

    def test_a_position_that_leaks(self, monkeypatch):
        from circuitgraph.engines.setup import PositionTable

        monkeypatch.setattr(PositionTable, "mask", lambda self, at: None)
        assert results_of(tiny_gpt2().bridge, "positions")["positions"].status == "failed"

    def test_an_exception_of_a_foreign_module(self, monkeypatch):
        def broken(*_, **__):
            raise ZeroDivisionError("a module of one's own")

        monkeypatch.setattr(FastEngine, "run_schedule", broken)
        result = results_of(tiny_gpt2().bridge, "queries")["queries"]
        assert result.status == "failed"
        assert result.reason == "ZeroDivisionError: a module of one's own"

    def test_numbers_that_are_none(self, monkeypatch):
        true = FastEngine.run_schedule
        monkeypatch.setattr(
            FastEngine, "run_schedule", lambda self, schedule: true(self, schedule) * torch.nan
        )
        result = results_of(tiny_gpt2().bridge, "queries")["queries"]
        assert result.status == "failed"
        assert "differs by nan" in result.reason


class TestFootprint:
    def test_says_what_changed(self):
        bridge = tiny_gpt2().new_bridge().eval()
        before = Footprint.of(bridge)
        assert list(before.changes(Footprint.of(bridge))) == []
        with torch.no_grad():
            next(bridge.parameters())[0] += 1e-12
        bridge.blocks[1].train()
        with bridge.hooks(fwd_hooks=[("blocks.0.hook_in", lambda value, hook: value)]):
            told = list(before.changes(Footprint.of(bridge)))
        assert [line.partition(" at ")[0] for line in told] == [
            "the weights changed",
            "hooks stayed behind",
            "modules changed between training and evaluation",
        ]
        assert "blocks.1" in told[2]

    def test_says_that_random_numbers_were_drawn(self):
        bridge = tiny_gpt2().bridge
        with torch.random.fork_rng():
            before = Footprint.of(bridge)
            torch.rand(1)
            assert list(before.changes(Footprint.of(bridge))) == [
                "torch's global random state moved"
            ]


class TestPrompts:
    def test_are_aligned_and_differ_everywhere_but_at_the_first_token(self):
        clean, corrupt = random_prompts(tiny_gpt2().bridge, n_prompts=4, n_pos=9, seed=2)
        assert clean.shape == corrupt.shape == (4, 9)
        assert ((clean == corrupt).sum(dim=1) == 1).all()
        assert (clean[:, 0] == corrupt[:, 0]).all()

    def test_are_no_longer_than_the_model_takes(self):
        bridge = tiny_gpt2().bridge
        assert random_prompts(bridge, n_pos=1000)[0].shape[1] == bridge.cfg.n_ctx

    @pytest.mark.parametrize("shape", [(0, 5), (2, 1)])
    def test_too_few(self, shape):
        with pytest.raises(PromptError, match="at least one prompt of at least two tokens"):
            random_prompts(tiny_gpt2().bridge, *shape)

    def test_of_ones_own(self):
        clean, corrupt = random_prompts(tiny_gpt2().bridge, n_prompts=1, seed=5)
        names = ("keys", "14 batch")
        results = {r.name: r for r in run_checks(tiny_gpt2().bridge, clean, corrupt, only=names)}
        assert results["keys"].status == "passed"
        assert results["14 batch"].reason == "there is only one prompt"

    def test_only_one_of_the_two(self):
        clean, _ = random_prompts(tiny_gpt2().bridge)
        with pytest.raises(RequestError, match="no corrupt prompts: give both clean and corrupt"):
            list(run_checks(tiny_gpt2().bridge, clean))


class TestPrecision:
    @pytest.mark.parametrize(("make", "exact"), [(tiny_gpt2, True), (tiny_llama, False)])
    def test_is_found_on_the_model_itself(self, make, exact):
        bridge = make().bridge
        found = measure_precision(backend_of(bridge), random_prompts(bridge)[0])
        assert found.float64_inside is exact
        assert found.allowed == (1e-9 if exact else 1e-4)


class TestRefusals:
    def test_a_model_that_is_none(self):
        (result,) = run_checks(torch.nn.Linear(2, 2), torch.ones(1, 2), torch.ones(1, 2))
        assert (result.name, result.status) == ("model", "refused")
        assert "Linear is no TransformerBridge" in result.reason

    def test_a_model_in_training(self):
        bridge = tiny_gpt2().new_bridge().train()
        (result,) = run_checks(bridge)
        assert result.status == "refused"
        assert "call model.eval()" in result.reason

    def test_what_the_model_has_not(self):
        names = ("MLPs", "12 groups", "8 replace, all edges")
        results = results_of(tiny_attn_only().bridge, *names)
        assert results["MLPs"].reason == "the model has no MLPs"
        assert results["12 groups"].status == "left out"
        assert results["8 replace, all edges"].status == "passed"

    def test_a_check_that_is_none(self):
        with pytest.raises(RequestError, match="no check 'query': .*; did you mean 'queries'"):
            checks_named(["query"])
        assert checks_named() is CHECKS
        assert len({check.name for check in CHECKS}) == len(CHECKS)

    def test_a_request_refused_by_name_is_told_as_such(self, monkeypatch):
        def refuse(*_):
            raise ModelError("not on this model")

        monkeypatch.setattr(FastEngine, "cannot", refuse)
        result = results_of(tiny_gpt2().bridge, "queries")["queries"]
        assert (result.status, result.reason) == ("refused", "not on this model")
