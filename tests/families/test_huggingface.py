"""Every family without TransformerLens: exact by the same checks, and the numbers of the bridge."""

import warnings
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.checks import run_checks
from circuitgraph.errors import ModelError
from circuitgraph.experiment import Experiment
from circuitgraph.graph import ModelGraph
from tests.families.registry import FAMILIES, Family
from tests.families.test_families import (
    CHANGES_NOTHING,
    EXACT,
    REFUSED,
    equals_raw_hooks,
    metric,
    tokens,
)
from tests.families.wide import float64_throughout

PLAIN = [family for family in EXACT if not family.is_native]
by_family = pytest.mark.parametrize("family", PLAIN, ids=lambda family: family.name)

REQUESTS = (
    ("node -> logits", "single-pass"),
    ("[embed, 0.1] -> [1.1.q, 2.2.k, 1.3.v] => logits", "mlps"),
)


def exactly(family: Family) -> AbstractContextManager[None]:
    return float64_throughout() if family.dtype == torch.float64 else nullcontext()


@by_family
def test_gives_the_numbers_of_the_bridge(family: Family) -> None:
    """Shape, clean run and effects; the fast engine on both."""
    bridge, module = family.bridge(), family.module()
    assert ModelGraph.from_model(module).shape == ModelGraph.from_model(bridge).shape
    with exactly(family):
        theirs, ours = (
            Experiment(model, tokens(3), tokens(4), metric, progress=False)
            for model in (bridge, module)
        )
        scale = np.abs(theirs.clean_metric - theirs.corrupt_metric).max()
        allowed = (1e-9 if family.dtype == torch.float64 else 1e-4) * scale
        assert np.abs(ours.clean_metric - theirs.clean_metric).max() < allowed
        for request, variant in REQUESTS:
            one, other = (
                exp.patch(request, variant).data["patched"].to_numpy() for exp in (theirs, ours)
            )
            assert np.allclose(one, other, rtol=0, atol=allowed, equal_nan=True), request
            assert np.nanmax(np.abs(other - theirs.clean_metric)) > 1e-3 * scale


ESTIMATORS = (cg.EAP(), cg.EAPIG(2), cg.EAPIG(2, path="activations"), cg.EAP(rules="relp"))


@pytest.mark.parametrize("name", ["GPT-2", "GPT-NeoX", "Llama", "Gemma 3"])
def test_estimates_are_those_of_the_bridge(name: str) -> None:
    """Every edge, each prompt."""
    family = next(one for one in PLAIN if one.name == name)
    with exactly(family):
        theirs, ours = (
            Experiment(model, tokens(3), tokens(4), metric, progress=False)
            for model in (family.bridge(), family.module())
        )
        for engine in ESTIMATORS:
            one, other = (
                exp.patch("node -> port => logits", "single-pass", engine=engine).difference()
                for exp in (theirs, ours)
            )
            scale = float(abs(one).max())
            assert scale > 1e-3
            within = 1e-9 if family.dtype == torch.float64 else 1e-4
            np.testing.assert_allclose(one, other, rtol=0, atol=within * scale, err_msg=str(engine))


SOME = ("keys", "longer paths", "positions", "5 all writers", "untouched")
FEW = ("GPT-NeoX", "OPT", "Falcon", "Gemma 3", "Phi-3")


@pytest.mark.parametrize(
    "family", [f for f in PLAIN if f.name in FEW], ids=lambda family: family.name
)
def test_some_checks_hold(family: Family) -> None:
    """Of each kind of block one family: fused projections, parallel, MLPs without a module, norms."""
    holds_by_checks(family, SOME)


@pytest.mark.large
@by_family
def test_every_check_holds(family: Family) -> None:
    holds_by_checks(family, None)


def holds_by_checks(family: Family, only: tuple[str, ...] | None) -> None:
    module = family.module()
    with warnings.catch_warnings(), exactly(family):
        warnings.simplefilter("error")  # no family may fall back to the reference engine
        results = list(run_checks(module, only=only, cells=1 if only else 2, n_prompts=2, n_pos=6))
    assert [r for r in results if r.status in ("failed", "refused")] == []
    assert len(results) == (len(only) if only else 38)
    for result in results:
        if result.deviation is not None:
            assert result.deviation < (1e-9 if family.dtype == torch.float64 else 3e-5), result
            assert result.effect > 1e-6 or result.name in CHANGES_NOTHING, result


@pytest.mark.large
@by_family
def test_equals_raw_hooks(family: Family) -> None:
    """Every kind of sender and of receiver, by hooks that know neither library."""
    with exactly(family):
        equals_raw_hooks(family, family.module())


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name in REFUSED], ids=lambda f: f.name)
def test_refused_by_name(family: Family) -> None:
    """The bridge cannot be run on one of them; the model itself can, and its stream is no sum."""
    reason = REFUSED[family.name].replace("this model cannot be run", "this model is no sum")
    with pytest.raises(ModelError, match=reason):
        Experiment(family.module(), tokens(3), tokens(4), metric)
