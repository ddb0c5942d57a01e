"""Kills writers at random moments, for `test_files_killed`: ``python -m tests.killing FOLDER N``.

A process of its own, because it forks: a child for every kill, which writes one file over and over,
two contents in turn, until it is killed with signal 9. Prints what it found as JSON.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import numpy as np

from circuitgraph.circuit import Circuit
from circuitgraph.draw import Drawing
from circuitgraph.effects import Comparison, Effects
from circuitgraph.files import MANIFEST, ResultsFolder
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.report import Report

PATIENCE = 0.03
"""Seconds that a child lives at most, about the time that two or three of these files take."""


def effects(seed: int) -> Effects:
    rng = np.random.default_rng(seed)
    return Effects.from_arrays(
        rng.normal(size=(12, 12, 8)),
        rng.normal(4, 1, 8),
        rng.normal(0, 1, 8),
        {"layer": range(12), "head": range(12)},
    )


def circuit(seed: int) -> Circuit:
    shape = ModelShape(4, 4)
    edges = {edge: number * 0.5**seed for number, edge in enumerate(ModelGraph(shape).edges())}
    return Circuit.from_edges(shape, edges)


def drawing(seed: int) -> Drawing:
    boxes = "".join(f'<rect x="{n}" y="{seed}" width="1" height="1"/>' for n in range(200))
    return Drawing(f"<svg>{boxes}</svg>", dot=f"digraph {{ {'a ' * 200 * seed} }}")


def publish(path: Path, seed: int) -> None:
    results = ResultsFolder(path)
    for name in ("a", "b", f"only-{seed}"):
        (results.staged / name).write_text(str(seed) * 20_000)
    results.publish()


Write = Callable[[Path, int], object]
Made = tuple[Write, Write]


def writers() -> dict[str, Write]:
    """Every writer of the package: a file's name, and what writes content 1 or 2 to it."""
    results = {seed: effects(seed) for seed in (1, 2)}
    circuits = {seed: circuit(seed) for seed in (1, 2)}
    drawings = {seed: drawing(seed) for seed in (1, 2)}
    both = {seed: Comparison(dict.fromkeys("ab", results[seed])) for seed in (1, 2)}
    reports = {
        seed: Report(question=f"{seed}? " * 2000, versions={"a": str(seed)}) for seed in (1, 2)
    }
    return {
        "effects.json": lambda path, seed: results[seed].save(path),
        "comparison.json": lambda path, seed: both[seed].save(path),
        "effects.csv": lambda path, seed: results[seed].to_csv(path),
        "circuit.json": lambda path, seed: circuits[seed].save(path),
        "mib.json": lambda path, seed: circuits[seed].to_mib(path),
        "drawing.dot": lambda path, seed: drawings[seed].save(path),
        "drawing.svg": lambda path, seed: drawings[seed].save(path),
        "drawing.html": lambda path, seed: drawings[seed].save(path),
        "report.html": lambda path, seed: reports[seed].save(path),
        "folder": publish,
    }


def content(path: Path) -> object:
    """What is there, in a form that can be compared."""
    if path.is_dir():
        return {file.name: file.read_text() for file in path.iterdir() if file.name != MANIFEST}
    return path.read_bytes()


def kill_one(write: Write, path: Path, rng: random.Random) -> None:
    """Let a child write until it is killed."""
    child = os.fork()
    if child == 0:
        for seed in cycle((2, 1)):
            write(path, seed)
    time.sleep(rng.uniform(0, PATIENCE))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def main(folder: Path, kills: int) -> None:
    """Kill each writer so many times, and print what was lost and what was left behind."""
    rng = random.Random(0)
    found = {}
    for name, write in writers().items():
        place = folder / name
        place.mkdir()
        path, whole = place / name, []
        for seed in (1, 2):
            write(path, seed)
            whole.append(content(path))
        lost = 0
        for _ in range(kills):
            kill_one(write, path, rng)
            lost += not (path.exists() and content(path) in whole)
        left = len(list(place.iterdir())) - 1
        found[name] = {"killed": kills, "lost": lost, "temporary files left": left}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
