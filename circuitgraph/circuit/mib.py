"""A circuit in the file format of the MIB benchmark (arXiv:2504.13151), both ways.

::

    {
        "cfg": {"n_layers": 12, "n_heads": 12, "parallel_attn_mlp": false, "d_model": 768},
        "nodes": {"input": {"in_graph": true}, "a3.h1": {...}, "m0": {...}, "logits": {...}},
        "edges": {"a0.h1->a2.h3<q>": {"score": -0.01, "in_graph": true}, "m3->logits": {...}},
    }

Scores become weights and ``in_graph`` becomes membership. A node is ``in_graph`` when an edge of
the circuit touches it; where a file says otherwise, or says more, that is kept in ``attrs["mib"]``
and written back as long as the circuit's edges are the same.
"""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, assert_never

from pydantic import BaseModel, ConfigDict

from circuitgraph.circuit.attrs import plain_attrs
from circuitgraph.circuit.circuit import Circuit
from circuitgraph.circuit.storage import Heads, Layers
from circuitgraph.circuit.weights import Weight, finite
from circuitgraph.errors import CircuitError, NodeError, Problems
from circuitgraph.files import check_with, read_json, write_file
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits, Node, Port, parse_node, receiver_port

__all__ = ["edge_name", "from_mib", "load_mib", "node_name", "save_mib", "to_mib"]


