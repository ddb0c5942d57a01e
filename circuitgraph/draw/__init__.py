"""Pictures: circuits and plans through Graphviz, charts through Vega-Lite, the report as HTML.

This room reads what other rooms made and runs nothing. It is imported only when something is drawn;
pygraphviz and vl-convert are imported nowhere else. `circuitgraph.draw.report` holds the report.
"""

from circuitgraph.draw.chart import Chart
from circuitgraph.draw.circuits import circuit_html, draw_circuit
from circuitgraph.draw.drawing import Drawing
from circuitgraph.draw.inline import plan_html, schedule_html
from circuitgraph.draw.plans import draw_plan, draw_plans
from circuitgraph.draw.schedules import draw_schedule

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
