"""On every family: fast == reference == the three steps with raw hooks, or refused by name."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch

from circuitgraph.errors import ModelError
from circuitgraph.experiment import Experiment
from tests.families.raw_hooks import RawModel
from tests.families.registry import FAMILIES, Family

REFUSED = {
    "BLOOM": "adds the residual stream to its own output",
    "MPT": "adds the residual stream to its own output",
    "DeepSeek-V3": "no attention with separate q, k, v and o",
}
JOINT_QUERIES = ("GPT-2", "GPT-NeoX", "GPT-NeoX, sequential", "Falcon", "Phi-3")
NORM_OVER_HEADS = ("OLMo 2",)
REQUESTS = (
    "head -> logits",
    "node -> logits",
    "0.1 -> head.q => logits",
    "0.1 -> head.k => logits",
    "0.2 -> head.v => logits",
    "0.0 -> mlp => logits",
    "{embed, 0.1, mlp1} -> {2.1.v, mlp2} => logits",
    "0.1 -> 1.2.v -> 2.1.q -> logits",
    "head => logits",
    "0.0@b -> 2.1.q@b => logits",
    "mlp1@a => logits",
)
EXACT = [family for family in FAMILIES if family.name not in REFUSED]


def tokens(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 37, (3, 7), generator=generator)


def metric(logits: torch.Tensor) -> torch.Tensor:
    return logits[:, -1, 3] - logits[:, -1, 5]


def experiment(family: Family) -> Experiment:
    positions = {"a": [1, 2, 1], "b": [4, 4, 2]}
    return Experiment(family.bridge(), tokens(3), tokens(4), metric, positions, progress=False)


def tolerance(family: Family) -> float:
    return 1e-9 if family.dtype == torch.float64 else 3e-5


def ids(family: Family) -> str:
    return family.name


@pytest.mark.parametrize("family", EXACT, ids=ids)
def test_fast_equals_reference(family: Family) -> None:
    exp = experiment(family)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # no family may fall back to the reference engine
        for request in REQUESTS:
            for variant in ("mlps", "single-pass"):
                fast = exp.patch(request, variant).data["patched"].values
                slow = exp.patch(request, variant, engine="reference").data["patched"].values
                scale = np.nanmax(np.abs(slow))
                assert np.nanmax(np.abs(fast - slow)) < tolerance(family) * scale, (
                    request,
                    variant,
                )


@pytest.mark.parametrize("family", EXACT, ids=ids)
def test_equals_raw_hooks_on_the_model_itself(family: Family) -> None:
    exp = experiment(family)
    raw = RawModel(family.module(), family.bridge())
    clean, corrupt = tokens(3), tokens(4)
    with torch.no_grad():
        apart = (family.bridge()(clean) - raw.run(clean)["logits"]).abs().max().item()
    scale = raw.run(clean)["logits"].abs().max().item()
    allowed = tolerance(family) * scale + 50 * apart
    assert apart < 1e-4 * scale

    def check(request: str, variant: str, theirs: Any) -> None:
        ours = exp.patch(request, variant).data["patched"].values
        assert np.abs(ours - metric(theirs).double().numpy()).max() < allowed, (request, variant)

    for variant in ("mlps", "single-pass"):
        check("0.1 -> logits", variant, raw.to_logits(clean, corrupt, (0, 1), variant))
        check("1.3 -> logits", variant, raw.to_logits(clean, corrupt, (1, 3), variant))
        check("mlp0 -> logits", variant, raw.to_logits(clean, corrupt, 0, variant))
        if family.name not in (*JOINT_QUERIES, *NORM_OVER_HEADS):
            theirs = raw.to_query(clean, corrupt, (0, 1), (2, 2), variant)
            check("0.1 -> 2.2.q => logits", variant, theirs)


@pytest.mark.parametrize("family", EXACT, ids=ids)
def test_everything_patched_is_the_corrupt_run(family: Family) -> None:
    """Properties 5 and 8 of what a patch means, and 1."""
    exp = experiment(family)
    corrupt = exp.corrupt_metric
    writers = "{" + ", ".join(map(str, exp.graph.writers)) + "}"
    heads = "{embed, " + ", ".join(map(str, exp.graph.heads)) + "}"
    limit = 10 * tolerance(family) * max(1.0, np.abs(corrupt).max())
    single = exp.patch(f"{writers} -> logits", "single-pass").data["patched"].values
    assert np.abs(single - corrupt).max() < limit
    through = exp.patch(f"{heads} -> logits", "mlps").data["patched"].values
    assert np.abs(through - corrupt).max() < limit


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.name in REFUSED], ids=ids)
def test_refused_by_name(family: Family) -> None:
    with pytest.raises(ModelError, match=REFUSED[family.name]):
        experiment(family)
