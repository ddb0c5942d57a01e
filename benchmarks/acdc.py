"""What a search by ACDC costs, beside the plain sequential loop: one process, one table.

Run ``python -m benchmarks.acdc --help``. Beside seconds it counts tests, circuits run for them
(more, where the outcome of a test was guessed wrong) and layers run for those, as whole passes
(fewer, since what comes before the tested port is run once for the whole search).
``--limit-seconds`` ends the search early and says how far it came.

The plain loop patches one edge more in a request of its own, measures, and keeps or removes it.
Both give the same steps; that is checked as far as the loop is run (``--plain all``: to its end).
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

import circuitgraph as cg
from benchmarks.models import build, prompts
from circuitgraph.discover.acdc import kl_metric, pruned
from circuitgraph.evaluation.judge import Judge


def main(arguments: list[str] | None = None) -> dict[str, Any]:
    """Measure and print; return the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="gpt2-small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompts", type=int, default=25)
    parser.add_argument("--positions", type=int, default=21)
    parser.add_argument("--threshold", type=float, default=0.01)
    parser.add_argument("--start", type=int, default=0, help="edges to start from, by EAP; 0: all")
    parser.add_argument("--plain", default="0", help="steps of the plain loop; or all")
    parser.add_argument("--limit-seconds", type=float, default=float("inf"))
    options = parser.parse_args(arguments)
    model = build(options.shape, options.device, torch.float32)
    made = prompts(model, options.prompts, options.positions, options.device)
    metric = cg.LogitDiff(made["correct"], made["incorrect"])
    exp = cg.Experiment(
        model, made["clean"], made["corrupt"], metric, {"end": made["end"]}, progress=False
    )
    start = None
    if options.start:
        scored = exp.patch("node -> port => logits", "single-pass", engine=cg.EAP())
        start = cg.discover.cut(scored, options.start)
    judge = Judge(exp, metric=kl_metric(exp))
    inside = np.ones(exp.graph.n_edges, dtype=bool)
    if start is not None:
        inside = judge.masks.of_circuit(start)
    started = time.perf_counter()
    found = pruned(
        judge,
        inside,
        options.threshold,
        "reverse",
        rises=True,
        stop=lambda: time.perf_counter() - started > options.limit_seconds,
    )
    took = time.perf_counter() - started
    n_tests, n_layers = len(found.steps), exp.graph.shape.n_layers
    row = {
        "edges": int(inside.sum()),
        "seconds": took,
        "decided": int(inside.sum()) - found.left,
        "tests": n_tests,
        "kept": sum(kept for *_, kept in found.steps),
        "circuits run": found.runs,
        "whole passes run": found.layers_run / n_layers,
    }
    print(f"{options.shape}, {options.prompts} x {options.positions} tokens, {options.device}:")
    print("  " + ", ".join(f"{name} {value:,.6g}" for name, value in row.items()))
    print(f"  {took / max(1, n_tests):.5f} s a test, {found.runs / n_tests:.2f} circuits a test")
    if found.left:
        print(f"  ended after {options.limit_seconds:g} s with {found.left:,} edges undecided")
    n_steps = n_tests if options.plain == "all" else int(options.plain)
    if n_steps:
        steps = [(judge.masks.edges[edge], after, kept) for edge, _, after, kept in found.steps]
        plain = plain_loop(exp, steps[:n_steps], start, options.threshold)
        row["plain seconds a test"] = plain
        print(f"  plain loop: {plain:.4f} s a test, {plain * n_tests / took:.1f} times as long")
    return row


def plain_loop(
    exp: cg.Experiment, steps: list[tuple[cg.Edge, float, bool]], start: Any, threshold: float
) -> float:
    """Run tests one by one; return the seconds of each, checked to be the same tests."""
    inside = set(start.members if start else exp.graph.edges())
    everything = list(exp.graph.edges())
    kl = cg.KLDivergence(position=exp.metric_position)

    def value(kept: set[cg.Edge]) -> float:
        outside = [edge for edge in everything if edge not in kept]
        if not outside:
            return 0.0
        effects = exp.patch(outside, "single-pass", "replace", metrics={"kl": kl})["kl"]
        return float(effects.data["patched"].mean())

    before, started = value(inside), time.perf_counter()
    for edge, measured, was_kept in steps:
        after = value(inside - {edge})
        kept = not after - before < threshold
        if kept != was_kept or not np.isclose(after, measured, atol=1e-4):
            raise SystemExit(f"the loop differs at {edge}: {after} for {measured}")
        if not kept:
            inside, before = inside - {edge}, after
    return (time.perf_counter() - started) / len(steps)


if __name__ == "__main__":
    main()
