"""Running modules with their forward replaced for a moment, and reading what passes by.

A bridge's attribute assignment reaches through to the wrapped module, so a replaced forward is
written into the instance's ``__dict__`` and taken out again, also after an exception.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Replacement", "Stop", "first_tensor", "put_back", "replaced", "with_first"]

Forward = Callable[..., Any]


class Stop(Exception):  # noqa: N818  # no error: it carries a value out
    """Ends a forward early, carrying the tensor that was wanted."""

    def __init__(self, value: Any) -> None:
        """Carry ``value`` out of the forward."""
        super().__init__()
        self.value = value


class Replacement:
    """A forward of ours in place of a module's: told from anybody else's, and undone by itself.

    Args:
        forward: What is called.
        before: The forward that the instance held before; None where it held none of its own.
    """

    __slots__ = ("before", "forward")

    def __init__(self, forward: Forward, before: Any) -> None:
        """Stand in for ``before``; nothing is replaced yet."""
        self.forward = forward
        self.before = before

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call what stands in."""
        return self.forward(*args, **kwargs)


class replaced:  # noqa: N801  # a verb: used as ``with replaced(...)``
    """Replace the forward of modules inside the ``with`` block.

    A class rather than a generator, since a generator that is interrupted on its way out ends only
    when somebody collects it.

    Args:
        pairs: Modules and what to call in place of their forward.
    """

    __slots__ = ("_pairs", "_placed")

    def __init__(self, *pairs: tuple[Any, Forward]) -> None:
        self._pairs = pairs
        self._placed: list[tuple[dict[str, Any], Replacement]] = []

    def __enter__(self) -> None:
        entered = False
        try:
            for module, forward in self._pairs:
                held = vars(module)
                mine = Replacement(forward, held.get("forward"))
                self._placed.append((held, mine))  # known before it is placed
                held["forward"] = mine
            entered = True
        finally:
            if not entered:
                self.__exit__()

    def __exit__(self, *_: object) -> None:
        # Twice: whatever interrupts the one, Ctrl-C for example, the other still puts all back.
        try:
            self._restore()
        finally:
            self._restore()

    def _restore(self) -> None:
        while self._placed:
            held, mine = self._placed[-1]
            if held.get("forward") is mine:
                put_back(held, mine)
            self._placed.pop()


def put_back(held: dict[str, Any], mine: Replacement) -> None:
    """Give an instance the forward that it had before a replacement."""
    if mine.before is None:
        held.pop("forward", None)
    else:
        held["forward"] = mine.before


def first_tensor(output: Any) -> Tensor:
    """Return the tensor that a module's output stands for: itself, or the first of a tuple."""
    found = output[0] if isinstance(output, tuple | list) else output
    assert isinstance(found, torch.Tensor), f"expected a tensor, got {type(found).__name__}"
    return found


def with_first(form: Any, tensor: Tensor) -> Any:
    """Return an output of the same form as another, with ``tensor`` in its first place."""
    if isinstance(form, tuple | list):
        return type(form)((tensor, *form[1:]))
    return tensor
