"""Plans and schedules as pictures: boards of heads and MLPs, and the rows that are really run."""

from circuitgraph.draw.plans.picture import draw_plan, draw_plans, plan_html
from circuitgraph.draw.plans.schedules import draw_schedule, schedule_html

__all__ = ["draw_plan", "draw_plans", "draw_schedule", "plan_html", "schedule_html"]
