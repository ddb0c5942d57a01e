r"""A sweep in a folder: what is computed, and one file for each finished part.

    FOLDER/
      sweep.json            what is computed, how it is cut, and what makes effects of the numbers
      parts/NAME.json       one finished part, named by what it holds
      driver.lock           who works on it; the lock ends with its process

Each file is written whole or not at all, with a checksum, and read against a schema. Arrays stand
in base64, little-endian, so that numbers come back bit for bit. Only the driver writes.

One file for each part, not one array for all: a part that is there is whole and is never opened
again, so neither a kill nor a second writer can harm it. An array store with chunks would have to
promise the same of each chunk, and of the list of chunks.
"""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from circuitgraph.effects import Effects
from circuitgraph.errors import SweepError
from circuitgraph.files import Strict, check_sum, check_with, checksum, read_json, write_file
from circuitgraph.plan import Axis
from circuitgraph.sweeps.executor import Cut, Description, Finished
from circuitgraph.sweeps.frame import Frame
from circuitgraph.sweeps.manifest import Manifest, Part

__all__ = ["Sweep", "begin", "open_sweep"]

ABOUT, PARTS = "sweep.json", "parts"


class _Array(Strict):
    dtype: Literal["<f8", "<i8"]
    shape: list[int]
    base64: str


class _Axis(Strict):
    dim: str
    values: list[int | str]


class _Frame(Strict):
    axes: list[_Axis]
    attrs: dict[str, Any]
    metrics: list[str] | None
    clean: _Array
    corrupt: _Array
    noise: _Array


class _Piece(Strict):
    cells: list[int]
    prompts: list[int] | None


class _About(Strict):
    format: Literal["circuitgraph sweep"]
    version: Literal[1]
    manifest: Manifest
    frame: _Frame
    cut: list[_Piece]
    passes: float
    seconds: float
    checksum: str


class _PartFile(Strict):
    format: Literal["circuitgraph sweep part"]
    version: Literal[1]
    name: str
    of: str
    piece: _Piece
    places: _Array
    values: _Array
    seconds: float
    checksum: str


@dataclass(frozen=True)
class Sweep:
    """A sweep in a folder.

    Args:
        folder: Where.
        manifest: What is computed.
        frame: What makes effects of the numbers.
        cut: What it is cut into.
    """

    folder: Path
    manifest: Manifest
    frame: Frame
    cut: Cut

    def path(self, part: Part) -> Path:
        """Return where a part's numbers are, or will be."""
        return self.folder / PARTS / f"{part.name}.json"

    @property
    def missing(self) -> tuple[Part, ...]:
        """The parts that are not finished, in order."""
        there = {path.name for path in (self.folder / PARTS).iterdir()}
        return tuple(part for part in self.cut.parts if f"{part.name}.json" not in there)

    @cached_property
    def n_cells(self) -> float:
        """Cells of all parts; a part on some of the prompts counts for its share."""
        return sum(map(self.size, self.cut.parts))

    def size(self, part: Part) -> float:
        """Return how many cells a part has; on some of the prompts a share of them."""
        share = 1.0 if part.prompts is None else len(part.prompts) / self.frame.clean.shape[1]
        return len(part.cells) * share

    def keep(self, finished: Finished) -> None:
        """Write a part's numbers.

        Raises:
            SweepError: They are of another sweep, or the disk is full.
        """
        part = finished.part
        if part not in self.cut.parts:
            raise SweepError(f"part {part.name} is none of the sweep in {str(self.folder)!r}")
        document = {
            "format": "circuitgraph sweep part",
            "version": 1,
            "name": part.name,
            "of": part.of,
            "piece": _piece(part),
            "places": _packed(finished.places, "<i8"),
            "values": _packed(finished.values, "<f8"),
            "seconds": float(finished.seconds),
        }
        _write(self.path(part), document)

    def read(self, part: Part) -> Finished:
        """Return a part with its numbers.

        Raises:
            SweepError: It is not there, or damaged.
        """
        path = self.path(part)
        found = _read(path, _PartFile, "a finished part of a sweep")
        places, values = _unpacked(found.places, path), _unpacked(found.values, path)
        n_metrics, n_prompts = self.frame.clean.shape
        shape = (
            n_metrics,
            len(part.cells),
            n_prompts if part.prompts is None else len(part.prompts),
        )
        if (found.name, found.of, found.piece.model_dump()) != (part.name, part.of, _piece(part)):
            raise SweepError(f"{str(path)!r} holds another part than its name says")
        if values.shape != shape or places.shape != (len(part.cells),):
            raise SweepError(f"{str(path)!r} is damaged: {values.shape} numbers, not {shape}")
        return Finished(part, places.astype(np.int64), values, found.seconds)

    def finished(self) -> Iterator[Finished]:
        """Yield the finished parts with their numbers."""
        missing = set(self.missing)
        for part in self.cut.parts:
            if part not in missing:
                yield self.read(part)

    def effects(self, *, partial: bool = False) -> Effects:
        """Return the joined result.

        Args:
            partial: Whether cells of missing parts may be NaN.

        Raises:
            SweepError: Parts are missing.
        """
        missing = self.missing
        if missing and not partial:
            raise SweepError(
                f"{len(missing)} of {len(self.cut.parts)} parts of the sweep in "
                f"{str(self.folder)!r} are missing: run it on, or pass partial=True for NaN there"
            )
        grid = self.frame.empty()
        for found in self.finished():
            rows = found.part.prompts
            prompts = slice(None) if rows is None else slice(rows.start, rows.stop)
            grid[:, found.places, prompts] = found.values
        return self.frame.effects(grid)


