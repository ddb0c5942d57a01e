"""What judging circuits costs beside bare forward passes of the same model: one process, one table.

Run ``python -m benchmarks.circuits --help``. A circuit is run in mode ``replace``: every edge
outside it carries its corrupt value. Recordings apart; times are medians of ``--repeat`` runs after
one warm-up. ``whole graph`` and ``nothing`` are checked against the clean and the corrupt run.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

import circuitgraph as cg
from benchmarks.models import build, prompts
from circuitgraph.engines.fast import FastEngine


def main(arguments: list[str] | None = None) -> list[dict[str, Any]]:
    """Measure and print the table; return its rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="gpt2-small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, default=25)
    parser.add_argument("--positions", type=int, default=21)
    parser.add_argument("--edges", type=int, nargs="+", default=[487, 5000])
    parser.add_argument("--rows", type=int, default=100)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    model = build(options.shape, options.device, getattr(torch, options.dtype))
    made = prompts(model, options.prompts, options.positions, options.device)
    # Prompts that differ everywhere, so that no position is known beforehand.
    corrupt = made["clean"].roll(1, 0)
    metric = cg.LogitDiff(made["correct"], made["incorrect"])
    exp = cg.Experiment(model, made["clean"], corrupt, metric, {"end": made["end"]})
    bare = seconds(lambda: model(made["clean"], return_type=None), options)
    print(
        f"{options.shape}, {options.prompts} x {options.positions} tokens: bare pass {bare:.3f} s"
    )
    index, rng = exp.graph.edge_index, np.random.default_rng(0)
    circuits = FastEngine(exp._setup).circuits()
    table: list[dict[str, Any]] = []

    def show(name: str, rows: np.ndarray[Any, Any]) -> torch.Tensor:
        took = seconds(lambda: circuits.measure(rows), options) / len(rows)
        table.append({"circuit": name, "seconds": took, "passes": took / bare})
        print(f"  {name:32s} {took:8.3f} s a circuit, {took / bare:6.2f} bare passes")
        return circuits.measure(rows)

    everything = np.ones((1, len(index)), dtype=np.bool_)
    for name, rows, run in (
        ("nothing", ~everything, exp.corrupt_metric),
        ("whole graph", everything, exp.clean_metric),
    ):
        wrong = np.abs(show(name, rows).double().cpu().numpy() - run).max()
        print(f"    largest difference from that run {wrong:.1e}")
    for n_edges in options.edges:
        drawn = np.stack([draw(rng, len(index), n_edges) for _ in range(options.rows)])
        grown = np.stack([grow(rng, index, n_edges) for _ in range(options.rows)])
        show(f"{n_edges} edges at random", drawn[:1])
        show(f"{n_edges} connected edges", grown[:1])
        if options.rows > 1:
            show(f"{options.rows} x {n_edges} at random", drawn)
            show(f"{options.rows} x {n_edges} connected", grown)
    return table


def seconds(run: Callable[[], Any], options: argparse.Namespace) -> float:
    """Return the median time of some runs after one that does not count."""
    times = []
    with torch.no_grad():
        for _ in range(options.repeat + 1):
            started = time.perf_counter()
            run()
            if options.device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
    return median(times[1:])


def draw(rng: np.random.Generator, n: int, n_edges: int) -> np.ndarray[Any, Any]:
    """Return a row with some edges, drawn at random."""
    row = np.zeros(n, dtype=np.bool_)
    row[rng.choice(n, min(n, n_edges), replace=False)] = True
    return row


def grow(rng: np.random.Generator, index: Any, n_edges: int) -> np.ndarray[Any, Any]:
    """Return a row with edges that are all on a way from the embedding to the logits.

    Senders into nodes that are already in, drawn at random, each node also hearing the embedding.
    """
    row = np.zeros(len(index), dtype=np.bool_)
    graph = index.graph
    inside, logits = [cg.Logits()], index.block(cg.Logits())
    while row.sum() < n_edges:
        node = inside[rng.integers(len(inside))]
        ports = graph.ports_of(node)
        block = index.block(ports[rng.integers(len(ports))])
        row[block.start] = True
        place = int(rng.integers(block.stop - block.start))
        sender = graph.writers[place]
        row[block.start + place] = True
        if sender not in inside and sender != cg.Embed():
            inside.append(sender)
            row[index.block(graph.ports_of(sender)[-1]).start] = True
    assert row[logits].any()
    return row


if __name__ == "__main__":
    main()
