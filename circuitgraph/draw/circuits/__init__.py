"""Circuits as pictures: a sketch, its layout by Graphviz, and everything written around it."""

from circuitgraph.draw.circuits.picture import MAX_EDGES, circuit_html, draw_circuit

__all__ = ["MAX_EDGES", "circuit_html", "draw_circuit"]
