"""What a search by ACDC costs, beside the plain sequential loop: one process, one table.

Run ``python -m benchmarks.acdc --help``. The plain loop patches one edge more in a request of its
own, measures, and keeps or removes it. Both give the same steps; that is checked where the loop is
run to its end (``--plain all``), and otherwise its time is scaled up from its first steps.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

import circuitgraph as cg
from benchmarks.models import build, prompts


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
    started = time.perf_counter()
    found = cg.discover.acdc(exp, options.threshold, start=start)
    took = time.perf_counter() - started
    row = {
        "edges": len(start) if start else exp.graph.n_edges,
        "seconds": took,
        "tests": len(found.steps),
        "kept": len(found.circuit),
        "circuits run": found.cost["circuits run"],
    }
    print(f"{options.shape}, {options.prompts} x {options.positions} tokens: {row}")
    print(f"  {took / max(1, row['tests']):.5f} s a test")
    n_steps = len(found.steps) if options.plain == "all" else int(options.plain)
    if n_steps:
        plain = plain_loop(exp, found, start, n_steps, options.threshold)
        row["plain seconds a test"] = plain
        print(
            f"  plain loop: {plain:.4f} s a test, {plain * row['tests'] / took:.1f} times as long"
        )
    return row


def plain_loop(exp: cg.Experiment, found: Any, start: Any, n_steps: int, threshold: float) -> float:
    """Run the first tests one by one; return the seconds of each, checked to be the same tests."""
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
    for step in found.steps.head(n_steps).itertuples():
        edge = next(one for one in inside if str(one) == step.edge)
        after = value(inside - {edge})
        kept = not after - before < threshold
        if kept != step.kept or not np.isclose(after, step.after, atol=1e-4):
            raise SystemExit(f"the loop differs at {step.edge}: {after} for {step.after}")
        if not kept:
            inside, before = inside - {edge}, after
    return (time.perf_counter() - started) / n_steps


if __name__ == "__main__":
    main()
