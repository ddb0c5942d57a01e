"""How much faster than the notebook loop, with the same numbers: one process, one table.

Run ``python -m benchmarks.speed --help``. The baseline is `benchmarks.notebook`; on a slow machine
``--sample 6`` times that many senders, spread over the layers, and scales up (the loop does
the same work for every sender). Times are medians of ``--repeat`` runs after one warm-up.
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

import circuitgraph as cg
from benchmarks.models import build, prompts
from benchmarks.notebook import Notebook, Receiver


@dataclass(frozen=True)
class Work:
    """One row of the table."""

    name: str
    shape: str
    request: str
    variant: str
    receivers: tuple[Receiver, ...] = ()
    at_end: bool = False


WORKS = {
    "gpt2-mlps": Work("every head -> logits, mlps", "gpt2-small", "head -> logits", "mlps"),
    "smollm2-mlps": Work("every head -> logits, mlps", "smollm2-135m", "head -> logits", "mlps"),
    "gpt2-single": Work(
        "every head -> logits, single-pass", "gpt2-small", "head -> logits", "single-pass"
    ),
    "gpt2-values": Work(
        "every head -> {4 heads in layers 7, 8}.v => logits, mlps",
        "gpt2-small",
        "head -> {7.3, 7.9, 8.6, 8.10}.v => logits",
        "mlps",
        (("v", 7, 3), ("v", 7, 9), ("v", 8, 6), ("v", 8, 10)),
    ),
    "gpt2-queries": Work(
        "every head -> {2 heads in layer 9}.q@end => logits, mlps",
        "gpt2-small",
        "head -> {9.6, 9.9}.q@end => logits",
        "mlps",
        (("q", 9, 6), ("q", 9, 9)),
        at_end=True,
    ),
    "llama8b-mlps": Work("every head -> logits, mlps", "llama-3-8b", "head -> logits", "mlps"),
}


@dataclass
class Row:
    """What was measured for one work."""

    work: str
    shape: str
    device: str
    dtype: str
    n_prompts: int
    n_pos: int
    senders: int
    baseline_s: float
    baseline_sampled: int
    recordings_s: float
    sweep_s: float
    ratio: float
    ratio_without_recordings: float
    largest_difference: float
    effect_scale: float
    needed_flops: float
    matrix_flops_per_s: float
    of_limit: float
    peak_bytes: int | None
    budget: str


def timed(run: Callable[[], Any], device: str, repeat: int = 1) -> tuple[float, Any]:
    """Return the median time of a function and its last result."""
    times, result = [], None
    for _ in range(repeat):
        synchronize(device)
        start = time.perf_counter()
        result = run()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return median(times), result


def synchronize(device: str) -> None:
    """Wait for an accelerator."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def matrix_rate(device: str, dtype: torch.dtype) -> float:
    """Return measured floating-point operations per second of a large matrix product."""
    size = 1536 if device == "cpu" else 8192
    a = torch.randn(size, size, device=device, dtype=dtype)
    b = torch.randn(size, size, device=device, dtype=dtype)
    a @ b
    seconds, _ = timed(lambda: a @ b, device, repeat=7)
    return 2 * size**3 / seconds


def needed_flops(exp: Any, work: Work) -> float:
    """Return the operations of the matrix products that the exact answer needs.

    Counted from the schedule: each live MLP and attention at the positions that matter; recordings
    (two forward passes without unembedding) included.
    """
    cfg = exp.model.cfg
    block = sum(p.numel() for p in exp.model.blocks[0].original_component.mlp.parameters())
    gates = 2 * block
    d_model, d_head = cfg.d_model, cfg.d_head
    kv = int(getattr(cfg, "n_key_value_heads", None) or cfg.n_heads)
    attention = 2 * d_model * d_head * (2 * cfg.n_heads + 2 * kv)
    prompts_, n_pos = exp.prompts.n_prompts, exp.prompts.n_pos
    total = 2.0 * len(exp.model.blocks) * (gates + attention) * prompts_ * n_pos
    schedule = exp.schedule(work.request, work.variant)
    for stage in schedule.stages:
        if stage.where is None:
            places = n_pos
        elif stage.from_first:
            places = 1 if work.at_end else n_pos
        else:
            places = 1
        for job in stage.jobs:
            total += (gates * len(job.mlps) + attention * len(job.attention)) * places * prompts_
    return total


