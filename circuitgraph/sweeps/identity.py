"""What a value is, as a short text: equal for equal values, in any process and on any device.

Names of parts are made of this, so it looks at content only: never at an address, an order that
Python draws anew in each process, or the device that a tensor happens to lie on.
"""

import dataclasses
import hashlib
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["digest_of"]

_LETTERS = 16


def digest_of(*values: Any) -> str:
    """Return a short text that tells these values from others.

    Of a function it takes the code, defaults and what it closes over; of any other object its class
    and what it holds, each object once on a way down.

    Example:
        >>> digest_of({"a": 1.0}) == digest_of({"a": 1.0}), digest_of(1) == digest_of(1.0)
        (True, False)
    """
    sink = hashlib.sha256()
    _feed(sink, values, ())
    return sink.hexdigest()[:_LETTERS]


def _feed(sink: Any, value: Any, above: tuple[int, ...]) -> None:
    """Add a value to a digest, its type first, so that no two kinds look alike.

    Args:
        sink: The digest.
        value: What is added.
        above: The objects that hold it, by identity, so that none is looked into inside itself.
    """
    kind = type(value)
    sink.update(f"<{kind.__module__}.{kind.__qualname__}>".encode())
    match value:
        case None | bool() | int() | float() | complex() | str():
            sink.update(repr(value).encode())
        case bytes():
            sink.update(value)
        case Tensor():
            plain = value.detach().cpu().contiguous()
            sink.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
            sink.update(plain.flatten().view(torch.uint8).numpy().tobytes())
        case np.ndarray() | np.generic():
            sink.update(f"{value.dtype.str}{value.shape}".encode())
            sink.update(np.ascontiguousarray(value).tobytes())
        case type():
            sink.update(f"{value.__module__}.{value.__qualname__}".encode())
        case _ if id(value) not in above:
            for inner in _inside(value):
                _feed(sink, inner, (*above, id(value)))
                sink.update(b";")


def _inside(value: Any) -> Iterable[Any]:
    """Return what an object is made of, in an order that is the same in every process."""
    match value:
        case Mapping():
            return [entry for pair in value.items() for entry in pair]
        case AbstractSet():
            return sorted(digest_of(entry) for entry in value)
        case list() | tuple() | range():
            return value
        case CodeType():
            return (value.co_code, value.co_consts, value.co_names)
        case _ if dataclasses.is_dataclass(value):
            return [getattr(value, field.name) for field in dataclasses.fields(value)]
        case _ if hasattr(value, "__code__") and hasattr(value, "__closure__"):
            closed = [cell.cell_contents for cell in value.__closure__ or ()]
            return (value.__qualname__, value.__code__, value.__defaults__, closed)
        case _:
            return [entry for pair in _held(value).items() for entry in pair]


def _held(value: Any) -> dict[str, Any]:
    """Return what an object holds, by name."""
    slots = [vars(kind).get("__slots__", ()) for kind in type(value).__mro__]
    names = [name for slot in slots for name in ((slot,) if isinstance(slot, str) else slot)]
    held = {name: getattr(value, name) for name in names if hasattr(value, name)}
    return held | dict(sorted(getattr(value, "__dict__", {}).items()))
