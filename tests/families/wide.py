"""A model's float32 steps, taken in float64: norms, softmaxes and rotations that cast down.

Many families take them in float32 whatever their weights are. What the engines are compared for
is then hidden behind float32 rounding, which follows the processor's vector width and the shapes
that a kernel sees. In here those steps keep float64, so that one bound holds everywhere.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch

__all__ = ["float64_throughout"]

ASKING = (
    (torch.Tensor, "to"),
    (torch.Tensor, "softmax"),
    (torch, "softmax"),
    (torch.nn.functional, "softmax"),
)
"""What models call with ``torch.float32`` or ``dtype=torch.float32``."""


@contextmanager
def float64_throughout() -> Iterator[None]:
    """Give float64 to whoever asks torch for float32, inside the ``with`` block."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))
        for owner, name in ASKING:
            wider = partial(_wider, getattr(owner, name))
            # A function, so that it is bound as a method.
            stack.enter_context(
                mock.patch.object(owner, name, lambda *a, _w=wider, **k: _w(*a, **k))
            )
        yield


def _wider(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    args = tuple(torch.float64 if value is torch.float32 else value for value in args)
    if kwargs.get("dtype") is torch.float32:
        kwargs["dtype"] = torch.float64
    return function(*args, **kwargs)
