"""Effects as charts: heatmaps and bars, comparisons side by side, one against another."""

from circuitgraph.draw.effects.comparison import heatmaps
from circuitgraph.draw.effects.heatmap import heatmap
from circuitgraph.draw.effects.scatter import scatter

__all__ = ["heatmap", "heatmaps", "scatter"]
