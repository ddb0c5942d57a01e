"""Reading what a caller gives as edges, nodes and groups, and checking it against the graph."""

from collections.abc import Iterable, Mapping

from circuitgraph.arguments import collection, mapping
from circuitgraph.circuit.weights import Weight, as_weight
from circuitgraph.errors import CircuitError, NodeError, Problems
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import (
    MLP,
    Edge,
    Embed,
    Head,
    Logits,
    Node,
    parse_node,
    parse_port,
)

__all__ = [
    "check_edges",
    "check_groups",
    "check_same_shape",
    "read_edge",
    "read_edges",
    "read_groups",
    "read_node",
]


def read_node(given: Node | str) -> Node:
    """Return a node from an object or its name.

    Raises:
        CircuitError: It is neither.

    Example:
        >>> read_node("9.6")
        Head(layer=9, head=6)
    """
    if isinstance(given, Embed | Head | MLP | Logits):
        return given
    if not isinstance(given, str):
        raise CircuitError(
            f"{given!r} ({type(given).__name__}) is no node: give a Head, MLP, Embed or Logits, "
            "or a name such as '9.6'"
        )
    try:
        return parse_node(given)
    except NodeError as error:
        raise CircuitError(str(error)) from None


def read_edge(given: Edge | str) -> Edge:
    """Return an edge from an object or its text.

    Raises:
        CircuitError: It is neither.

    Example:
        >>> str(read_edge("L5H5->a8.h6.v"))
        '5.5 -> 8.6.v'
    """
    if isinstance(given, Edge):
        return given
    if not isinstance(given, str):
        raise CircuitError(
            f"{given!r} ({type(given).__name__}) is no edge: give an Edge or its text, "
            "such as '5.5 -> 8.6.v'"
        )
    ends = given.split("->")
    if len(ends) != 2:
        raise CircuitError(
            f"{given!r} is no edge: write one sender and one receiver, such as '5.5 -> 8.6.v'"
        )
    try:
        return Edge(parse_node(ends[0]), parse_port(ends[1]))  # type: ignore[arg-type]
    except NodeError as error:
        raise CircuitError(f"{given!r} is no edge: {error}") from None


def read_edges(
    given: Iterable[Edge | str] | Mapping[Edge, object] | Mapping[str, object],
) -> dict[Edge, Weight]:
    """Return edges with their weights, from a mapping or a collection without weights.

    Raises:
        CircuitError: What cannot be read, all of it listed; or an edge given twice.

    Example:
        >>> read_edges(["9.9 -> logits"])
        {Edge(...): Weight(value=None, low=None, high=None)}
    """
    if isinstance(given, str | Edge):
        given = [given]
    pairs: Iterable[tuple[Edge | str, object]]
    if isinstance(given, Mapping):
        pairs = given.items()
    else:
        pairs = ((edge, None) for edge in collection("edges", given, "edges", CircuitError))
    problems = Problems()
    known: dict[Edge, Weight] = {}
    for name, value in pairs:
        try:
            edge = read_edge(name)
            weight = as_weight(value, str(edge))
        except CircuitError as error:
            problems.add(error)
            continue
        if edge in known:
            problems.add(CircuitError(f"the edge {edge} is given twice"))
        known[edge] = weight
    problems.raise_if_any("cannot make a circuit")
    return known


def read_groups(given: Mapping[str, Iterable[Node | str]]) -> dict[str, frozenset[Node]]:
    """Return named groups with their nodes, from objects or names.

    Example:
        >>> read_groups({"negative": ["10.7"]})
        {'negative': frozenset({Head(layer=10, head=7)})}
    """
    groups = {}
    for name, nodes in mapping("groups", given, "names to nodes", CircuitError).items():
        one = isinstance(nodes, str)
        members = [nodes] if one else collection(f"group {name!r}", nodes, "nodes", CircuitError)
        groups[str(name)] = frozenset(read_node(node) for node in members)
    return groups


def check_edges(graph: ModelGraph, known: Mapping[Edge, Weight], members: frozenset[Edge]) -> None:
    """Raise one `CircuitError` that lists every edge the graph does not have."""
    problems = Problems()
    for edge, weight in known.items():
        if not isinstance(edge, Edge) or not isinstance(weight, Weight):
            raise CircuitError(
                f"known maps each Edge to a Weight, got {edge!r}: {weight!r}; "
                "Circuit.from_edges takes texts and numbers"
            )
        problem = (
            graph.problem(edge.sender)
            or graph.problem(edge.receiver)
            or graph.order_problem(edge.sender, edge.receiver)
        )
        if problem is not None:
            problems.add(CircuitError(f"no edge {str(edge)!r}: {problem}"))
    for edge in sorted(members - known.keys()):
        problems.add(CircuitError(f"{edge} is in the circuit but not among the known edges"))
    problems.raise_if_any("cannot make a circuit")


def check_groups(graph: ModelGraph, groups: Mapping[str, frozenset[Node]]) -> None:
    """Raise one `CircuitError` for nodes the graph does not have, or that are in two groups."""
    problems = Problems()
    owner: dict[Node, str] = {}
    for name, nodes in groups.items():
        for node in sorted(nodes):
            if problem := graph.problem(node):
                problems.add(CircuitError(f"group {name!r}: {problem}"))
            if node in owner:
                problems.add(
                    CircuitError(f"{node} is in groups {owner[node]!r} and {name!r}: choose one")
                )
            owner[node] = name
    problems.raise_if_any("cannot group the nodes of a circuit")


def check_same_shape(left: ModelShape, right: ModelShape) -> None:
    """Raise `CircuitError` unless both circuits belong to models of one shape."""
    if left != right:
        raise CircuitError(
            f"circuits of different models cannot be joined or compared: {left} and {right}"
        )
