"""The circuit as data for the interactive picture, and as a table."""

from html import escape
from typing import Any, assert_never

from circuitgraph.circuit import Circuit
from circuitgraph.draw.palette import TINTS
from circuitgraph.draw.report.data import number
from circuitgraph.draw.report.sections import Section
from circuitgraph.draw.report.tables import column_header, decimals, fixed, table_shell
from circuitgraph.nodes import MLP, Edge, Embed, Head, Logits, Node, describe

__all__ = ["MAX_KNOWN", "circuit_data", "circuit_section"]

MAX_KNOWN = 600
"""Edges that travel in the page: those in the circuit, and the strongest others it knows."""


def circuit_data(circuit: Circuit) -> dict[str, Any]:
    """Return nodes, edges, groups and how strong an edge must be at first.

    Edges come strongest first, those without a weight before all others, since no threshold can
    leave them out. The slider widens the circuit to edges that it knows and that are not in it only
    where the circuit is itself a choice by strength.
    """
    edges, chosen, by_strength = _edges(circuit)
    nodes = sorted({end for edge in edges for end in (edge.sender, edge.receiver.node)})
    place = {node: at for at, node in enumerate(nodes)}
    groups = list(circuit.groups)
    owner = {
        node: groups.index(name) for name, members in circuit.groups.items() for node in members
    }
    return {
        "layers": circuit.shape.n_layers,
        "heads": circuit.shape.n_heads,
        "helps": {"negative": -1, "positive": 1}.get(str(circuit.attrs.get("helps")), 0),
        "quantity": str(circuit.attrs.get("quantity", "weight")),
        "groups": [{"name": name, "tint": at % len(TINTS)} for at, name in enumerate(groups)],
        "nodes": [_node(node, owner.get(node)) for node in nodes],
        "edges": [_edge(circuit, edge, place) for edge in edges],
        "shown": chosen,
        "known": len(circuit.known) if by_strength else len(edges),
        "members": len(circuit),
    }


def circuit_section(circuit: Circuit) -> Section:
    """Return room for the picture, its slider, what is said of a node, and all edges as a table."""
    edges, _, by_strength = _edges(circuit)
    digits = decimals(max((circuit.known[edge].size for edge in edges), default=0.0))
    rows = []
    for edge in edges:
        weight = circuit.known[edge]
        ends = weight.interval
        interval = " to ".join(fixed(end, digits) for end in ends) if ends else ""
        low = f"{ends[0]:.6g}" if ends else ""
        value = "" if weight.value is None else f"{weight.value:.6g}"
        shown = "–" if weight.value is None else fixed(weight.value, digits)
        rows.append(
            f'<tr data-edge="{escape(str(edge))}"><th scope="row">{escape(str(edge.sender))}</th>'
            f"<td>{escape(str(edge.receiver))}</td>"
            f'<td class="number" data-value="{value}">{shown}</td>'
            f'<td class="number" data-value="{low}">{interval}</td>'
            f"<td>{'yes' if edge in circuit else ''}</td></tr>"
        )
    heads = [column_header("from", "text"), column_header("to", "text")]
    heads += [column_header(str(circuit.attrs.get("quantity", "weight")), "number")]
    heads += [column_header("interval", "number"), column_header("in the circuit", "text")]
    left = len(circuit.known) - len(edges)
    others = "weaker ones" if by_strength else "others, not in the circuit,"
    note = f"{len(edges)} edges" + (f"; {left:,} {others} are not shown" if left else "")
    body = (
        f"<p>{escape(circuit.summary.removeprefix('Circuit: '))}.</p>"
        '<div data-draw="circuit"></div>'
        f"{table_shell('table-circuit', 'All edges', note, heads, rows)}"
    )
    return Section.of("circuit", "The circuit", body)


def _edges(circuit: Circuit) -> tuple[list[Edge], int, bool]:
    """Return the edges that travel, in order, and how many of them the picture shows at first.

    And whether the circuit is a choice by strength, so that all that is left out is weaker.
    """
    members = list(circuit.strongest)
    bare = [edge for edge in members if circuit.known[edge].value is None]
    weighted = [edge for edge in members if circuit.known[edge].value is not None]
    others = sorted(
        (
            edge
            for edge, weight in circuit.known.items()
            if edge not in circuit.members and weight.value is not None
        ),
        key=lambda edge: (-circuit.known[edge].size, edge),
    )
    weakest = circuit.known[weighted[-1]].size if weighted else 0.0
    by_strength = not others or (bool(weighted) and circuit.known[others[0]].size <= weakest)
    found = [*bare, *weighted, *(others if by_strength else ())][:MAX_KNOWN]
    return found, min(len(members), len(found)), by_strength


def _node(node: Node, group: int | None) -> dict[str, Any]:
    data: dict[str, Any]
    match node:
        case Embed():
            data = {"kind": "embed"}
        case Logits():
            data = {"kind": "logits"}
        case Head(layer=layer, head=head):
            data = {"kind": "head", "layer": layer, "head": head}
        case MLP(layer=layer):
            data = {"kind": "mlp", "layer": layer}
        case _:
            assert_never(node)
    data |= {"name": str(node), "words": describe(node)}
    return data if group is None else data | {"group": group}


def _edge(circuit: Circuit, edge: Edge, place: dict[Node, int]) -> dict[str, Any]:
    weight = circuit.known[edge]
    data: dict[str, Any] = {
        "from": place[edge.sender],
        "to": place[edge.receiver.node],
        "port": edge.receiver.name,
        "name": f"{edge.sender} → {edge.receiver}",
    }
    if weight.value is not None:
        data["weight"] = number(weight.value)
    if weight.interval is not None:
        data["low"], data["high"] = (number(end) for end in weight.interval)
    return data
