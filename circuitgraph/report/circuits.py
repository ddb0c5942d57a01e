"""The circuit: its picture, which a script lets answer, and all its edges as a table."""

from html import escape

from circuitgraph.circuit import Circuit
from circuitgraph.draw import draw_circuit
from circuitgraph.errors import CircuitError
from circuitgraph.nodes import Edge
from circuitgraph.report.sections import Section
from circuitgraph.report.tables import column_header, decimals, fixed, table_shell

__all__ = ["MAX_KNOWN", "circuit_section"]

MAX_KNOWN = 600
"""Edges in the table: those in the circuit, and the strongest others it knows."""


def circuit_section(circuit: Circuit) -> Section:
    """Return the picture, its slider, what is said of a chosen node, and all edges as a table."""
    body = (
        f"<p>{escape(circuit.summary.removeprefix('Circuit: '))}.</p>"
        f"{_picture(circuit)}<details><summary>All edges as a table</summary>{_table(circuit)}"
        "</details>"
    )
    return Section.of("circuit", "The circuit", body)


def _picture(circuit: Circuit) -> str:
    if not circuit.members:
        return '<p class="notice">The circuit has no edges.</p>'
    try:
        picture = draw_circuit(circuit, title="")
    except CircuitError as error:
        return f'<p class="notice">{escape(str(error))}</p>'
    count = picture.svg.count("data-line=")
    return (
        '<div class="circuit"><div class="controls" hidden><label for="edges">Lines, the strongest '
        f'first</label><input type="range" id="edges" min="1" max="{count}" value="{count}" '
        'aria-describedby="edges-said"><output id="edges-said" for="edges"></output></div>'
        f'<div class="picture scroll" tabindex="0" role="region" aria-label="The circuit">'
        f"{picture.inline}</div>"
        '<aside class="details" aria-live="polite" aria-label="What was chosen" hidden></aside>'
        '<p class="small">Point at a line for its effect and interval. Choose a node to see what '
        "goes in and out.</p></div>"
    )


def _table(circuit: Circuit) -> str:
    edges = _edges(circuit)
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
            f'<tr data-name="{escape(str(edge))}"><th scope="row">{escape(str(edge.sender))}</th>'
            f"<td>{escape(str(edge.receiver))}</td>"
            f'<td class="number" data-value="{value}">{shown}</td>'
            f'<td class="number" data-value="{low}">{interval}</td>'
            f"<td>{'yes' if edge in circuit else ''}</td></tr>"
        )
    heads = [column_header("from", "text"), column_header("to", "text")]
    heads += [column_header(str(circuit.attrs.get("quantity", "weight")), "number")]
    heads += [column_header("interval", "number"), column_header("in the circuit", "text")]
    left = len(circuit.known) - len(edges)
    note = f"{len(edges)} edges" + (f"; {left:,} others are not shown" if left else "")
    return table_shell("table-circuit", "All edges", note, heads, rows)


def _edges(circuit: Circuit) -> list[Edge]:
    """Return the edges in the table: the circuit's, then the strongest others."""
    others = sorted(
        (edge for edge in circuit.known.keys() - circuit.members if circuit.known[edge].size),
        key=lambda edge: (-circuit.known[edge].size, edge),
    )
    return [*circuit.strongest, *others][:MAX_KNOWN]
