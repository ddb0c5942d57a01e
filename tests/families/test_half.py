"""Families in half precision: both engines answer, alike, and what changes nothing gives nothing."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from circuitgraph.errors import UnsupportedError
from circuitgraph.experiment import Experiment
from circuitgraph.metrics import LogitDiff, Rank
from tests.families.registry import FAMILIES, Family
from tests.families.test_families import EXACT

HALVES = (torch.bfloat16, torch.float16)
REQUESTS = (
    ("[0.1, embed] -> logits", "mlps", "set"),
    ("{embed, 0.1} -> [2.2.q, 1.1.k] => logits", "mlps", "set"),
    ("0.1 -> 1.1.v -> logits", "single-pass", "set"),
    ("0.1 -> 1.1.v, embed -> 2.0.k => logits", "single-pass", "replace"),
)
NOTHING = (
    "{embed, 0.1}@1 -> logits",
    "{embed, 0.1}@1 => logits",
    "{embed, 0.1}@1 -> 2.2.k => logits",
)
"""Clean and corrupt prompts are the same up to there."""


def prompts() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    clean, other = (torch.randint(1, 37, (3, 7), generator=generator) for _ in range(2))
    return clean, torch.cat([clean[:, :3], other[:, 3:]], dim=1)


def answers_alike(family: Family, dtype: torch.dtype, steps: float = 0) -> None:
    """Compare both engines; what changes nothing may move by some steps of the type."""
    clean, corrupt = prompts()
    model = replace(family, dtype=dtype).new_bridge()
    metric = LogitDiff([3] * 3, [5] * 3, position=[6] * 3)
    exp = Experiment(model, clean, corrupt, metric, progress=False)
    scale = np.abs(exp.clean_metric - exp.corrupt_metric).max()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some fall back to the reference engine
        for request, variant, mode in REQUESTS:
            fast, reference = (
                exp.patch(request, variant, mode, engine=engine).data["patched"].to_numpy()
                for engine in ("fast", "reference")
            )
            assert np.abs(fast - reference).max() < 0.1 * scale, request
        for request in NOTHING:
            for engine in ("fast", "reference"):
                found = exp.patch(request, engine=engine).data
                clean_metric = found["clean"].to_numpy()
                moved = np.abs(found["patched"].to_numpy() - clean_metric).max()
                largest = max(1.0, np.abs(clean_metric).max())
                assert moved <= steps * torch.finfo(dtype).eps * largest, request


@pytest.mark.parametrize("name", ["OLMo 2", "Gemma 2", "GPT-2"])
def test_in_bfloat16(name: str) -> None:
    """OLMo 2 rotates its keys in float32 and attends to values that its cache has widened."""
    (family,) = (family for family in FAMILIES if family.name == name)
    answers_alike(family, torch.bfloat16)


@pytest.mark.large
@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("family", EXACT, ids=lambda family: family.name)
def test_every_family(family: Family, dtype: torch.dtype) -> None:
    answers_alike(family, dtype, steps=2)


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_ranks_are_whole_numbers_beyond_what_bfloat16_counts(engine: str) -> None:
    """bfloat16 knows no 257: a rank is counted in a type that does."""
    (family,) = (family for family in FAMILIES if family.name == "GPT-2")
    wide = replace(family, dtype=torch.bfloat16, options={**family.options, "vocab_size": 3001})
    model = wide.new_bridge()
    clean, corrupt = prompts()
    with torch.no_grad():
        order = model(clean)[:, -1].float().argsort(dim=-1, descending=True, stable=True)
    answer = order[:, 1111]
    exp = Experiment(
        model,
        clean,
        corrupt,
        Rank(answer, position=[6] * 3),
        allow_no_difference=True,
        progress=False,
    )
    found = exp.patch("{embed, 0.1}@1 => logits", engine=engine).data
    with torch.no_grad():
        logits = model(clean)[:, -1].float()
    above = (logits > logits.gather(1, answer[:, None])).sum(dim=1).numpy()
    assert above.max() > 1000
    assert (found["patched"].to_numpy() == above).all()
    assert (found["clean"].to_numpy() == above).all()


def test_autocast_is_refused_by_both_engines_before_any_pass() -> None:
    (family,) = (family for family in FAMILIES if family.name == "GPT-2")
    model, (clean, corrupt) = replace(family, dtype=torch.float32).new_bridge(), prompts()
    metric = LogitDiff([3] * 3, [5] * 3, position=[6] * 3)
    exp = Experiment(model, clean, corrupt, metric, progress=False)
    with torch.autocast("cpu", torch.bfloat16):
        for engine in ("fast", "reference"):
            with pytest.raises(UnsupportedError, match="torch.autocast is on"):
                exp.patch("0.1 -> logits", engine=engine)
        with pytest.raises(UnsupportedError, match="torch.autocast is on"):
            Experiment(model, clean, corrupt, metric)
