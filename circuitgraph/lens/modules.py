"""Running modules with their forward replaced for a moment, and reading what passes by.

A bridge's attribute assignment reaches through to the wrapped module, so a replaced forward is
written into the instance's ``__dict__`` and taken out again, also after an exception.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["Stop", "first_tensor", "replaced", "with_first"]

Forward = Callable[..., Any]


class Stop(Exception):  # noqa: N818  # no error: it carries a value out
    """Ends a forward early, carrying the tensor that was wanted."""

    def __init__(self, value: Any) -> None:
        """Carry ``value`` out of the forward."""
        super().__init__()
        self.value = value


@contextmanager
def replaced(*pairs: tuple[Any, Forward]) -> Iterator[None]:
    """Replace the forward of modules inside the ``with`` block.

    Args:
        pairs: Modules and what to call in place of their forward.
    """
    before: list[tuple[dict[str, Any], Any]] = []
    try:
        for module, forward in pairs:
            held = vars(module)
            before.append((held, held.get("forward")))
            held["forward"] = forward
        yield
    finally:
        for held, forward in reversed(before):
            if forward is None:
                held.pop("forward", None)
            else:
                held["forward"] = forward


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
