"""Pictures: circuits through Graphviz, effects and comparisons as plotly figures.

This room reads what other rooms made and runs nothing. It is imported only when something is drawn;
pygraphviz and plotly are imported nowhere else.
"""

from circuitgraph.draw.circuits import circuit_html, draw_circuit
from circuitgraph.draw.drawing import Drawing

__all__ = ["Drawing", "circuit_html", "draw_circuit"]