def begin(folder: Path, description: Description, cut: Cut) -> Sweep:
    """Write down what a sweep computes, and return it; its parts are still to be made.

    Raises:
        SweepError: The folder cannot be written to, or holds other things.
    """
    (folder / PARTS).mkdir(exist_ok=True)
    frame = description.frame
    document = {
        "format": "circuitgraph sweep",
        "version": 1,
        "manifest": description.manifest.model_dump(),
        "frame": {
            "axes": [{"dim": axis.dim, "values": list(axis.values)} for axis in frame.axes],
            "attrs": frame.attrs,
            "metrics": None if frame.metrics is None else list(frame.metrics),
            "clean": _packed(frame.clean, "<f8"),
            "corrupt": _packed(frame.corrupt, "<f8"),
            "noise": _packed(frame.noise, "<f8"),
        },
        "cut": [_piece(part) for part in cut.parts],
        "passes": float(cut.passes),
        "seconds": float(cut.seconds),
    }
    _write(folder / ABOUT, document)
    return open_sweep(folder)


def open_sweep(folder: Path) -> Sweep:
    """Return the sweep in a folder.

    Raises:
        SweepError: There is none, or it is damaged.
    """
    path = folder / ABOUT
    about = _read(path, _About, "the folder of a sweep")
    saved = about.frame
    frame = Frame(
        tuple(Axis(axis.dim, tuple(axis.values)) for axis in saved.axes),
        saved.attrs,
        None if saved.metrics is None else tuple(saved.metrics),
        *(_unpacked(array, path) for array in (saved.clean, saved.corrupt, saved.noise)),
    )
    of = about.manifest.digest
    parts = tuple(
        Part(of, range(*piece.cells), None if piece.prompts is None else range(*piece.prompts))
        for piece in about.cut
    )
    (folder / PARTS).mkdir(exist_ok=True)
    return Sweep(folder, about.manifest, frame, Cut(parts, about.passes, about.seconds))


def _piece(part: Part) -> dict[str, Any]:
    prompts = part.prompts
    return {
        "cells": [part.cells.start, part.cells.stop],
        "prompts": None if prompts is None else [prompts.start, prompts.stop],
    }


def _packed(values: NDArray[Any], kind: str) -> dict[str, Any]:
    raw = np.ascontiguousarray(values, dtype=kind)
    text = base64.b64encode(raw.tobytes()).decode()
    return {"dtype": kind, "shape": list(raw.shape), "base64": text}


def _unpacked(array: _Array, path: Path) -> NDArray[Any]:
    try:
        raw = base64.b64decode(array.base64, validate=True)
        return np.frombuffer(raw, dtype=array.dtype).reshape(array.shape).copy()
    except ValueError as error:
        raise SweepError(f"{str(path)!r} is damaged: {error}") from error


def _write(path: Path, document: dict[str, Any]) -> None:
    text = json.dumps(document | {"checksum": checksum(document)}, allow_nan=False)
    write_file(path, text + "\n", SweepError)


def _read(path: Path, schema: Any, what: str) -> Any:
    document = read_json(path, SweepError, f"expected {what}")
    try:
        found = check_with(schema, document)
        check_sum(document)
    except ValueError as error:
        raise SweepError(f"{str(path)!r} is damaged: {error}") from error
    return found
