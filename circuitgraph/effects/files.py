r"""Effects in files: one readable JSON text that loses nothing.

The format, version 1::

    {
      "format": "circuitgraph effects",
      "version": 1,
      "attrs": {"request": "head -> logits", "variant": "mlps", ...},
      "coords": {"layer": ARRAY, "head": ARRAY, "prompt": ARRAY, ...},
      "variables": {"patched": ARRAY, "clean": ARRAY, "corrupt": ARRAY, ...}
    }

    ARRAY = {"dims": ["layer"], "shape": [30], "dtype": "int64", "values": [0, 1, ...], "attrs": {}}

Values stand flat, last dimension fastest. A float is written with as many digits as give it back
bit for bit; an empty cell is ``null``. ``dtype`` is NumPy's name, or ``str`` for texts. A
comparison has the format ``circuitgraph comparison`` and, under ``effects``, one such document per
name. Any JSON reader can open a file; numbers take about 20 bytes each.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from circuitgraph.errors import EffectsError

__all__ = [
    "COMPARISON",
    "EFFECTS",
    "VERSION",
    "Document",
    "as_document",
    "from_document",
    "read",
    "write",
]

Document = dict[str, Any]

EFFECTS = "circuitgraph effects"
COMPARISON = "circuitgraph comparison"
VERSION = 1

_WRITERS = {EFFECTS: "Effects.save", COMPARISON: "Comparison.save"}


def as_document(data: xr.Dataset) -> Document:
    """Return a data set as what JSON can hold."""
    return {
        "format": EFFECTS,
        "version": VERSION,
        "attrs": dict(data.attrs),
        "coords": {str(name): _array(coord) for name, coord in data.coords.items()},
        "variables": {str(name): _array(array) for name, array in data.data_vars.items()},
    }


def from_document(document: Document, source: str) -> xr.Dataset:
    """Return the data set of a document.

    Args:
        document: What `as_document` made, after a journey through JSON.
        source: Where it came from, for messages.

    Raises:
        EffectsError: The document is not well formed.
    """
    try:
        return xr.Dataset(
            {name: _variable(array) for name, array in document["variables"].items()},
            coords={name: _variable(array) for name, array in document["coords"].items()},
            attrs=dict(document["attrs"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
        raise EffectsError(f"{source} is damaged: {what}") from error


def write(path: Path, document: Document) -> None:
    """Write a document; an interrupted write leaves no half file under the name.

    Raises:
        EffectsError: The folder is not there.
    """
    if not path.parent.is_dir():
        raise EffectsError(f"cannot write {str(path)!r}: there is no folder {str(path.parent)!r}")
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(_text(document) + "\n", encoding="utf-8")
    partial.replace(path)


def read(path: Path, wanted: str) -> Document:
    """Return the document in a file.

    Raises:
        EffectsError: There is no file, or it is not what `write` made, of the wanted format.
    """
    expected = f"expected a JSON file written by {_WRITERS[wanted]}"
    if not path.is_file():
        raise EffectsError(f"no file {str(path)!r}: {expected}")
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # not UTF-8, or not JSON
        raise EffectsError(f"{str(path)!r} holds no JSON ({error}): {expected}") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != wanted:
        hint = f"; it was written by {_WRITERS[found]}" if found in _WRITERS else ""
        raise EffectsError(
            f'{str(path)!r} does not say "format": {wanted!r} (got {found!r}): {expected}{hint}'
        )
    if document.get("version") != VERSION:
        raise EffectsError(
            f"{str(path)!r} has version {document.get('version')!r} of the format {wanted!r}; "
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


def _variable(array: Document) -> tuple[list[str], Any, dict[str, Any]]:
    kind = array["dtype"]
    # `None` becomes NaN where NumPy is told to make floats of it.
    values = np.array(array["values"], dtype=np.str_ if kind == "str" else np.dtype(kind))
    return array["dims"], values.reshape(array["shape"]), dict(array["attrs"])


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
