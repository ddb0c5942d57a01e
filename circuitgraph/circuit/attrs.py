"""What else is kept with a circuit: anything JSON can hold, made immutable and back."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from circuitgraph.errors import CircuitError

__all__ = ["PROVENANCE", "frozen_attrs", "plain_attrs"]

PROVENANCE = (
    *("request", "variant", "mode", "source", "metric", "model", "n_prompts", "prompts"),
    "estimate",
)
"""Attrs that say of what measurement the weights come."""


def frozen_attrs(attrs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return attrs as they come back from a file, with nothing in them that can be changed.

    Raises:
        CircuitError: Something in them that JSON cannot hold.

    Example:
        >>> frozen_attrs({"seeds": [1, 2]})["seeds"]
        (1, 2)
    """
    try:
        read_back = json.loads(json.dumps(plain_attrs(attrs), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise CircuitError(
            f"attrs must be what JSON can hold (texts, numbers, lists, dicts by text): {error}"
        ) from None
    return _frozen(read_back)  # type: ignore[no-any-return]  # a mapping in, a mapping out


def plain_attrs(value: Any) -> Any:
    """Return frozen attrs, or a part of them, as lists and dicts again.

    Example:
        >>> plain_attrs(frozen_attrs({"seeds": [1, 2]}))
        {'seeds': [1, 2]}
    """
    match value:
        case Mapping():
            return {key: plain_attrs(inner) for key, inner in value.items()}
        case tuple() | list():
            return [plain_attrs(inner) for inner in value]
        case _:
            return value


def _frozen(value: Any) -> Any:
    match value:
        case dict():
            return MappingProxyType({key: _frozen(inner) for key, inner in value.items()})
        case list():
            return tuple(map(_frozen, value))
        case _:
            return value
