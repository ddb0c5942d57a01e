"""`Experiment`: a model, clean and corrupt prompts and a metric; the face that most people use.

It checks everything before the first forward pass, records the prompts once, compiles requests,
hands plans to an engine and labels what comes back. It knows nothing of files or drawing.
"""

from circuitgraph.experiment.experiment import Experiment
from circuitgraph.experiment.method import Method
from circuitgraph.experiment.source import Given, Mean

__all__ = ["Experiment", "Given", "Mean", "Method"]
