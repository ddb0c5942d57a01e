"""Every single edge of the GPT-2 small shape, exactly: ``node -> port => logits``, single-pass.

Run ``python -m benchmarks.edges``; ``--ports head.q`` or the like does a part of them.
"""

import argparse
import time

import numpy as np
import torch

import circuitgraph as cg
from benchmarks.models import build, prompts


def main() -> None:
    """Patch every edge and print how long it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prompts", type=int, default=25)
    parser.add_argument("--ports", default="port")
    parser.add_argument("--budget", default=None)
    args = parser.parse_args()
    model = build("gpt2-small", args.device, torch.float32)
    data = prompts(model, args.prompts, 21, args.device)
    exp = cg.Experiment(
        model,
        data["clean"],
        data["corrupt"],
        cg.LogitDiff(data["correct"], data["incorrect"], data["end"]),
        memory_budget=args.budget,
        progress=False,
    )
    request = f"node -> {args.ports} => logits"
    start = time.perf_counter()
    plan = exp.plan(request, "single-pass")
    planned = time.perf_counter()
    found = exp.patch(request, "single-pass")
    done = time.perf_counter()
    values = found.data["patched"].values
    n_edges = int((~np.isnan(values[..., 0])).sum())
    print(
        f"{n_edges} edges of {len(plan.cells)} cells: {done - start:.1f} s, "
        f"of which {planned - start:.1f} s compiling"
    )
    # A few of them against the reference engine.
    rng = np.random.default_rng(0)
    worst = 0.0
    for number in rng.choice(len(plan.cells), size=6, replace=False):
        cell = plan.cells[number]
        one = exp.patch(cell.name, "single-pass", engine="reference").data["patched"].values
        worst = max(worst, float(np.abs(one - values[cell.index]).max()))
    print(f"six of them against the reference engine: largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
