"""The peak of memory above the model's own, beside the budget that was given.

Run ``python -m benchmarks.memory`` on an accelerator: a CPU does not count what torch allocates.
"""

import argparse
import json
import time
from pathlib import Path

import torch

import circuitgraph as cg
from benchmarks.models import build, prompts
from circuitgraph.engines.fast.memory import parse_budget

REQUESTS = (
    "head -> logits",
    "head -> {7.3, 7.9, 8.6, 8.10}.v => logits",
    "head => logits",
    "5.5 -> head.q => logits",
)
BUDGETS = ("256MiB", "1GiB", "8GiB")


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, nargs="+", default=[25, 200])
    parser.add_argument("--positions", type=int, default=21)
    parser.add_argument("--budgets", nargs="+", default=BUDGETS)
    parser.add_argument("--json", default=None, help="where to write the rows")
    args = parser.parse_args()
    if not torch.cuda.is_available():
        parser.error("this needs a CUDA device, whose allocations torch counts")
    model = build("gpt2-small", "cuda", torch.float32)
    rows = []
    print(f"{torch.cuda.get_device_name()}, GPT-2 small shape, float32")
    for n_prompts in args.prompts:
        data = prompts(model, n_prompts, args.positions, "cuda")
        metric = cg.LogitDiff(data["correct"], data["incorrect"], data["end"])
        for budget in args.budgets:
            for request in REQUESTS:
                torch.cuda.empty_cache()
                base = torch.cuda.memory_allocated()
                torch.cuda.reset_peak_memory_stats()
                started = time.perf_counter()
                exp = cg.Experiment(
                    model,
                    data["clean"],
                    data["corrupt"],
                    metric,
                    {"end": data["end"]},
                    memory_budget=budget,
                    progress=False,
                )
                exp.patch(request)
                seconds = time.perf_counter() - started
                peak = torch.cuda.max_memory_allocated() - base
                del exp
                allowed = parse_budget(budget, torch.device("cuda"))
                rows.append(
                    {
                        "prompts": n_prompts,
                        "request": request,
                        "budget": allowed,
                        "peak": peak,
                        "seconds": seconds,
                    }
                )
                print(
                    f"{n_prompts:4} prompts  {request:42} budget {budget:>7}  "
                    f"peak {peak / 2**20:7.0f} MiB  {peak / allowed:5.0%}  {seconds:6.2f} s",
                    flush=True,
                )
    if args.json:
        Path(args.json).write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
