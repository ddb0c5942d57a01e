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
        "checksum": "sha256:...",
    }

``edges`` holds every known edge; ``weight`` and ``interval`` are null where there is none. The
order of edges, of groups and of a group's nodes means nothing. Numbers keep all their digits.
``checksum`` is taken over all the rest (`circuitgraph.files.checksum`); files of earlier versions
have none and are read, too.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from circuitgraph.circuit.attrs import plain_attrs
from circuitgraph.circuit.circuit import Circuit
from circuitgraph.circuit.reading import read_edges, read_groups
from circuitgraph.circuit.weights import Weight
from circuitgraph.errors import CircuitError, NodeError
from circuitgraph.files import Strict, check_sum, check_with, checksum, read_json, write_file
from circuitgraph.graph import ModelShape
from circuitgraph.nodes import Node

__all__ = ["FORMAT", "VERSION", "from_json", "load", "read_shape", "save", "to_json"]

FORMAT = "circuitgraph.circuit"
VERSION = 1

Layers = Annotated[int, Field(ge=1, le=1024)]
Heads = Annotated[int, Field(ge=1, le=1024)]
"""Bounds for what a file says of a model: the largest known have 126 layers of 128 heads."""


class _Shape(Strict):
    n_layers: Layers
    n_heads: Heads
    n_kv_heads: Heads | None = None
    parallel: bool = False
    attn_only: bool = False
    mlp_layers: Annotated[list[int], Field(max_length=1024)] | None = None


class _Edge(Strict):
    weight: float | None
    interval: Annotated[list[float], Field(min_length=2, max_length=2)] | None
    in_circuit: bool


class _File(Strict):
    format: Literal["circuitgraph.circuit"]
    version: Literal[1]
    shape: _Shape
    attrs: dict[str, Any]
    groups: dict[str, list[str]]
    edges: dict[str, _Edge]
    checksum: str | None = None


def save(circuit: Circuit, path: str | Path) -> None:
    """Write a circuit and its checksum to a file, which is written as a whole or not at all."""
    data = to_json(circuit)
    data["checksum"] = checksum(data)
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    write_file(path, text + "\n", CircuitError)


def load(path: str | Path) -> Circuit:
    """Read a circuit from a file that `save` wrote.

    Raises:
        CircuitError: The file is not there, is no circuit, or is newer than this version.
    """
    return from_json(read_json(path, CircuitError), str(path))


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
    if isinstance(data.get("version"), bool) or data.get("version") != VERSION:
        raise CircuitError(
            f"{name} is of version {data.get('version')!r} of the circuit format, and this "
            f"circuitgraph reads version {VERSION}: use the circuitgraph that wrote it"
        )
    try:
        file = check_with(_File, data)
    except ValueError as error:
        raise CircuitError(f"{name} is a damaged circuit file: {error}") from None
    try:
        groups = _groups(file.groups)
        known = read_edges({text: _weight(entry) for text, entry in file.edges.items()})
        inside = read_edges([text for text, entry in file.edges.items() if entry.in_circuit])
        circuit = Circuit(
            read_shape(data["shape"]),
            known,
            frozenset(inside),
            groups,
            file.attrs,
        )
        check_sum(data)
    except (CircuitError, NodeError) as error:
        raise CircuitError(f"{name}: {error}") from None
    except ValueError as error:
        raise CircuitError(f"{name} is a damaged circuit file: {error}") from None
    return circuit


def read_shape(data: Mapping[str, Any]) -> ModelShape:
    """Return the shape that ``dataclasses.asdict`` wrote, also through JSON.

    Example:
        >>> read_shape({"n_layers": 2, "n_heads": 4, "mlp_layers": [1]}).mlp_layers
        (1,)
    """
    names = {field.name for field in fields(ModelShape)}
    unknown = sorted(map(str, data.keys() - names))
    if unknown:
        raise CircuitError(f"unknown parts of a model's shape: {', '.join(unknown)}")
    try:
        read = check_with(_Shape, dict(data))
    except ValueError as error:
        raise CircuitError(f"no shape of a model: {error}") from None
    layers = None if read.mlp_layers is None else tuple(read.mlp_layers)
    return ModelShape(**read.model_dump(exclude={"mlp_layers"}), mlp_layers=layers)


def _groups(named: Mapping[str, list[str]]) -> dict[str, frozenset[Node]]:
    groups = read_groups(named)
    for name, nodes in named.items():
        if len(groups[name]) < len(nodes):
            raise CircuitError(f"a node is twice in the group {name!r}")
    return groups


def _weight(entry: _Edge) -> Weight:
    low, high = entry.interval or (None, None)
    return Weight(entry.weight, low, high)
