"""Recipes for the tests of sweeps; importable by name, so that workers can make them."""

from typing import Any

import torch

import circuitgraph as cg
from tests.models import tiny_gpt2

REQUEST = "node -> port => logits"
METHOD = {"variant": "single-pass", "mode": "set"}


def make(seed: int = 1, **options: Any) -> cg.Experiment:
    """Three prompt pairs on a model of 3 layers of 3 heads."""
    torch.set_num_threads(1)
    model = tiny_gpt2()
    metric = options.pop("metric", cg.LogitDiff([1, 2, 3], [5, 6, 7]))
    clean, corrupt = model.tokens(3, 5, 0), model.tokens(3, 5, seed)
    return cg.Experiment(model.bridge, clean, corrupt, metric, progress=False, **options)


def recipe() -> cg.Experiment:
    """The experiment of most tests."""
    return make()
