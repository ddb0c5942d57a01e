r"""Effects in files: one readable JSON text that loses nothing.

The format, version 1::

    {
      "format": "circuitgraph effects",
      "version": 1,
      "attrs": {"request": "head -> logits", "variant": "mlps", ...},
      "coords": {"layer": ARRAY, "head": ARRAY, "prompt": ARRAY, ...},
      "variables": {"patched": ARRAY, "clean": ARRAY, "corrupt": ARRAY, ...},
      "checksum": "sha256:..."
    }

    ARRAY = {"dims": ["layer"], "shape": [30], "dtype": "int64", "values": [0, 1, ...], "attrs": {}}

Values stand flat, last dimension fastest. A float is written with as many digits as give it back
bit for bit; an empty cell is ``null``. ``dtype`` is NumPy's name, or ``str`` for texts. A
comparison has the format ``circuitgraph comparison`` and, under ``effects``, one such document per
name. Any JSON reader can open a file; numbers take about 20 bytes each.

``checksum`` is taken over all the rest (`circuitgraph.files.checksum`); files of earlier versions
have none and are read, too.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray
from pydantic import Field

from circuitgraph.errors import EffectsError
from circuitgraph.files import Strict, check_sum, check_with, checksum, read_json, write_file

__all__ = [
    "COMPARISON",
    "EFFECTS",
    "VERSION",
    "Document",
    "as_document",
    "check_intact",
    "comparison_parts",
    "from_document",
    "read",
    "write",
    "write_table",
]

Document = dict[str, Any]

EFFECTS = "circuitgraph effects"
COMPARISON = "circuitgraph comparison"
VERSION = 1

_WRITERS = {EFFECTS: "Effects.save", COMPARISON: "Comparison.save"}


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet reads as the beginning of a formula, also behind white space."""


def as_document(data: xr.Dataset) -> Document:
    """Return a data set as what JSON can hold."""
    return {
        "format": EFFECTS,
        "version": VERSION,
        "attrs": dict(data.attrs),
        "coords": {str(name): _array(coord) for name, coord in data.coords.items()},
        "variables": {str(name): _array(array) for name, array in data.data_vars.items()},
    }


DType = Literal[
    "str", "bool",
    "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
]  # fmt: skip
Size = Annotated[int, Field(ge=0, lt=2**40)]

_LARGEST_TEXTS = 2**30
"""Bytes that texts may take as an array, where each gets the room of the longest."""


class _Array(Strict):
    dims: Annotated[list[str], Field(max_length=32)]
    shape: Annotated[list[Size], Field(max_length=32)]
    dtype: DType
    values: list[Any]
    attrs: dict[str, Any]


class _Effects(Strict):
    format: Literal["circuitgraph effects"]
    version: Literal[1]
    attrs: dict[str, Any]
    coords: dict[str, _Array]
    variables: dict[str, _Array]
    checksum: str | None = None


class _Comparison(Strict):
    format: Literal["circuitgraph comparison"]
    version: Literal[1]
    effects: dict[str, dict[str, Any]]
    checksum: str | None = None


def from_document(document: Document, source: str) -> xr.Dataset:
    """Return the data set of a document.

    Args:
        document: What `as_document` made, after a journey through JSON.
        source: Where it came from, for messages.

    Raises:
        EffectsError: The document is not well formed; says where.
    """
    try:
        read = check_with(_Effects, document)
        arrays = {"coords": read.coords, "variables": read.variables}
        largest = sum(len(array.values) for part in arrays.values() for array in part.values())
        made = {
            part: {
                name: _variable(f"(in {part}, {name!r})", array, largest)
                for name, array in inside.items()
            }
            for part, inside in arrays.items()
        }
        return xr.Dataset(made["variables"], coords=made["coords"], attrs=dict(read.attrs))
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise EffectsError(f"{source} is damaged: {error}") from error


def comparison_parts(document: Document, source: str) -> dict[str, Document]:
    """Return the documents of a comparison's effects by name, not yet looked into.

    Raises:
        EffectsError: The document is not well formed; says where.
    """
    if not isinstance(document.get("effects"), dict):
        raise EffectsError(f"{source} is damaged: it holds no effects by name")
    try:
        return check_with(_Comparison, document).effects
    except ValueError as error:
        raise EffectsError(f"{source} is damaged: {error}") from error


def check_intact(document: Document, source: str) -> None:
    """Refuse what no longer has its checksum; asked last, since other faults say more.

    Raises:
        EffectsError: It was changed or damaged.
    """
    try:
        check_sum(document)
    except ValueError as error:
        raise EffectsError(f"{source} is damaged: {error}") from error


