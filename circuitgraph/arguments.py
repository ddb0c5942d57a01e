"""What callers hand in, checked at the door of a function, with one wording for each check.

Each takes the argument's name and value and the class of error to raise; it returns the value as
what it is meant to be, or says what is allowed. Knows nothing of what the arguments mean.
"""

import math
import operator
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

from circuitgraph.errors import CircuitGraphError

__all__ = ["collection", "flag", "instance", "mapping", "number", "text", "whole", "word"]

Wrong = type[CircuitGraphError]
Kind = TypeVar("Kind")


def whole(name: str, value: object, error: Wrong, least: int | None = None) -> int:
    """Return a whole number as a plain int; NumPy's integers and tensors of one are welcome.

    Args:
        name: The argument.
        value: What was given.
        error: What to raise.
        least: The smallest number that is allowed.

    Example:
        >>> from circuitgraph.errors import EffectsError
        >>> whole("n", 3, EffectsError, 1)
        3
        >>> whole("n", 1.5, EffectsError, 1)
        Traceback (most recent call last):
        ...
        circuitgraph.errors.EffectsError: n must be a whole number of at least 1, got 1.5
    """
    found = None
    if not isinstance(value, bool):
        try:
            found = operator.index(value)  # type: ignore[arg-type]  # anything with __index__ will do
        except TypeError:
            found = None
    if found is None or (least is not None and found < least):
        bound = "" if least is None else f" of at least {least}"
        raise error(f"{name} must be a whole number{bound}, got {shown(value)}")
    return found


def number(name: str, value: object, error: Wrong) -> float:
    """Return a finite number as a float; texts, booleans and collections are none.

    Example:
        >>> from circuitgraph.errors import CircuitError
        >>> number("threshold", 1, CircuitError)
        1.0
    """
    found = math.nan
    if not isinstance(value, str | bytes | bool) and getattr(value, "shape", ()) == ():
        try:
            found = float(value)  # type: ignore[arg-type]  # anything with __float__ will do
        except (TypeError, ValueError, OverflowError, RuntimeError):
            found = math.nan
    if not math.isfinite(found):
        raise error(f"{name} must be a finite number, got {shown(value)}")
    return found


def word(name: str, value: object, allowed: Any, error: Wrong) -> None:
    """Refuse what is none of the words of a ``Literal``.

    Example:
        >>> from typing import Literal
        >>> from circuitgraph.errors import CircuitError
        >>> word("sign", "up", Literal["absolute", "signed"], CircuitError)
        Traceback (most recent call last):
        ...
        circuitgraph.errors.CircuitError: sign must be one of 'absolute', 'signed', got 'up'
    """
    if not isinstance(value, str) or value not in get_args(allowed):
        choices = ", ".join(map(repr, get_args(allowed)))
        raise error(f"{name} must be one of {choices}, got {shown(value)}")


def flag(name: str, value: object, error: Wrong) -> None:
    """Refuse what is neither True nor False: of other things it is not clear which they mean."""
    if not isinstance(value, bool):
        raise error(f"{name} must be True or False, got {shown(value)}")


def text(name: str, value: object, error: Wrong) -> None:
    """Refuse what is no text."""
    if not isinstance(value, str):
        raise error(f"{name} must be a text, got {shown(value)}")


def instance(name: str, value: object, kind: type[Kind], how: str, error: Wrong) -> Kind:
    """Return what is of a class; of anything else say what it is and how to come by one.

    Args:
        name: The argument.
        value: What was given.
        kind: The class it must be of.
        how: How to make one, such as ``cg.ModelGraph(shape)``.
        error: What to raise.
    """
    if isinstance(value, kind):
        return value
    raise error(f"{name} must be of the class {kind.__name__} ({how}), got {shown(value)}")


def collection(name: str, value: object, of: str, error: Wrong) -> list[Any]:
    """Return the members of a collection as a list; a text is none.

    Args:
        name: The argument.
        value: What was given.
        of: What it is to hold, such as ``nodes``.
        error: What to raise.
    """
    if isinstance(value, Iterable) and not isinstance(value, str | bytes | type):
        try:
            return list(value)
        except TypeError:  # such as a tensor of one number
            pass
    raise error(f"{name} must be a collection of {of}, got {shown(value)}")


def mapping(name: str, value: object, of: str, error: Wrong) -> dict[Any, Any]:
    """Return a mapping as a dictionary; ``of`` says from what to what."""
    if isinstance(value, Mapping):
        return dict(value)
    raise error(f"{name} must be a mapping from {of}, got {shown(value)}")


def shown(value: object) -> str:
    """Return a value as an error shows it, with its class where that says more than the value."""
    try:
        written = repr(value)
    except Exception:  # noqa: BLE001  # somebody else's repr
        written = "something that cannot be shown"
    plain = isinstance(value, bool | int | float | str | bytes | None)
    short = written if len(written) <= 80 else f"{written[:76]} ..."
    return short if plain or isinstance(value, type) else f"{short} ({type(value).__name__})"
