"""How shapes and types in signatures are checked while tests run."""

from collections.abc import Callable
from typing import Any

from beartype import beartype


def once(function: Callable[..., Any]) -> Callable[..., Any]:
    """Beartype, but not for functions inside functions.

    Hooks are made anew for every pass of a model, and making the checks of one takes longer than
    running a tiny model: it would make the suite four times as slow.
    """
    return function if "<locals>" in function.__qualname__ else beartype(function)
