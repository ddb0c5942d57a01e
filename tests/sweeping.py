"""Recipes for the tests of sweeps; importable by name, so that workers can make them."""

import os
import time
from pathlib import Path
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


def logged(log: Path, seconds: float = 0.0) -> "Logged":
    """The same, each part taking its time and written down when it begins."""
    return Logged(make(), log, seconds)


class Logged:
    """An experiment that writes down which parts were begun, in which process."""

    def __init__(self, experiment: cg.Experiment, log: Path, seconds: float) -> None:
        self.experiment, self.log, self.seconds = experiment, log, seconds

    def answering(self, question: Any) -> Any:
        return LoggedAnswering(self.experiment.answering(question), self)


class LoggedAnswering:
    def __init__(self, asked: Any, logged: Logged) -> None:
        self.asked, self.logged = asked, logged

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["asked"], name)

    def measure(self, part: Any, advance: Any) -> Any:
        with self.logged.log.open("a") as log:  # one short write, whole whatever is killed
            log.write(f"{part.name} {os.getpid()}\n")
        time.sleep(self.logged.seconds)
        return self.asked.measure(part, advance)
