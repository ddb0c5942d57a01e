"""Sweeps with workers on Ray: killed at random, they give one process's numbers bit for bit."""

import os
import random
import resource
import signal
import subprocess
import sys
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
from circuitgraph.sweeps.store import open_sweep
from tests.sweeping import METHOD, REQUEST, logged, make, recipe

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
    rng, addresses, killed, rounds = random.Random(kills), set[str](), list[int](), 0

    def kill(folder: Path, over: threading.Event) -> None:
        while not any((folder / "parts").glob("*.json")) and not over.is_set():
            time.sleep(0.01)
        addresses.update(listening())
        while len(killed) < kills and not over.is_set():
            if there := workers():
                victim = rng.choice(there)
                os.kill(victim.pid, signal.SIGKILL)
                killed.append(victim.pid)
                time.sleep(rng.uniform(0, 4))
            time.sleep(0.05)

    while len(killed) < kills:
        rounds, before = rounds + 1, len(killed)
        folder, log = tmp_path / f"{rounds}", tmp_path / f"{rounds}.log"
        slow = partial(logged, log, 0.3 if kills == 1 else 2.0)
        over = threading.Event()
        threading.Thread(target=kill, args=(folder, over), daemon=True).start()
        while True:
            try:
                joined = cg.sweep(slow, REQUEST, **METHOD, into=folder, cells=10, workers=2)
            except SweepError as error:  # one part was killed four times
                assert "the workers ended" in str(error)
                assert len(killed) - before > 3
            else:
                break
        over.set()
        assert addresses == {"127.0.0.1"}
        np.testing.assert_array_equal(patched(joined), patched(whole))
        assert joined.attrs == whole.attrs
        assert not workers()
        begun, n_parts = len(log.read_text().splitlines()), len(open_sweep(folder).cut.parts)
        # A killed worker was at one part at most.
        assert n_parts <= begun <= n_parts + len(killed) - before
    print(f"\n{len(killed)} workers killed in {rounds} sweeps of {n_parts} parts")


@pytest.mark.large
@pytest.mark.parametrize(
    ("what", "times", "seconds"),
    [("driver", 8, 0.5), ("group", 3, 0.5), ("ctrl-c", 4, 0.5), ("raylet", 3, 3.0)],
)
def test_drivers_and_raylets_that_are_ended(
    what: str, times: int, seconds: float, tmp_path: Path
) -> None:
    """At random moments, until the sweep is finished; what is finished is never made again."""
    whole = cg.sweep(recipe, REQUEST, **METHOD, into=tmp_path / "one", cells=10)
    rng, stops, begun, rounds, n_parts = random.Random(times), 0, 0, 0, 0
    while stops < times:
        rounds += 1
        folder, log = tmp_path / str(rounds), tmp_path / f"{rounds}.log"
        log.touch()
        here = 0
        while True:
            words = [sys.executable, "-m", "tests.ray_driver", str(folder), str(log), str(seconds)]
            driver = subprocess.Popen(words, stdout=subprocess.DEVNULL, start_new_session=True)
            family: list[psutil.Process] = []
            if stops + here < times:
                before = len(log.read_text().splitlines())
                while len(log.read_text().splitlines()) == before and driver.poll() is None:
                    time.sleep(0.02)
                time.sleep(rng.uniform(0, 3))
                if driver.poll() is None:
                    family = psutil.Process(driver.pid).children(recursive=True)
                    end(what, driver.pid, family)
            code = driver.wait(timeout=150)
            # Ray's own agents look for their parent every now and then.
            family = [process for process in family if not name_of(process).endswith("Agent")]
            _, alive = psutil.wait_procs(family, timeout=60)
            assert not [process for process in alive if status_of(process) != psutil.STATUS_ZOMBIE]
            found = open_sweep(folder)
            list(found.finished())  # whole, each of them
            if code == 0:
                break
            here += 1
        joined = cg.load_sweep(folder)
        np.testing.assert_array_equal(patched(joined), patched(whole))
        made, n_parts = len(log.read_text().splitlines()), len(found.cut.parts)
        assert n_parts <= made <= n_parts + 2 * here  # two workers, one part each
        stops, begun = stops + here, begun + made
    print(f"\n{what}: ended {stops} times, {rounds} sweeps of {n_parts} parts, {begun} begun")


def status_of(process: psutil.Process) -> str:
    try:
        return str(process.status())
    except psutil.Error:
        return psutil.STATUS_ZOMBIE


def name_of(process: psutil.Process) -> str:
    try:
        return process.name()
    except psutil.Error:
        return "ended"


def end(what: str, driver: int, family: list[psutil.Process]) -> None:
    """End a driver, with its process group, or Ray under it."""
    match what:
        case "driver":
            os.kill(driver, signal.SIGKILL)
        case "group":
            os.killpg(driver, signal.SIGKILL)
        case "ctrl-c":
            os.killpg(driver, signal.SIGINT)
        case _:
            for process in family:
                if process.name() == "raylet":
                    process.kill()


@pytest.mark.large
def test_a_worker_without_memory(tmp_path: Path) -> None:
    """Its sweep ends and says why; with memory the same call goes on."""
    whole = cg.sweep(recipe, REQUEST, **METHOD, into=tmp_path / "one", cells=10)
    folder, times = tmp_path / "two", 0
    for left in (3, 2, 1):
        with pytest.raises(SweepError, match="a worker failed: MemoryError"):
            short = partial(make_short, left)
            cg.sweep(short, REQUEST, **METHOD, into=folder, cells=10, workers=2)
        times += 1
        list(open_sweep(folder).finished())
    joined = cg.sweep(recipe, REQUEST, **METHOD, into=folder, cells=10, workers=2)
    np.testing.assert_array_equal(patched(joined), patched(whole))
    print(f"\nworkers without memory: {times} sweeps ended")


def make_short(parts: int) -> Any:
    """An experiment that runs out of memory after some parts."""
    return Short(make(), parts)


class Short:
    def __init__(self, experiment: cg.Experiment, parts: int) -> None:
        self.experiment, self.parts = experiment, parts
        self.asked: Any = None

    def answering(self, question: Any) -> Any:
        self.asked = self.experiment.answering(question)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["asked"], name)

    def measure(self, part: Any, advance: Any) -> Any:
        self.parts -= 1
        if self.parts < 0:
            limit = 2**20 * 64 + psutil.Process().memory_info().vms
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            bytearray(2**31)
        return self.asked.measure(part, advance)
