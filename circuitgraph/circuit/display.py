"""How a circuit shows itself: one line, and its strongest edges."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from circuitgraph.circuit.circuit import Circuit

__all__ = ["as_text", "summary"]

_SHOWN = 5


def summary(circuit: "Circuit") -> str:
    """Return how many edges and nodes there are, of which model, in which groups."""
    edges = f"{len(circuit):,} edge{'s' * (len(circuit) != 1)}"
    if len(circuit.known) > len(circuit.members):
        edges += f" (of {len(circuit.known):,} known)"
    nodes = f"{len(circuit.nodes):,} node{'s' * (len(circuit.nodes) != 1)}"
    model = f"{circuit.shape.n_layers} layers of {circuit.shape.n_heads} heads"
    groups = f"; groups: {', '.join(circuit.groups)}" if circuit.groups else ""
    estimate = circuit.attrs.get("estimate")
    by = f"; weights estimated by {estimate}" if estimate else ""
    return f"Circuit: {edges}, {nodes} on {model}{groups}{by}"


def as_text(circuit: "Circuit") -> str:
    """Return the summary and the strongest edges with their weights."""
    lines = [summary(circuit)]
    shown = circuit.strongest[:_SHOWN]
    width = max((len(str(edge)) for edge in shown), default=0)
    for edge in shown:
        weight = circuit.known[edge]
        known = "" if weight.value is None else str(weight)
        lines.append(f"  {str(edge).ljust(width)}   {known}".rstrip())
    if len(circuit) > len(shown):
        lines.append(f"  and {len(circuit) - len(shown):,} more")
    return "\n".join(lines)
