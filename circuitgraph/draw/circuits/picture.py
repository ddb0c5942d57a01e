"""Circuits as pictures: layers from the embedding to the logits, one line per edge."""

from html import escape
from typing import get_args

from circuitgraph.arguments import flag, text, whole
from circuitgraph.circuit import Circuit
from circuitgraph.draw.circuits.figure import figure_dot
from circuitgraph.draw.circuits.layout import Rankdir, place
from circuitgraph.draw.circuits.rendering import draw_dot
from circuitgraph.draw.circuits.sketch import sketch_groups, sketch_nodes
from circuitgraph.draw.drawing import Drawing
from circuitgraph.errors import CircuitError
from circuitgraph.nodes import Edge
from circuitgraph.request.brief import brief

__all__ = ["MAX_EDGES", "circuit_html", "draw_circuit"]

MAX_EDGES = 200
"""How many edges a picture shows unless asked for more: beyond, nobody can follow them."""


def draw_circuit(
    circuit: Circuit,
    *,
    title: str | None = None,
    rankdir: Rankdir = "TB",
    labels: bool = False,
    bundle: bool = False,
    max_edges: int = MAX_EDGES,
    legend: bool = True,
) -> Drawing:
    """Return a picture of a circuit.

    Rows are layers, from the embedding to the logits. A line's colour and dash say which port it
    enters (q, k, v, or the one of an MLP or the logits), its width how large the weight is, its
    head which way the edge works. Named groups are labelled boxes. Needs pygraphviz, nothing else.

    Args:
        circuit: What to draw.
        title: The line above the picture; None takes the request and variant where the circuit
            carries them. An empty text leaves it out.
        rankdir: Where the residual stream runs: ``TB`` down, ``BT`` up, ``LR`` to the right.
        labels: Write every weight beside its line.
        bundle: Draw each group as one box and all edges between two groups as one line per port,
            as wide as their weights together: the shape of a large circuit at a glance.
        max_edges: Draw at most this many edges (with ``bundle``, lines), the largest weights first;
            the picture says so.
        legend: Explain lines and widths below the picture.

    Raises:
        CircuitError: A circuit without edges; an unknown ``rankdir``; more than ``max_edges`` edges
            without weights, so that nobody can say which matter most.

    Example:
        >>> from circuitgraph.graph import ModelShape
        >>> shape = ModelShape(n_layers=12, n_heads=12)
        >>> circuit = Circuit.from_edges(shape, {"8.6 -> 9.9.q": -0.2, "9.9 -> logits": -0.5})
        >>> draw_circuit(circuit, title="Name mover 9.9")
        Drawing: Name mover 9.9: 2 edges, 3 nodes
    """
    if not isinstance(rankdir, str) or rankdir not in get_args(Rankdir):
        allowed = ", ".join(map(repr, get_args(Rankdir)))
        raise CircuitError(f"rankdir must be one of {allowed}, got {rankdir!r}")
    if not circuit.members:
        raise CircuitError("nothing to draw: the circuit has no edges")
    max_edges = whole("max_edges", max_edges, CircuitError, 1)
    if title is not None:
        text("title", title, CircuitError)
    for name, given in (("labels", labels), ("bundle", bundle), ("legend", legend)):
        flag(name, given, CircuitError)
    edges, note = _bundled(circuit) if bundle else _strongest(circuit, max_edges)
    sketch = sketch_groups(circuit, edges) if bundle else sketch_nodes(circuit, edges)
    if bundle and len(sketch.lines) > max_edges:
        left = f"the strongest {max_edges} of {len(sketch.lines):,} lines"
        sketch, note = sketch.strongest(max_edges), "; ".join(filter(None, (left, note)))
    heading = _title(circuit) if title is None else title
    said = f"{len(edges)} edge{'s' * (len(edges) != 1)}, {len(circuit.nodes)} nodes"
    words = ": ".join(filter(None, (heading, note or said)))
    dot = figure_dot(
        sketch,
        place(sketch, rankdir, ranked=not bundle),
        title=heading,
        note=note,
        quantity=str(circuit.attrs.get("quantity", "weight")),
        helps={"negative": -1, "positive": 1}.get(str(circuit.attrs.get("helps")), 0),
        labels=labels,
        legend=legend,
    )
    return draw_dot(dot, words)


def circuit_html(circuit: Circuit) -> str:
    """Return a circuit for a notebook: its summary, and the picture below."""
    summary = f"<p>{escape(circuit.summary)}</p>"
    if not circuit.members:
        return summary
    try:
        picture = draw_circuit(circuit)._repr_html_()
    except CircuitError as error:
        return f"{summary}<p><small>{escape(str(error))}</small></p>"
    return f"{summary}{picture}"


def _strongest(circuit: Circuit, max_edges: int) -> tuple[tuple[Edge, ...], str]:
    """Return the edges to draw, and what to say where that is not all of them."""
    total = len(circuit)
    if total <= max_edges:
        return circuit.edges, ""
    bare = [edge for edge in circuit.members if circuit.known[edge].value is None]
    if bare:
        raise CircuitError(
            f"cannot choose the strongest {max_edges} of {total:,} edges: {len(bare):,} have no "
            f"weight. Draw all of them with max_edges={total}, or groups with bundle=True"
        )
    return circuit.strongest[:max_edges], f"the strongest {max_edges} of {total:,} edges"


def _bundled(circuit: Circuit) -> tuple[tuple[Edge, ...], str]:
    """Return all edges, and what to say where some run inside one group and so are not seen."""
    if not circuit.groups:
        raise CircuitError("bundle=True draws groups, and the circuit has none: use with_groups")
    owner = {node: name for name, nodes in circuit.groups.items() for node in nodes}
    inside = sum(
        edge.sender in owner and owner[edge.sender] == owner.get(edge.receiver.node)
        for edge in circuit.members
    )
    if inside == len(circuit):
        raise CircuitError("nothing to draw: every edge runs inside one group")
    plural = "edge inside a group is" if inside == 1 else "edges inside groups are"
    return circuit.edges, f"{inside} {plural} not drawn" if inside else ""


def _title(circuit: Circuit) -> str:
    """Return what the circuit was made from, where it says so."""
    request, variant = circuit.attrs.get("request"), circuit.attrs.get("variant")
    estimate = circuit.attrs.get("estimate")
    by = f"estimated by {estimate}" if estimate else None
    return ", ".join(brief(str(part)) for part in (request, variant, by) if part)
