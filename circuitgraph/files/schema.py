"""What was read, held against a schema, and numbers held against their checksum.

The schemas are pydantic's, in its strict mode: no text passes for a number, no fraction for an
integer, no 1 for true, no key that the schema does not name. Of the libraries that do this,
pydantic costs nothing here, since typer and TransformerLens bring it along, and it names the place
of every fault, keys included; msgspec is smaller and quicker, but ends at the first fault and does
not say in which entry of an object it is.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["Strict", "check_sum", "check_with", "checksum"]

_LISTED = 5
_SHOWN = 40


class Strict(BaseModel):
    """A part of a file whose keys are all named, of the type that is written and no other."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False, frozen=True)


Model = TypeVar("Model", bound=BaseModel)


def check_with(schema: type[Model], data: object) -> Model:
    """Return data as a schema's object.

    Raises:
        ValueError: Where it does not fit, each place with what is wrong there.

    Example:
        >>> class Point(Strict):
        ...     x: float
        ...     flag: bool
        >>> check_with(Point, {"x": 1.5, "flag": "false"})
        Traceback (most recent call last):
        ...
        ValueError: flag must be true or false, got 'false'
    """
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_context=True)
        texts = [_fault(fault) for fault in faults[:_LISTED]]
        if len(faults) > _LISTED:
            texts.append(f"and {len(faults) - _LISTED} more")
        raise ValueError("; ".join(texts)) from None


_WORDS = {
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be a text",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def _fault(fault: Mapping[str, Any]) -> str:
    """Return one fault in words, the place first."""
    *outer, last = fault["loc"] or ("it",)
    inside = "".join(f"in {_place(part)}: " for part in outer)
    match fault["type"]:
        case "missing":
            return f"{inside}{last!r} is missing"
        case "extra_forbidden":
            return f"{inside}{last!r} is unknown"
        case kind:
            said = str(fault["msg"])
            words = _WORDS.get(kind) or said.removeprefix("Value error, ").replace(
                "Input should be", "must be"
            )
    got = repr(fault["input"])
    got = got if len(got) <= _SHOWN else f"{got[:_SHOWN]}..."
    return f"{inside}{_place(last)} {words}, got {got}"


def _place(part: object) -> str:
    return f"number {part}" if isinstance(part, int) else str(part)


def checksum(document: Mapping[str, Any]) -> str:
    """Return what a document says of itself under ``checksum``: SHA-256 of all else in it.

    Taken over compact JSON, so that spaces and lines may change.

    Example:
        >>> checksum({"a": 1})[:14] == checksum({"a": 1, "checksum": "old"})[:14]
        True
    """
    rest = {key: value for key, value in document.items() if key != "checksum"}
    text = json.dumps(rest, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def check_sum(document: Mapping[str, Any]) -> None:
    """Refuse a document that no longer is what was written.

    Files of earlier versions have no checksum, and pass.

    Raises:
        ValueError: Its checksum is another one.
    """
    if "checksum" in document and document["checksum"] != checksum(document):
        raise ValueError(
            "its checksum does not fit: it was changed after it was written, or damaged; "
            "if you changed it on purpose, take the key 'checksum' out"
        )