class _Open(BaseModel):
    """A part of a file that may say more than is read here; all of it is kept."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False, frozen=True)


class _Config(_Open):
    n_layers: Layers
    n_heads: Heads
    n_key_value_heads: Heads | None = None
    parallel_attn_mlp: bool = False


class _InGraph(_Open):
    in_graph: bool


class _File(_Open):
    nodes: dict[str, _InGraph]
    edges: dict[str, dict[str, Any]]


_EDGE = re.compile(r"(?P<sender>[^<>-]+)->(?P<receiver>[^<>-]+)(?:<(?P<port>[qkv])>)?")


def load_mib(path: str | Path) -> Circuit:
    """Read a circuit from a file of the benchmark."""
    return from_mib(read_json(path, CircuitError), str(path))


def save_mib(circuit: Circuit, path: str | Path, missing: float | None = None) -> None:
    """Write a circuit to a file of the benchmark, as a whole or not at all."""
    text = json.dumps(to_mib(circuit, missing), allow_nan=False)
    write_file(path, text, CircuitError)


def node_name(node: Node) -> str:
    """Return the benchmark's name of a node.

    Example:
        >>> node_name(Embed()), node_name(Head(3, 1)), node_name(MLP(0))
        ('input', 'a3.h1', 'm0')
    """
    match node:
        case Embed():
            return "input"
        case Head(layer=layer, head=head):
            return f"a{layer}.h{head}"
        case MLP(layer=layer):
            return f"m{layer}"
        case Logits():
            return "logits"
        case _:
            assert_never(node)


def edge_name(edge: Edge) -> str:
    """Return the benchmark's name of an edge.

    Example:
        >>> edge_name(Edge(Head(0, 1), Head(2, 3).q)), edge_name(Edge(MLP(3), Logits()))
        ('a0.h1->a2.h3<q>', 'm3->logits')
    """
    port = f"<{edge.receiver.name}>" if isinstance(edge.receiver.node, Head) else ""
    return f"{node_name(edge.sender)}->{node_name(edge.receiver.node)}{port}"


def from_mib(data: Any, name: str) -> Circuit:
    """Return the circuit that a file of the benchmark holds.

    Args:
        data: What the file holds.
        name: The file's name, for errors.

    Raises:
        CircuitError: It is not in the format, or names nodes that its model does not have.
    """
    if not isinstance(data, dict) or not {"cfg", "nodes", "edges"} <= data.keys():
        raise CircuitError(
            f"{name} is not in the format of the MIB benchmark: it needs cfg, nodes and edges"
        )
    shape = _shape(data["cfg"], name)
    try:
        check_with(_File, data)
    except ValueError as error:
        raise CircuitError(f"{name}: {error}") from None
    problems = Problems()
    known: dict[Edge, Weight] = {}
    members: set[Edge] = set()
    extra_edges: dict[str, dict[str, Any]] = {}
    for text, entry in data["edges"].items():
        try:
            edge = _edge(text)
            known[edge] = _score(text, entry)
        except CircuitError as error:
            problems.add(error)
            continue
        if entry["in_graph"]:
            members.add(edge)
        if extra := {key: entry[key] for key in entry if key not in ("score", "in_graph")}:
            extra_edges[edge_name(edge)] = extra
    problems.raise_if_any(f"cannot read {name}")
    kept: dict[str, Any] = {"cfg": data["cfg"]}
    if extra_edges:
        kept["edges"] = extra_edges
    if other := {key: data[key] for key in data if key not in ("cfg", "nodes", "edges")}:
        kept["other"] = other
    try:
        if different := dict(_different_nodes(shape, members, data["nodes"])):
            kept["nodes"] = different
        return Circuit(shape, known, frozenset(members), {}, {"mib": kept})
    except CircuitError as error:
        raise CircuitError(f"{name}: {error}") from None


def to_mib(circuit: Circuit, missing: float | None = None) -> dict[str, Any]:
    """Return the circuit as the benchmark's files hold it.

    Args:
        circuit: The circuit.
        missing: The score to write for an edge without a weight.

    Raises:
        CircuitError: An edge without weight and no ``missing``, or a model without all its MLPs.
    """
    shape = circuit.shape
    if shape.attn_only or shape.mlp_layers is not None:
        raise CircuitError("the MIB format has an MLP in every layer, and this model has not")
    bare = sorted(edge for edge, weight in circuit.known.items() if weight.value is None)
    if bare and missing is None:
        raise CircuitError(
            f"the MIB format needs a score for every edge, and {len(bare)} have none, the first "
            f"{str(bare[0])!r}: say what to write for them with missing=0.0"
        )
    kept: Mapping[str, Any] = circuit.attrs.get("mib", {})
    data = plain_attrs(kept.get("other", {}))
    data["cfg"] = plain_attrs(kept["cfg"]) if "cfg" in kept else _cfg(shape)
    data["nodes"] = {
        node_name(node): {"in_graph": inside}
        for node, inside in _membership(shape, circuit.members).items()
    }
    for name, entry in kept.get("nodes", {}).items():
        if entry is None:
            del data["nodes"][name]
        else:
            data["nodes"][name] = plain_attrs(entry)
    extra = kept.get("edges", {})
    data["edges"] = {}
    for edge in sorted(circuit.known, key=lambda edge: (edge.receiver, edge.sender)):
        value = circuit.known[edge].value
        name = edge_name(edge)
        data["edges"][name] = {
            "score": missing if value is None else value,
            "in_graph": edge in circuit.members,
            **plain_attrs(extra.get(name, {})),
        }
    return {"cfg": data.pop("cfg"), "nodes": data.pop("nodes"), "edges": data.pop("edges"), **data}


# -- names to nodes --------------------------------------------------------------------------------


def _node(text: str) -> Node:
    if text == "input":
        return Embed()
    try:
        node = parse_node(text)
    except NodeError:
        node = None
    if node is None or node_name(node) != text:
        raise CircuitError(f"{text!r} is no node of the MIB format: input, a3.h1, m0 or logits")
    return node


def _edge(text: str) -> Edge:
    found = _EDGE.fullmatch(text)
    if found is None:
        raise CircuitError(
            f"{text!r} is no edge of the MIB format, such as 'a0.h1->a2.h3<q>' or 'm3->logits'"
        )
    sender, receiver = _node(found["sender"]), _node(found["receiver"])
    try:
        if found["port"]:
            return Edge(sender, Port(receiver, found["port"]))  # type: ignore[arg-type]
        return Edge(sender, receiver_port(receiver))  # type: ignore[arg-type]
    except NodeError as error:
        raise CircuitError(f"{text!r} is no edge: {error}") from None


def _score(text: str, entry: Any) -> Weight:
    if not isinstance(entry, dict) or not isinstance(entry.get("in_graph"), bool):
        raise CircuitError(f"{text!r} needs a score and in_graph true or false, got {entry!r}")
    score = finite(repr(text), "score", entry.get("score"))
    if score is None:
        raise CircuitError(f"{text!r} has no score")
    return Weight(score)


# -- the model and its nodes -----------------------------------------------------------------------


def _shape(cfg: Any, name: str) -> ModelShape:
    try:
        read = check_with(_Config, cfg)
    except ValueError as error:
        raise CircuitError(
            f"{name}: cfg needs n_layers and n_heads, got {cfg!r:.80}: {error}"
        ) from error
    try:
        return ModelShape(
            n_layers=read.n_layers,
            n_heads=read.n_heads,
            n_kv_heads=read.n_key_value_heads,
            parallel=read.parallel_attn_mlp,
        )
    except NodeError as error:
        raise CircuitError(f"{name}: {error}") from None


def _cfg(shape: ModelShape) -> dict[str, Any]:
    cfg: dict[str, Any] = {
        "n_layers": shape.n_layers,
        "n_heads": shape.n_heads,
        "parallel_attn_mlp": shape.parallel,
    }
    if shape.n_kv_heads is not None:
        cfg["n_key_value_heads"] = shape.n_kv_heads
    return cfg


def _membership(shape: ModelShape, members: frozenset[Edge]) -> dict[Node, bool]:
    """Return for every node of the model whether an edge of the circuit touches it."""
    touched: set[Node] = {edge.sender for edge in members}
    touched |= {edge.receiver.node for edge in members}
    return {node: node in touched for node in ModelGraph(shape).nodes}


def _different_nodes(
    shape: ModelShape, members: set[Edge], nodes: Mapping[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield nodes of which a file says something else than the circuit's edges do."""
    expected = {
        node_name(node): {"in_graph": inside}
        for node, inside in _membership(shape, frozenset(members)).items()
    }
    for name in nodes:
        if name not in expected:
            raise CircuitError(
                f"no node {name!r} in a model of {shape.n_layers} layers of {shape.n_heads} heads"
            )
    for name, entry in expected.items():
        if name not in nodes:
            yield name, None
        elif nodes[name] != entry:
            yield name, nodes[name]
