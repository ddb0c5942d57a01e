"""Sweeps ended at random moments, in this process' forks: nothing finished is lost or made twice.

The drivers are forks, so that many can be killed in little time; what they do is a sweep without
Ray. The large tests print how often they did what.
"""

import os
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import circuitgraph as cg
from circuitgraph.errors import SweepError
from circuitgraph.files.writing import TEMPORARY
from circuitgraph.sweeps import sweep_status
from circuitgraph.sweeps.store import open_sweep
from tests.sweeping import METHOD, REQUEST, logged, make, recipe

CELLS = 10
STOPPED = 99
"""How a driver exits that an error of ours or Ctrl-C has stopped."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> cg.Effects:
    """What one undisturbed process gives."""
    return sweep_to(tmp_path_factory.mktemp("whole"), recipe)


def sweep_to(folder: Path, how: Callable[[], Any]) -> cg.Effects:
    return cg.sweep(how, REQUEST, **METHOD, into=folder, cells=CELLS)


def started(work: Callable[[], Any]) -> int:
    """Begin something in a fork, and return its process."""
    waiting = {signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, waiting)  # until the fork can tell
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waiting)
        return child
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, waiting)
        work()
        code = 0
    except (KeyboardInterrupt, SweepError, cg.CircuitGraphError):
        code = STOPPED
    finally:
        os._exit(code)


def ended(child: int) -> int:
    """Wait for a process: its exit status, or minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for_a_part(driver: int, log: Path) -> None:
    """Return when a driver has begun another part, or has ended."""
    before = log.stat().st_size
    while log.stat().st_size == before:
        if os.waitid(os.P_PID, driver, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None:
            return
        time.sleep(0.001)


def check_kept(folder: Path, whole: cg.Effects) -> int:
    """Everything in the folder is whole and right; return how many parts there are."""
    if not (folder / "sweep.json").exists():
        return 0
    found = open_sweep(folder)
    done = len(list(found.finished()))  # reads each against its checksum
    assert done == len(list((folder / "parts").glob("*.json")))
    there = cg.load_sweep(folder, partial=True).data["patched"].to_numpy()
    known = ~np.isnan(there)
    np.testing.assert_array_equal(there[known], whole.data["patched"].to_numpy()[known])
    return done


def check_joined(folder: Path, whole: cg.Effects) -> None:
    joined = cg.load_sweep(folder)
    np.testing.assert_array_equal(joined.data["patched"], whole.data["patched"])
    assert joined.attrs == whole.attrs
    assert not sweep_status(folder).holder


def interrupted(
    folder: Path, whole: cg.Effects, number: signal.Signals, kills: int, seed: int
) -> dict[str, int]:
    """Send a signal to one driver after the other until a sweep is finished often enough.

    Returns:
        How many drivers were ended and finished, how many parts begun and finished, and how many
        temporary files were left behind.
    """
    rng, counts = random.Random(seed), dict.fromkeys(("ended", "finished", "begun", "left"), 0)
    n_parts, round_ = 0, 0
    while counts["ended"] < kills or n_parts == 0:
        round_ += 1
        place, log = folder / str(round_), folder / f"{round_}.log"
        log.touch()
        stops = 0
        while True:
            driver = started(partial(sweep_to, place, partial(logged, log, 0.02)))
            if counts["ended"] + stops < kills:
                if rng.random() < 0.8:
                    wait_for_a_part(driver, log)
                time.sleep(rng.uniform(0, 0.3))
                os.kill(driver, number)
            code = ended(driver)
            counts["left"] += len(list(place.rglob(TEMPORARY.format("*"))))
            done = check_kept(place, whole)
            if code == 0:
                break
            assert code == (STOPPED if number is signal.SIGINT else -number)
            stops += 1
        check_joined(place, whole)
        begun = len(log.read_text().splitlines())
        n_parts = len(open_sweep(place).cut.parts)
        assert done == n_parts
        # One part was in flight at most where a driver ended; everything else was made once.
        assert n_parts <= begun <= n_parts + stops
        counts["ended"] += stops
        counts["finished"] += n_parts
        counts["begun"] += begun
    return counts


@pytest.mark.parametrize(
    ("number", "kills"),
    [
        (signal.SIGKILL, 4),
        (signal.SIGINT, 2),
        pytest.param(signal.SIGKILL, 200, marks=pytest.mark.large),
        pytest.param(signal.SIGINT, 100, marks=pytest.mark.large),
        pytest.param(signal.SIGTERM, 50, marks=pytest.mark.large),
    ],
)
def test_a_driver_that_is_ended(
    number: signal.Signals, kills: int, whole: cg.Effects, tmp_path: Path
) -> None:
    counts = interrupted(tmp_path, whole, number, kills, seed=kills)
    print(f"\n{number.name}: {counts}")
    assert counts["ended"] >= kills


@pytest.mark.large
def test_a_disk_that_is_full(whole: cg.Effects, tmp_path: Path) -> None:
    """A real one, of a size drawn at random, made larger after each time."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk")
    rng, full, parts = random.Random(3), 0, 0
    for round_ in range(8):
        disk = tmp_path / str(round_)
        disk.mkdir()
        size = rng.randrange(8, 60, 4)
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)]
        if subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("no disk can be mounted here")
        try:
            while True:
                try:
                    sweep_to(disk / "sweep", recipe)
                except SweepError as error:
                    assert "No space left" in str(error)
                    full += 1
                    check_kept(disk / "sweep", whole)
                    assert not list(disk.rglob("*.tmp"))
                    size += rng.randrange(4, 40, 4)
                    larger = ["mount", "-o", f"remount,size={size}k", str(disk)]
                    subprocess.run(larger, check=True)
                else:
                    break
            check_joined(disk / "sweep", whole)
            parts += sweep_status(disk / "sweep").parts
        finally:
            subprocess.run(["umount", str(disk)], check=True)
    print(f"\nfull disk: {full} times, {parts} parts kept")
    assert full >= 8


@pytest.mark.large
def test_a_limit_on_files_and_on_memory(whole: cg.Effects, tmp_path: Path) -> None:
    rng, stopped = random.Random(5), dict.fromkeys(("files", "memory"), 0)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    for number in range(40):
        folder = tmp_path / str(number)
        kind = "files" if number % 2 else "memory"

        def limited(folder: Path = folder, kind: str = kind) -> None:
            if kind == "files":
                resource.setrlimit(resource.RLIMIT_FSIZE, (rng.randrange(1, 2500),) * 2)
            sweep_to(folder, partial(starved, kind == "memory", pages, rng.random()))

        rng.random()
        code = ended(started(limited))
        assert code in (0, 1, STOPPED)
        stopped[kind] += code != 0
        check_kept(folder, whole)
        sweep_to(folder, recipe)
        check_joined(folder, whole)
    print(f"\nlimits: {stopped}")
    assert min(stopped.values()) >= 5


class Starved:
    """An experiment that one part leaves without memory."""

    def __init__(self, when: float, pages: int) -> None:
        self.asked: Any = None
        self.left, self.pages = int(when * 15), pages

    def answering(self, question: Any) -> Any:
        self.asked = make().answering(question)
        return self

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["asked"], name)

    def measure(self, part: Any, advance: Any) -> Any:
        self.left -= 1
        if self.left < 0:
            resource.setrlimit(resource.RLIMIT_AS, (self.pages * resource.getpagesize(),) * 2)
            hold = [bytearray(2**20) for _ in range(100_000)]
            del hold
        return self.asked.measure(part, advance)


def starved(really: bool, pages: int, when: float) -> Any:
    """An experiment for a driver with little memory, or a usual one."""
    return Starved(when, pages) if really else make()


@pytest.fixture(autouse=True)
def _no_children_left() -> Iterator[None]:
    yield
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