def run_work(key: str, args: argparse.Namespace, models: dict[Any, Any]) -> Row:
    """Measure one work."""
    work = WORKS[key]
    dtype = torch.bfloat16 if work.shape == "llama-3-8b" else torch.float32
    if (work.shape, dtype) not in models:
        models.clear()
        models[work.shape, dtype] = build(work.shape, args.device, dtype)
    model = models[work.shape, dtype]
    data = prompts(model, args.prompts, args.positions, args.device)
    metric = cg.LogitDiff(data["correct"], data["incorrect"], data["end"])

    def experiment() -> Any:
        made = cg.Experiment(
            model,
            data["clean"],
            data["corrupt"],
            metric,
            {"end": data["end"]},
            memory_budget=args.budget,
            progress=False,
        )
        made.clean_metric  # noqa: B018  # records
        return made

    before = None
    if args.device.startswith("cuda"):
        torch.cuda.empty_cache()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    exp = experiment()
    exp.patch(work.request, work.variant)  # warm up
    recordings, exp = timed(experiment, args.device, args.repeat)
    sweep, effects = timed(lambda: exp.patch(work.request, work.variant), args.device, args.repeat)
    peak = None if before is None else torch.cuda.max_memory_allocated() - before

    plan = exp.plan(work.request, work.variant)
    cells = plan.cells
    wanted = range(len(cells))
    if args.sample and args.sample < len(cells):
        wanted = range(0, len(cells), max(1, len(cells) // args.sample))
    notebook = Notebook(model, data)
    notebook.record()
    # The loop is measured over all heads, as notebooks run it: also those with nothing to patch.
    senders = [cells[at].index for at in wanted]

    def loop() -> list[Any]:
        if work.receivers:
            return [
                notebook.to_heads(sender, work.receivers, work.variant, work.at_end)
                for sender in senders
            ]
        return [notebook.to_logits(sender, work.variant) for sender in senders]

    loop_once = senders[:1]
    for sender in loop_once:  # warm up
        notebook.to_logits(sender, work.variant)
    record_s, _ = timed(notebook.record, args.device)
    loop_s, values = timed(loop, args.device)
    baseline = loop_s / len(senders) * len(cells) + record_s
    patched = effects.data["patched"].values
    ours = [patched[cells[at].index] for at in wanted]
    difference = max(
        float(abs(a - b.double().cpu().numpy()).max()) for a, b in zip(ours, values, strict=True)
    )
    scale = float(abs(exp.clean_metric - exp.corrupt_metric).mean())
    rate = matrix_rate(args.device, dtype)
    flops = needed_flops(exp, work)
    return Row(
        work.name,
        work.shape,
        args.device,
        str(dtype).removeprefix("torch."),
        args.prompts,
        args.positions,
        len(cells),
        baseline,
        len(senders),
        recordings,
        sweep,
        baseline / (recordings + sweep),
        baseline / sweep,
        difference,
        scale,
        flops,
        rate,
        flops / rate / (recordings + sweep),
        peak,
        str(args.budget),
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "works", nargs="*", help=f"of {', '.join(WORKS)}; all but llama8b by default"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prompts", type=int, default=25)
    parser.add_argument("--positions", type=int, default=21)
    parser.add_argument("--sample", type=int, default=0, help="senders of the baseline to time")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--budget", default=None, help="memory budget, such as 2GiB")
    parser.add_argument("--json", default=None, help="where to write the rows")
    args = parser.parse_args()
    works = args.works or [key for key in WORKS if key != "llama8b-mlps"]
    models: dict[Any, Any] = {}
    rows = []
    device = (
        torch.cuda.get_device_name() if args.device.startswith("cuda") else platform.processor()
    )
    threads = torch.get_num_threads()
    print(f"{device or platform.machine()}, torch {torch.__version__}, {threads} threads")
    for key in works:
        row = run_work(key, args, models)
        rows.append(asdict(row))
        print(
            f"{row.shape:13} {row.work:58} {row.baseline_s:8.2f} s / "
            f"({row.recordings_s:.4f} + {row.sweep_s:.4f} s) = {row.ratio:6.1f}x "
            f"({row.ratio_without_recordings:.1f}x without recordings)  "
            f"difference {row.largest_difference:.1e} of {row.effect_scale:.2f}  "
            f"{row.of_limit:.0%} of the matrix rate"
            + ("" if row.peak_bytes is None else f"  peak {row.peak_bytes / 2**30:.2f} GiB"),
            flush=True,
        )
    if args.json:
        with Path(args.json).open("w") as file:
            json.dump(rows, file, indent=1)


if __name__ == "__main__":
    main()
