"""Judgements in files: one readable JSON text for each, that loses nothing.

::

    {
        "format": "circuitgraph judgement",
        "version": 1,
        "kind": "evaluation",
        "about": {"source": "corrupt", "metric": "logit difference", ...},
        "circuit": {...},
        "tables": {"numbers": {"quantity": ["faithfulness", ...], "value": [0.87, ...]}},
        "arrays": {"values": [3.1, ...]},
        "settings": {"n_pruned": 120},
        "checksum": "sha256:...",
    }

Numbers keep all their digits; what is no number is null. ``checksum`` is taken over all the rest.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from circuitgraph.circuit.storage import from_json, to_json
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation.curve import Curve
from circuitgraph.evaluation.evaluation import Evaluation
from circuitgraph.evaluation.hypotheses import CircuitTests
from circuitgraph.evaluation.knockouts import Completeness, Minimality
from circuitgraph.evaluation.ratios import Ratio
from circuitgraph.files import Strict, check_sum, check_with, checksum, read_json, write_file

__all__ = ["FORMAT", "Judgement", "load_judgement", "save_judgement"]

FORMAT = "circuitgraph judgement"
VERSION = 1

Judgement = Evaluation | Curve | Completeness | Minimality | CircuitTests


class _File(Strict):
    format: Literal["circuitgraph judgement"]
    version: Literal[1]
    kind: Literal["evaluation", "curve", "completeness", "minimality", "tests"]
    about: dict[str, Any]
    circuit: dict[str, Any] | None
    tables: dict[str, dict[str, list[bool | int | float | str | None]]]
    arrays: dict[str, list[Any]]
    settings: dict[str, Any]
    checksum: str


def save_judgement(judgement: Judgement, path: str | Path) -> Path:
    """Write a judgement to a file, whole or not at all, and return its path."""
    document: dict[str, Any] = {
        "format": FORMAT,
        "version": VERSION,
        "about": dict(judgement.about),
        "circuit": None,
        "tables": {},
        "arrays": {},
        "settings": {},
    }
    match judgement:
        case Evaluation() as found:
            document["kind"] = "evaluation"
            document["circuit"] = to_json(found.circuit)
            document["arrays"] = {
                name: _numbers(getattr(found, name))
                for name in ("values", "clean", "empty", "baselines")
            }
            for name in ("ratio", "complement_ratio"):
                ratio = getattr(found, name)
                document["arrays"][name] = _numbers(np.array([ratio.value, ratio.low, ratio.high]))
            for name in ("n_pruned", "heads", "mlps", "helps_against", "found_here", "warnings"):
                value = getattr(found, name)
                document["settings"][name] = list(value) if isinstance(value, tuple) else value
        case Curve() as found:
            document["kind"] = "curve"
            document["tables"] = {"sizes": _columns(found.table)}
            document["arrays"] = {"values": [_numbers(row) for row in found.values]}  # noqa: PD011  # no table
            document["settings"] = {"how": found.how, "sign": found.sign}
        case Completeness() as found:
            document["kind"] = "completeness"
            document["tables"] = {"sets": _columns(found.table)}
        case Minimality() as found:
            document["kind"] = "minimality"
            document["tables"] = {"parts": _columns(found.table)}
            document["settings"] = {"by": found.by}
        case CircuitTests() as found:
            document["kind"] = "tests"
            document["tables"] = {"tests": _columns(found.table), "edges": _columns(found.edges)}
    document["checksum"] = checksum(document)
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    return write_file(path, text + "\n", CircuitError)


def load_judgement(path: str | Path) -> Judgement:
    """Return what `save_judgement` wrote.

    Raises:
        CircuitError: The file is not there, is none of ours, or is damaged; says where.
    """
    data = read_json(path, CircuitError)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise CircuitError(f"{path} is no judgement saved by circuitgraph")
    try:
        file = check_with(_File, data)
        check_sum(data)
        return _judgement(file, str(path))
    except CircuitError:
        raise
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise CircuitError(f"{path} is a damaged judgement file: {error}") from None


def _judgement(file: _File, name: str) -> Judgement:
    tables = {key: pd.DataFrame(_restored(columns)) for key, columns in file.tables.items()}
    settings, about = file.settings, file.about
    match file.kind:
        case "evaluation":
            arrays = {key: _array(values) for key, values in file.arrays.items()}
            against = settings["helps_against"]
            return Evaluation(
                from_json(file.circuit, name),
                Ratio(*arrays["ratio"].tolist()),
                Ratio(*arrays["complement_ratio"].tolist()),
                arrays["values"],
                arrays["clean"],
                arrays["empty"],
                arrays["baselines"],
                settings["n_pruned"],
                (settings["heads"][0], settings["heads"][1]),
                (settings["mlps"][0], settings["mlps"][1]),
                None if against is None else (against[0], against[1]),
                settings["found_here"],
                about,
                tuple(settings["warnings"]),
            )
        case "curve":
            values = np.array([_array(row) for row in file.arrays["values"]])
            return Curve(tables["sizes"], values, settings["how"], settings["sign"], about)
        case "completeness":
            return Completeness(tables["sets"], about)
        case "minimality":
            return Minimality(tables["parts"], settings["by"], about)
        case "tests":
            return CircuitTests(tables["tests"], tables["edges"], about)


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _array(values: list[Any]) -> NDArray[np.float64]:
    return np.array([math.nan if value is None else float(value) for value in values])


def _columns(table: pd.DataFrame) -> dict[str, list[Any]]:
    return {
        str(name): [
            None if isinstance(value, float) and not math.isfinite(value) else value
            for value in column.tolist()
        ]
        for name, column in table.items()
    }


def _restored(columns: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Return columns as they were: where a number is missing, the others are numbers."""
    return {
        name: [math.nan if value is None else value for value in values]
        for name, values in columns.items()
    }
