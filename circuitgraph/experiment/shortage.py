"""What is done when memory runs out: the same again on fewer prompts at once, or one error.

Engines have halved their stacks before anything arrives here. Every kind of shortage, on every
device and in every engine, recording and gradient, is met in this one place.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Protocol, TypeVar

from circuitgraph.engines.engine import EngineOptions
from circuitgraph.engines.fast.memory import parse_budget
from circuitgraph.engines.setup import Setup
from circuitgraph.engines.splitting import release
from circuitgraph.errors import OutOfMemoryError
from circuitgraph.lens.shortage import is_shortage

__all__ = ["halving_prompts", "naming_the_budget", "on_fewer_prompts"]

Result = TypeVar("Result")


class _Splits(Protocol):
    """What can go on with fewer prompts at once."""

    def _run_fewer(self, shortage: str) -> None:
        """Run fewer prompts at once from now on, or raise."""


def halving_prompts(owner: _Splits, run: Callable[[], Result]) -> Result:
    """Return what a function gives, called again on fewer prompts at once while memory is short.

    Args:
        owner: Says how many prompts are run at once.
        run: What is run.

    Raises:
        OutOfMemoryError: Memory is short for one prompt, or the prompts cannot be split.
    """
    while True:
        try:
            return run()
        except Exception as error:
            if not is_shortage(error):
                raise
            shortage = _text(error)
        # Only here is the error gone, and with it what its frames held.
        release()
        with naming_the_budget("again, while prompts were split"):
            owner._run_fewer(shortage)


def on_fewer_prompts(setup: Setup, options: EngineOptions, shortage: str) -> EngineOptions:
    """Return options for half the prompts at once, and half the memory.

    Args:
        setup: The experiment.
        options: With which memory was short.
        shortage: What was said of it.

    Raises:
        OutOfMemoryError: One prompt was run at once, or the metric needs all of them.
    """
    now = min(options.at_once or setup.n_prompts, setup.n_prompts)
    if now > 1 and setup.metric.of_prompts(slice(0, 1)) is None:
        raise OutOfMemoryError(
            f"memory ran out ({shortage}), and {now} prompts cannot be split: the metric may be "
            "any function of all of them. Take a metric such as cg.LogitDiff, give fewer prompts, "
            "or a smaller memory_budget, so that stacks are smaller"
        )
    if now <= 1:
        raise OutOfMemoryError(
            f"memory ran out ({shortage}), though one prompt was run at a time: free memory, give "
            "shorter prompts, or a smaller memory_budget, so that stacks are smaller"
        )
    budget = parse_budget(options.memory_budget, setup.clean.device)
    return replace(options, memory_budget=max(1, budget // 2), at_once=(now + 1) // 2)


@contextmanager
def naming_the_budget(when: str = "before any prompt was run") -> Iterator[None]:
    """Turn a shortage into one error of ours, where nothing could be split.

    Args:
        when: When it came.

    Raises:
        OutOfMemoryError: Memory ran out inside the ``with`` block.
    """
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        raise OutOfMemoryError(
            f"memory ran out ({_text(error)}) {when}: free memory; "
            "memory_budget says what may be used of it"
        ) from error


def _text(error: Exception) -> str:
    """Return the first line of what an error says."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
