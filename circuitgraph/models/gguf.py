"""Reading GGUF files: what is said of the model, and its weights unpacked to float32.

The readers that other packages bring take seconds for what stands in the first two megabytes of
such a file, and parse it several times over; this one takes half a second. It reads version 3 of
the format (github.com/ggml-org/ggml, docs/gguf.md); what weights are packed in is the business of
the package `gguf`. It knows nothing of any model.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from circuitgraph.errors import ModelError

__all__ = ["GgufFile", "read_gguf"]

_MAGIC, _VERSION = b"GGUF", 3
_BOOL, _STRING, _ARRAY = 7, 8, 9
_SMALLEST = {_STRING: 8, _ARRAY: 12}
"""Bytes that the shortest text and the shortest array take."""
_SCALARS = {
    0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d",
}  # fmt: skip
_DEEPEST = 4
"""How many arrays may stand in each other."""
_LARGEST_ALIGNMENT = 2**20


@dataclass(frozen=True, slots=True, eq=False)
class GgufFile:
    """What a GGUF file holds.

    Args:
        name: The file's name, for errors.
        fields: Everything the file says of the model and its tokenizer, by its own keys.
        tensors: Its weights in float32, by its own names.
    """

    name: str
    fields: Mapping[str, Any]
    tensors: Mapping[str, Float[Tensor, "..."]]

    def __getitem__(self, key: str) -> Any:
        """Return one field.

        Raises:
            ModelError: The file says nothing of it.
        """
        if key not in self.fields:
            raise ModelError(f"cannot read {self.name!r}: it says nothing of {key!r}")
        return self.fields[key]


def read_gguf(path: Path, *more: Path) -> GgufFile:
    """Read a whole GGUF file, or one that was cut into several.

    Raises:
        ModelError: It is no such file, another version of the format, cut off, or holds weights
            packed in a way that is not known here.
    """
    raw = np.concatenate([_bytes_of(part) for part in (path, *more)])
    try:
        return _read(path.name, raw)
    except (struct.error, KeyError, ValueError, OverflowError, MemoryError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"cannot read {path.name!r}: it is cut off or damaged") from error


def _bytes_of(path: Path) -> NDArray[np.uint8]:
    """Return a file's bytes; pipes and devices are refused.

    Raises:
        ModelError: There is no such file, or it is no regular one.
    """
    if not path.is_file():
        raise ModelError(f"cannot read {path.name!r}: there is no such file")
    try:
        return np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise ModelError(f"cannot read {path.name!r}: {error.strerror}") from error


def _read(name: str, raw: NDArray[np.uint8]) -> GgufFile:
    cursor = _Cursor(raw.data)
    if raw[:4].tobytes() != _MAGIC:
        raise ModelError(f"cannot read {name!r}: it is no GGUF file")
    cursor.at = 4
    if (version := cursor.scalar("I")) != _VERSION:
        raise ModelError(f"cannot read {name!r}: GGUF version {version}, known is {_VERSION}")
    n_tensors, n_fields = cursor.scalar("Q"), cursor.scalar("Q")
    cursor.check_room(n_tensors + n_fields, 12)
    fields: dict[str, Any] = {}
    for _ in range(n_fields):
        key = cursor.string()
        if key in fields:
            raise ModelError(f"cannot read {name!r}: it says {key!r} twice")
        fields[key] = cursor.value(cursor.scalar("I"))
    entries = [cursor.tensor() for _ in range(n_tensors)]
    if len({entry.name for entry in entries}) < len(entries):
        raise ModelError(f"cannot read {name!r}: two of its weights have one name")
    unknown = sorted({entry.packing for entry in entries} - {*GGMLQuantizationType})
    if unknown:
        raise ModelError(f"cannot read {name!r}: its weights are packed in unknown kinds {unknown}")
    alignment = fields.get("general.alignment", 32)
    if type(alignment) is not int or not 1 <= alignment <= _LARGEST_ALIGNMENT:
        raise ModelError(f"cannot read {name!r}: general.alignment is {alignment!r:.40}")
    data = raw[-(-cursor.at // alignment) * alignment :]
    return GgufFile(name, fields, {entry.name: entry.read(data) for entry in entries})


@dataclass(slots=True)
class _Cursor:
    """A place in a file, moved on by reading."""

    data: memoryview
    at: int = 0

    def scalar(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        if self.at + length > len(self.data):
            raise ValueError("the text runs past the end of the file")
        self.at += length
        return str(self.data[self.at - length : self.at], "utf-8")

    def value(self, kind: int, deep: int = 0) -> Any:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            inner, length = self.scalar("I"), self.scalar("Q")
            self.check_room(length, _SMALLEST.get(inner) or struct.calcsize(f"<{_SCALARS[inner]}"))
            if deep == _DEEPEST:
                raise ValueError("too many arrays in each other")
            return [self.value(inner, deep + 1) for _ in range(length)]
        if kind == _BOOL:
            return self.truth()
        return self.scalar(_SCALARS[kind])

    def truth(self) -> bool:
        if (value := self.scalar("B")) > 1:
            raise ValueError("neither true nor false")
        return bool(value)

    def check_room(self, length: int, smallest: int) -> None:
        """Refuse a number of things that the rest of the file cannot hold, before making them."""
        if length * smallest > len(self.data) - self.at:
            raise ValueError("more is announced than there is in the file")

    def tensor(self) -> "_Entry":
        name, n_dims = self.string(), self.scalar("I")
        self.check_room(n_dims, 8)
        dims = [self.scalar("Q") for _ in range(n_dims)]
        return _Entry(name, tuple(reversed(dims)), self.scalar("I"), self.scalar("Q"))


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a tensor's data begin, and how they are packed."""

    name: str
    shape: tuple[int, ...]
    packing: int
    offset: int

    def read(self, data: NDArray[np.uint8]) -> Float[Tensor, "..."]:
        kind = GGMLQuantizationType(self.packing)
        weights, size = GGML_QUANT_SIZES[kind]
        n_rows, row = math.prod(self.shape[:-1]), self.shape[-1] // weights * size
        packed = data[self.offset : self.offset + n_rows * row].reshape(n_rows, row)
        try:
            unpacked = dequantize(packed, kind)
        except NotImplementedError:
            raise ModelError(f"no weights packed as {kind.name} can be read: {self.name}") from None
        if kind is GGMLQuantizationType.F32:
            unpacked = unpacked.copy()  # it was a view of the whole file
        return torch.from_numpy(unpacked.reshape(self.shape))
