"""Sweeps with workers on Ray: killed at random, they give one process's numbers bit for bit."""

import os
import random
import signal
import threading
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import circuitgraph as cg
from circuitgraph.errors import SweepError
from tests.sweeping import METHOD, REQUEST, make, recipe

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("ray"),
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
]


def workers() -> list[psutil.Process]:
    """The processes that hold an experiment."""
    children = psutil.Process().children(recursive=True)
    return [
        child for child in children if child.is_running() and "_Worker" in " ".join(child.cmdline())
    ]


def listening() -> set[str]:
    """The addresses at which this process' children listen."""
    found = set()
    for child in psutil.Process().children(recursive=True):
        for connection in child.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                found.add(connection.laddr.ip.removeprefix("::ffff:"))
    return found


def patched(effects: cg.Effects) -> np.ndarray[Any, Any]:
    return effects.data["patched"].to_numpy()


@pytest.mark.parametrize(
    "kills", [1, pytest.param(12, marks=[pytest.mark.large])], ids=["once", "often"]
)
def test_killed_workers_change_nothing(kills: int, tmp_path: Path) -> None:
    whole = cg.sweep(recipe, REQUEST, **METHOD, into=tmp_path / "one", cells=10)
    rng, addresses, killed = random.Random(kills), set[str](), []

    def kill() -> None:
        while not any((tmp_path / "two" / "parts").glob("*.json")):
            time.sleep(0.01)
        addresses.update(listening())
        for _ in range(kills):
            if there := workers():
                victim = rng.choice(there)
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(victim.pid)
            time.sleep(rng.uniform(0, 6))

    threading.Thread(target=kill, daemon=True).start()
    slow = partial(make_slow, 0.3)
    joined = cg.sweep(slow, REQUEST, **METHOD, into=tmp_path / "two", cells=10, workers=2)
    assert killed
    assert addresses == {"127.0.0.1"}
    np.testing.assert_array_equal(patched(joined), patched(whole))
    assert joined.attrs == whole.attrs
    assert not workers()


def make_slow(seconds: float) -> Any:
    """An experiment whose parts take their time, so that kills fall into them."""
    return Slow(make(), seconds)


class Slow:
    def __init__(self, experiment: cg.Experiment, seconds: float) -> None:
        self.experiment, self.seconds = experiment, seconds

    def answering(self, question: Any) -> Any:
        return SlowAnswering(self.experiment.answering(question), self.seconds)


class SlowAnswering:
    def __init__(self, asked: Any, seconds: float) -> None:
        self.asked, self.seconds = asked, seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["asked"], name)

    def measure(self, part: Any, advance: Any) -> Any:
        time.sleep(self.seconds)
        return self.asked.measure(part, advance)


def test_what_a_worker_cannot_do_is_said_here(tmp_path: Path) -> None:
    with pytest.raises(cg.CircuitGraphError, match=r"no node '9.9'"):
        cg.sweep(recipe, "9.9 -> logits", into=tmp_path, workers=1, ray="local")
    with pytest.raises(SweepError, match="2 workers that take 4 GPU each need 8, and there are"):
        cg.sweep(recipe, "0.1 -> logits", into=tmp_path, workers=2, gpus=4)
    assert not (tmp_path / "sweep.json").exists()
