"""A circuit as a JSON file of our own, which holds all of it.

::

    {
        "format": "circuitgraph.circuit",
        "version": 1,
        "shape": {
            "n_layers": 12,
            "n_heads": 12,
            "n_kv_heads": null,
            "parallel": false,
            "attn_only": false,
            "mlp_layers": null,
        },
        "attrs": {"request": "head -> logits", "variant": "mlps"},
        "groups": {"name movers": ["9.6", "9.9"]},
        "edges": {
            "9.9 -> logits": {"weight": -0.53, "interval": [-0.58, -0.48], "in_circuit": true}
        },
    }

``edges`` holds every known edge; ``weight`` and ``interval`` are null where there is none. The
order of edges, of groups and of a group's nodes means nothing. Numbers keep all their digits.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from circuitgraph.circuit.attrs import plain_attrs
from circuitgraph.circuit.circuit import Circuit
from circuitgraph.circuit.reading import read_edges, read_groups
from circuitgraph.circuit.weights import Weight
from circuitgraph.errors import CircuitError, NodeError
from circuitgraph.graph import ModelShape

__all__ = ["FORMAT", "VERSION", "from_json", "load", "read_json", "save", "to_json"]

FORMAT = "circuitgraph.circuit"
VERSION = 1


def save(circuit: Circuit, path: str | Path) -> None:
    """Write a circuit to a file."""
    text = json.dumps(to_json(circuit), indent=1, ensure_ascii=False, allow_nan=False)
    Path(path).write_text(text + "\n", encoding="utf-8")


def load(path: str | Path) -> Circuit:
    """Read a circuit from a file that `save` wrote.

    Raises:
        CircuitError: The file is not there, is no circuit, or is newer than this version.
    """
    return from_json(read_json(path), str(path))


def to_json(circuit: Circuit) -> dict[str, Any]:
    """Return a circuit as plain lists and dicts, in a stable order."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "shape": asdict(circuit.shape),
        "attrs": plain_attrs(circuit.attrs),
        "groups": {
            name: [str(node) for node in sorted(nodes)] for name, nodes in circuit.groups.items()
        },
        "edges": {
            str(edge): {
                "weight": weight.value,
                "interval": weight.interval,
                "in_circuit": edge in circuit.members,
            }
            for edge, weight in sorted(circuit.known.items(), key=lambda item: item[0])
        },
    }


def from_json(data: Any, name: str) -> Circuit:
    """Return the circuit that `to_json` turned into plain data.

    Args:
        data: What the file holds.
        name: The file's name, for errors.

    Raises:
        CircuitError: It is no circuit, or of a newer version.
    """
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        hint = ""
        if isinstance(data, dict) and {"cfg", "nodes", "edges"} <= data.keys():
            hint = ": it looks like a file of the MIB benchmark, read it with Circuit.from_mib"
        raise CircuitError(f"{name} is no circuit saved by circuitgraph{hint}")
    if data.get("version") != VERSION:
        raise CircuitError(
            f"{name} is of version {data.get('version')!r} of the circuit format, and this "
            f"circuitgraph reads version {VERSION}: use the circuitgraph that wrote it"
        )
    try:
        edges = data["edges"]
        known = read_edges({edge: _weight(entry) for edge, entry in edges.items()})
        inside = read_edges([edge for edge, entry in edges.items() if entry["in_circuit"]])
        return Circuit(
            read_shape(data["shape"]),
            known,
            frozenset(inside),
            read_groups(data["groups"]),
            data["attrs"],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise CircuitError(f"{name} is a damaged circuit file: {error!r}") from None
    except (CircuitError, NodeError) as error:
        raise CircuitError(f"{name}: {error}") from None


def read_shape(data: Mapping[str, Any]) -> ModelShape:
    """Return the shape that ``dataclasses.asdict`` wrote, also through JSON.

    Example:
        >>> read_shape({"n_layers": 2, "n_heads": 4, "mlp_layers": [1]}).mlp_layers
        (1,)
    """
    names = {field.name for field in fields(ModelShape)}
    unknown = sorted(data.keys() - names)
    if unknown:
        raise CircuitError(f"unknown parts of a model's shape: {', '.join(unknown)}")
    given = dict(data)
    if given.get("mlp_layers") is not None:
        given["mlp_layers"] = tuple(given["mlp_layers"])
    return ModelShape(**given)


def read_json(path: str | Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        CircuitError: The file is not there or not JSON.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CircuitError(f"no file {str(path)!r}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CircuitError(f"{path} is not JSON: {error}") from None


def _weight(entry: Mapping[str, Any]) -> Weight:
    low, high = entry["interval"] or (None, None)
    return Weight(entry["weight"], low, high)
