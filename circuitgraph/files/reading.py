"""Opening files, and JSON without its loopholes.

Python's reader takes the last of two equal keys, NaN and Infinity, and nesting up to the
interpreter's own limit. Here these are errors, because a file that can be read in two ways will be.
"""

import json
import os
import stat
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from circuitgraph.errors import CircuitGraphError

__all__ = ["DEEPEST", "parse_json", "path_of", "read_bytes", "read_json", "read_text"]

DEEPEST = 50
"""How many lists and objects of a JSON file may stand in each other."""


def path_of(given: object, error: type[CircuitGraphError]) -> Path:
    """Return a path, of what a caller gave as one.

    Raises:
        CircuitGraphError: Of the class ``error``: it is no text and no path.
    """
    if not isinstance(given, str | os.PathLike):
        raise error(f"a path must be a text or a pathlib.Path, got {given!r:.60}")
    return Path(given)


def read_bytes(path: str | Path, error: type[CircuitGraphError], hint: str = "") -> bytes:
    """Return all that a regular file holds; pipes and devices, which may never end, are refused.

    Args:
        path: Which.
        error: What to raise.
        hint: What was expected, for the message where there is no such file.

    Raises:
        CircuitGraphError: Of the class ``error``: there is no such file, it is no regular file, or
            it cannot be read.
    """
    expected = f": {hint}" if hint else ""
    path = path_of(path, error)
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            kind = os.fstat(descriptor).st_mode
            if not stat.S_ISREG(kind):
                what = "a folder" if stat.S_ISDIR(kind) else "a pipe or a device"
                raise error(f"no file {str(path)!r}{expected or ' to read'}; it is {what}")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)
    except (FileNotFoundError, NotADirectoryError):
        raise error(f"no file {str(path)!r}{expected}") from None
    except (OSError, ValueError) as problem:
        if isinstance(problem, CircuitGraphError):
            raise
        reason = getattr(problem, "strerror", None) or str(problem)
        raise error(f"cannot read {str(path)!r}: {reason}") from problem


def read_text(path: str | Path, error: type[CircuitGraphError], hint: str = "") -> str:
    """Return all that a UTF-8 file holds, less a byte order mark.

    Raises:
        CircuitGraphError: Of the class ``error``: it cannot be read, or is not UTF-8.
    """
    raw = read_bytes(path, error, hint)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = raw.count(b"\n", 0, problem.start) + 1
        raise error(
            f"{str(path)!r} is not UTF-8: line {line} holds the byte "
            f"0x{raw[problem.start]:02x}; save it with that encoding"
        ) from problem


def read_json(path: str | Path, error: type[CircuitGraphError], hint: str = "") -> Any:
    """Return what a JSON file holds, read strictly; see `parse_json`.

    Raises:
        CircuitGraphError: Of the class ``error``: it cannot be read, or is no strict JSON.
    """
    raw = read_bytes(path, error, hint)
    expected = f": {hint}" if hint else ""
    try:
        return parse_json(raw.decode("utf-8"))
    except ValueError as problem:
        raise error(f"{str(path)!r} holds no JSON ({problem}){expected}") from problem


def parse_json(text: str) -> Any:
    """Return what a JSON text says.

    Raises:
        ValueError: No JSON; or with a key twice in one object, NaN or an infinity, an integer of
            thousands of digits, or more than `DEEPEST` lists and objects in each other.

    Example:
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        ...
        ValueError: the key 'a' stands twice in one object
    """
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse)
        if not _deeper_than(value, DEEPEST):
            return value
    except RecursionError:
        pass
    raise ValueError(f"more than {DEEPEST} lists and objects stand in each other")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = sorted(name for name, _ in pairs)
        twice = next(name for name, after in pairwise(names) if name == after)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _deeper_than(value: Any, deepest: int) -> bool:
    """Return whether more lists and objects than allowed stand in each other; no recursion."""
    level: list[Any] = [value]
    for _ in range(deepest):
        inner: list[Any] = []
        for holder in level:
            entries: Iterable[Any] = ()
            if isinstance(holder, dict):
                entries = holder.values()
            elif isinstance(holder, list):
                entries = holder
            inner.extend(entry for entry in entries if isinstance(entry, list | dict))
        if not inner:
            return False
        level = inner
    return True
