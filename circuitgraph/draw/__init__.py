"""Pictures: circuits through Graphviz, effects, curves, plans and schedules through Vega-Lite.

This room reads what other rooms made and runs nothing. It is imported only when something is drawn;
pygraphviz and vl-convert are imported nowhere else. Every picture is one specification (`Drawing`,
`Chart`), from which notebook, page, SVG, PNG and PDF follow.
"""

from circuitgraph.draw.chart import Chart
from circuitgraph.draw.circuits import circuit_html, draw_circuit
from circuitgraph.draw.drawing import Drawing
from circuitgraph.draw.plans import (
    draw_plan,
    draw_plans,
    draw_schedule,
    plan_html,
    schedule_html,
)

__all__ = [
    "Chart",
    "Drawing",
    "circuit_html",
    "draw_circuit",
    "draw_plan",
    "draw_plans",
    "draw_schedule",
    "plan_html",
    "schedule_html",
]