def write(path: Path, document: Document) -> None:
    """Write a document and its checksum, the file as a whole or not at all.

    Raises:
        EffectsError: The folder is not there, or there is something else under that name.
    """
    text = _text(document | {"checksum": checksum(document)})
    write_file(path, text + "\n", EffectsError)


def write_table(path: str | Path, table: pd.DataFrame) -> Path:
    """Write a table as comma-separated values, without its row numbers, and return the path.

    A text that a spreadsheet would take for a formula begins with an apostrophe.

    Raises:
        EffectsError: The folder is not there, or there is something else under that name.
    """
    harmless = table.map(_no_formula).rename(columns=_no_formula)
    return write_file(path, harmless.to_csv(index=False), EffectsError)


def _no_formula(cell: Any) -> Any:
    """Return a cell that no spreadsheet runs: numbers as they are, ``=...`` with an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def read(path: Path, wanted: str) -> Document:
    """Return the document in a file.

    Raises:
        EffectsError: There is no file, or it is not what `write` made, of the wanted format.
    """
    expected = f"expected a JSON file written by {_WRITERS[wanted]}"
    document = read_json(path, EffectsError, expected)
    found = document.get("format") if isinstance(document, dict) else None
    if found != wanted:
        other = _WRITERS.get(found) if isinstance(found, str) else None
        hint = f"; it was written by {other}" if other else ""
        raise EffectsError(
            f'{str(path)!r} does not say "format": {wanted!r} (got {found!r}): {expected}{hint}'
        )
    version = document.get("version")
    if isinstance(version, bool) or version != VERSION:
        raise EffectsError(
            f"{str(path)!r} has version {version!r} of the format {wanted!r}; "
            f"this circuitgraph reads version {VERSION}"
        )
    return dict(document)


def _array(array: xr.DataArray) -> Document:
    values = array.to_numpy()
    flat = values.ravel()
    if flat.dtype.kind == "f":
        empty = np.isnan(flat)
        flat = flat.astype(object)
        flat[empty] = None
    return {
        "dims": list(map(str, array.dims)),
        "shape": list(values.shape),
        "dtype": "str" if values.dtype.kind in "UT" else values.dtype.name,
        "values": flat.tolist(),
        "attrs": dict(array.attrs),
    }


def _variable(
    place: str, array: _Array, largest: int
) -> tuple[list[str], NDArray[Any], dict[str, Any]]:
    """Return an array of a document; `largest` bounds the sizes that one without values can claim.

    Raises:
        ValueError: Dimensions, shape, kind and values do not fit together.
    """
    shape, values = tuple(array.shape), array.values  # noqa: PD011
    if len(array.dims) != len(shape) or len(set(array.dims)) != len(array.dims):
        raise ValueError(f"dims {array.dims} do not fit shape {array.shape} {place}")
    if math.prod(shape) != len(values) or max(shape, default=0) > largest:
        raise ValueError(f"cannot reshape {len(values)} values into shape {array.shape} {place}")
    return array.dims, _values(place, array.dtype, values).reshape(shape), dict(array.attrs)


def _values(place: str, kind: str, values: list[Any]) -> NDArray[Any]:
    """Return values as an array of a kind that holds each of them as it is."""
    allowed: tuple[type, ...] = {"s": (str,), "b": (bool,), "f": (float, int, type(None))}.get(
        kind[0], (int,)
    )
    for number, value in enumerate(values):
        if type(value) not in allowed:
            raise ValueError(f"value {number} is no {kind}, but {value!r:.40} {place}")
    if kind == "str":
        longest = max(map(len, values), default=0)
        if longest * len(values) * 4 > _LARGEST_TEXTS:
            raise ValueError(f"texts of up to {longest} letters are too long to hold {place}")
        return np.array(values, dtype=np.str_)
    try:
        # `None` becomes NaN where NumPy is told to make floats of it.
        with np.errstate(over="ignore"):
            made = np.array(values, dtype=np.dtype(kind))
    except OverflowError as error:
        raise ValueError(f"a number is too large for {kind} {place}: {error}") from None
    if kind[0] == "f" and bool(np.isinf(made).any()):
        raise ValueError(f"value {int(np.isinf(made).argmax())} is too large for {kind} {place}")
    return made


def _text(value: Any, indent: str = "") -> str:
    """Return JSON with one line per entry of an object, and lists on one line."""
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    deeper = indent + "  "
    lines = (
        f"{deeper}{json.dumps(str(key), ensure_ascii=False)}: {_text(entry, deeper)}"
        for key, entry in value.items()
    )
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}"
