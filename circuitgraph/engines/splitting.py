"""Running items in stacks, and smaller stacks where memory turns out to be short.

What an item is (a row of a sweep, a sample of a data set) is the caller's business. Where one item
alone is too much, the shortage goes on to the experiment, which runs fewer prompts at once.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

from circuitgraph.lens.shortage import is_shortage

__all__ = ["in_stacks", "release"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_stacks(
    items: Sequence[Item], most: int, run: Callable[[Sequence[Item]], Result]
) -> Iterator[tuple[Sequence[Item], Result]]:
    """Yield stacks of items with their results, halving the stack when memory runs out.

    Args:
        items: What is run.
        most: The largest stack to try.
        run: Runs one stack.
    """
    start = 0
    while start < len(items):
        stack = items[start : start + most]
        try:
            result = run(stack)
        except (MemoryError, RuntimeError) as error:
            if not is_shortage(error) or len(stack) == 1:
                raise
        else:
            yield stack, result
            start += len(stack)
            continue
        # Only here is the error gone, and with it what its frames held.
        most = max(1, len(stack) // 2)
        release()


def release() -> None:
    """Give back what an accelerator's allocator keeps for later."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():  # pragma: no cover  # not on every system
        torch.mps.empty_cache()
