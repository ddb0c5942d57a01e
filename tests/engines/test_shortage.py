"""Memory that runs out at any operation: the same numbers as without, or one error of ours."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import circuitgraph as cg
from circuitgraph.engines.fast.engine import _KNOWN_TRAITS
from circuitgraph.errors import CircuitGraphError, OutOfMemoryError
from circuitgraph.lens.additivity import _PROVED
from tests.engines.cases import MODELS

KINDS: tuple[Callable[[], Exception], ...] = (
    lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
    lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:118] data. DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 9 bytes. Error code 12 (Cannot allocate memory)"
    ),
    lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    lambda: RuntimeError("MPS backend out of memory (MPS allocated: 18.00 GB)"),
    MemoryError,
)


class Failing(TorchDispatchMode):
    """Counts operations and raises at one of them.

    ``for_good``: at every product of matrices from then on, which no engine does without.
    """

    def __init__(self, at: int, error: Callable[[], Exception], for_good: bool = False) -> None:
        super().__init__()
        self.seen, self.at, self.error, self.for_good = 0, at, error, for_good

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen += 1
        lasting = self.for_good and self.seen > self.at and "mm" in str(func)
        if lasting or (self.seen - 1 == self.at and not self.for_good):
            raise self.error()
        return func(*args, **(kwargs or {}))


def job(model: str, engine: Any, source: Any, request: str, mode: Any) -> Callable[[], np.ndarray]:
    """Everything from a model to numbers, as a user would do it; nothing is known before."""
    tiny = MODELS[model]()
    clean, corrupt = tiny.tokens(3, 5, seed=1), tiny.tokens(3, 5, seed=2)
    dataset = tiny.tokens(4, 5, seed=3) if source == "mean" else None

    def run() -> np.ndarray:
        for known in (_KNOWN_TRAITS, _PROVED):
            known.clear()
        exp = cg.Experiment(tiny.bridge, clean, corrupt, cg.LogitDiff([1, 2, 3], [4, 5, 6]))
        effects = exp.patch(
            request, "single-pass", mode, engine=engine, source=source, dataset=dataset
        )
        found = effects.data
        return np.concatenate([found[name].to_numpy().ravel() for name in found])

    return run


JOBS = {
    "fast": ("gpt2", "fast", "corrupt", "0.0 -> {1.0.v, 1.1.q} => logits", "set"),
    "reference": ("gpt2", "reference", "corrupt", "0.0 -> 1.0.q => logits", "set"),
    "mean": ("llama", "fast", "mean", "mlp -> logits", "set"),
    "replace": ("gemma2", "fast", "corrupt", "{0.0, 0.1} -> 1.0.k => logits", "replace"),
    "estimate": ("gpt2", cg.EAP(), "corrupt", "0.0 -> {1.0.v, 1.1.q} => logits", "set"),
}


@pytest.mark.parametrize(
    ("name", "points"),
    [("fast", 2), ("reference", 1), ("estimate", 2)]
    + [pytest.param(name, 200, marks=pytest.mark.large) for name in JOBS],
)
def test_memory_that_runs_out_anywhere_changes_no_number(name: str, points: int) -> None:
    run = job(*JOBS[name])
    expected = run()
    assert np.isfinite(expected).any()
    with Failing(-1, MemoryError) as count:
        assert np.array_equal(run(), expected, equal_nan=True)
    generator = np.random.default_rng(len(name))
    for number, at in enumerate(generator.integers(0, count.seen, points)):
        with Failing(int(at), KINDS[number % len(KINDS)]) as failing:
            try:
                found = run()
            except CircuitGraphError as error:
                # Only before any prompt is run is there nothing to split.
                assert isinstance(error, OutOfMemoryError), (at, error)
                assert "memory_budget" in str(error)
                assert "before any prompt was run" in str(error)
                continue
        assert failing.seen > at
        assert np.allclose(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True), (name, at)


@pytest.mark.parametrize(
    ("kind", "engine"),
    [(1, "fast"), (0, "reference"), (3, cg.EAP())]
    + [
        pytest.param(kind, engine, marks=pytest.mark.large)
        for kind in range(len(KINDS))
        for engine in ("fast", "reference", cg.EAP())
    ],
)
def test_what_cannot_be_split_further_is_one_error(kind: int, engine: Any) -> None:
    tiny = MODELS["gpt2"]()
    clean, corrupt = tiny.tokens(3, 5, seed=1), tiny.tokens(3, 5, seed=2)
    exp = cg.Experiment(tiny.bridge, clean, corrupt, cg.LogitDiff([1, 2, 3], [4, 5, 6]))
    expected = exp.patch("head -> logits", engine=engine).data["patched"].to_numpy()
    with (
        Failing(40, KINDS[kind], for_good=True),
        pytest.raises(OutOfMemoryError, match="one prompt was run at a time: .* memory_budget"),
    ):
        exp.patch("head -> 1.0.v => logits", engine=engine)
    # Memory is there again: the experiment goes on.
    found = exp.patch("head -> logits", engine=engine).data["patched"].to_numpy()
    assert np.allclose(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


class Gone(TorchDispatchMode):
    """No operation has memory from one on: not even what a handler would do."""

    def __init__(self, at: int, error: Callable[[], Exception]) -> None:
        super().__init__()
        self.left, self.error = at, error

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.left -= 1
        if self.left < 0:
            raise self.error()
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_memory_that_never_comes_back_is_one_error(kind: int, engine: Any) -> None:
    tiny = MODELS["gpt2"]()
    clean, corrupt = tiny.tokens(3, 5, seed=1), tiny.tokens(3, 5, seed=2)
    exp = cg.Experiment(tiny.bridge, clean, corrupt, cg.LogitDiff([1, 2, 3], [4, 5, 6]))
    for at in (3, 60):
        with (
            Gone(at, KINDS[kind]),
            pytest.raises(OutOfMemoryError, match=r"memory ran out .* memory_budget"),
        ):
            exp.patch("head -> 1.0.v => logits", engine=engine)


def test_a_metric_of_all_prompts_is_not_split() -> None:
    tiny = MODELS["gpt2"]()
    clean, corrupt = tiny.tokens(3, 5, seed=1), tiny.tokens(3, 5, seed=2)
    exp = cg.Experiment(tiny.bridge, clean, corrupt, lambda logits: logits[:, -1, 0])
    with (
        Failing(40, MemoryError, for_good=True),
        pytest.raises(OutOfMemoryError, match="3 prompts cannot be split: .* memory_budget"),
    ):
        exp.patch("head -> logits")


def test_a_users_metric_that_runs_out_of_memory_is_no_wrong_metric() -> None:
    tiny, left = MODELS["gpt2"](), [0]

    def metric(logits: torch.Tensor) -> torch.Tensor:
        left[0] -= 1
        if left[0] == 0:
            raise KINDS[0]()
        return logits[:, -1, 0]

    clean, corrupt = tiny.tokens(3, 5, seed=1), tiny.tokens(3, 5, seed=2)
    exp = cg.Experiment(tiny.bridge, clean, corrupt, metric)
    left[0] = 1
    with pytest.raises(OutOfMemoryError, match="cannot be split"):
        exp.patch("head -> logits", engine="reference")
