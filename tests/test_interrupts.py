"""Threads that share a model, and interrupts anywhere: nothing of ours stays on the model."""

import copy
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.lens import guard, modules
from circuitgraph.lens.guard import guarded
from circuitgraph.lens.modules import Replacement
from tests import models
from tests.engines.cases import MODELS

REQUEST = "[0.1, mlp0] -> {1.1.q, 2.0.v} => logits"
CLEAN = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
CORRUPT = torch.tensor([[3, 1, 8, 1, 5], [9, 2, 7, 5, 3]])
METRIC = cg.LogitDiff([1, 2], [3, 4])
REFERENCE = "circuitgraph/engines/reference.py"


def patched(exp: cg.Experiment, engine: Any = "fast") -> Any:
    return exp.patch(REQUEST, engine=engine).data["patched"].to_numpy()


def leftovers(bridge: Any) -> list[str]:
    """Replaced forwards and hooks on any module of a model."""
    found = []
    for name, module in [*bridge.named_modules(), *bridge.original_model.named_modules()]:
        held = vars(module)
        if isinstance(held.get("forward"), Replacement):
            found.append(f"forward of {name}")
        if held["_forward_pre_hooks"] or held["_forward_hooks"] or held.get("fwd_hooks"):
            found.append(f"hooks of {name}")
    return found


@pytest.mark.parametrize("plain", [False, True], ids=["bridge", "Hugging Face"])
def test_one_thread_patches_while_another_makes_experiments(plain: bool) -> None:
    tiny = models.tiny_gpt2()
    model = copy.deepcopy(tiny.hf) if plain else tiny.new_bridge()
    exp = cg.Experiment(model, CLEAN, CORRUPT, METRIC, progress=False)
    expected = patched(exp)
    wrong: list[Any] = []

    def make() -> None:
        for _ in range(12):
            try:
                cg.Experiment(model, CORRUPT.flip(1), CLEAN.flip(1), METRIC, progress=False)
            except Exception as error:  # noqa: BLE001  # whatever it is
                wrong.append(error)

    maker = threading.Thread(target=make)
    maker.start()
    while maker.is_alive():
        try:
            if not np.allclose(patched(exp), expected, rtol=1e-9, atol=1e-9, equal_nan=True):
                wrong.append("another number")
        except Exception as error:  # noqa: BLE001  # whatever it is
            wrong.append(error)
    maker.join()
    assert not wrong


def test_two_threads_on_one_model() -> None:
    """Two experiments on other prompts: each gets its own numbers, 40 times each."""
    bridge = models.tiny_gpt2().new_bridge()
    exps = [
        cg.Experiment(bridge, CLEAN, CORRUPT, METRIC),
        cg.Experiment(bridge, CORRUPT.flip(1), CLEAN.flip(1), METRIC),
    ]
    before = leftovers(bridge)
    expected = [patched(exp, "reference") for exp in exps]
    assert not np.allclose(*expected)
    wrong: list[Any] = []
    start = threading.Barrier(2)

    def work(number: int) -> None:
        start.wait()
        try:
            for turn in range(40):
                engine = "reference" if turn % 10 == 0 else "fast"
                found = patched(exps[number], engine)
                if not np.allclose(found, expected[number], atol=1e-9):
                    wrong.append((number, turn, found))
        except BaseException as error:  # noqa: BLE001  # a thread's errors are nobody's otherwise
            wrong.append(error)

    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(switch)
    assert not wrong
    assert leftovers(bridge) == before


@contextmanager
def interrupted(files: tuple[str, ...], at: int, error: type[BaseException]) -> Iterator[list[int]]:
    """Raise an error before the ``at``-th line that runs in some files; -1 for never."""
    count = [0]

    def line(frame: FrameType, event: str, _: Any) -> Any:
        if event == "line":
            if count[0] == at:
                count[0] += 1
                raise error
            count[0] += 1
        return line

    def call(frame: FrameType, event: str, _: Any) -> Any:
        return line if frame.f_code.co_filename.endswith(files) else None

    before = sys.gettrace()
    sys.settrace(call)
    try:
        yield count
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("points", [50, pytest.param(500, marks=pytest.mark.large)])
def test_an_interrupt_anywhere_leaves_nothing_behind(engine: str, points: int) -> None:
    """An exception at many lines of what replaces, hooks and locks; then a patch is right.

    Memory that runs out is no exception to the user: the patch goes on with fewer prompts.
    """
    bridge = models.tiny_gpt2().new_bridge()
    exp = cg.Experiment(bridge, CLEAN, CORRUPT, METRIC)
    before, expected = leftovers(bridge), patched(exp, engine)
    assert np.allclose(expected, patched(exp, "reference"), atol=1e-9)
    files = (modules.__file__, guard.__file__, REFERENCE)
    with interrupted(files, -1, KeyboardInterrupt) as count:
        patched(exp, engine)
    lines = count[0]
    generator = np.random.default_rng(0)
    errors = [KeyboardInterrupt, RuntimeError, MemoryError]
    happened, options = 0, exp._options
    for number, at in enumerate(generator.integers(0, lines, points)):
        error = errors[number % 3]
        try:
            with interrupted(files, int(at), error) as count:
                found = patched(exp, engine)
        except BaseException as raised:  # noqa: BLE001
            happened += 1
            assert type(raised) is error
        else:
            assert error is MemoryError
            assert np.allclose(found, expected, atol=1e-12)
            happened += count[0] > at
            assert exp._options != options
            exp._options = options
            exp._engines.clear()
        assert leftovers(bridge) == before, (number, at)
        assert not guarded(bridge)._lock._is_owned(), (number, at)
        if number % 10 == 0:
            assert np.allclose(patched(exp, engine), expected, atol=1e-12), (number, at)
    assert happened == points
    assert np.allclose(patched(exp, engine), expected, atol=1e-12)


# -- data sets -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["gpt2", "gemma2"])
@pytest.mark.parametrize("self_check", [True, False])
@pytest.mark.parametrize("source", ["mean", "mean-position"])
@pytest.mark.parametrize("request_text", ["mlp0 -> logits", "mlp0 -> 1.0.v => logits"])
def test_a_data_set_is_recorded_on_the_model_as_it_is(
    model: str, self_check: bool, source: Any, request_text: str
) -> None:
    """Of another shape than the prompts, with an MLP as sender: no forward is replaced yet."""
    bridge = MODELS[model]().new_bridge()
    generator = torch.Generator().manual_seed(0)
    dataset = torch.randint(0, 12, (4, 7), generator=generator)
    exp = cg.Experiment(bridge, CLEAN, CORRUPT, METRIC, self_check=self_check)
    found, expected = (
        exp.patch(request_text, source=source, dataset=dataset, engine=engine).data["patched"]
        for engine in ("fast", "reference")
    )
    assert np.allclose(found, expected, atol=1e-9)
