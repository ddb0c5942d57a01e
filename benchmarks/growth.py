"""How time and memory grow with senders, prompts, sequence length and layers: a table and a plot.

Run ``python -m benchmarks.growth --help``. Everything but one thing is held fixed in each series.
"""

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from html import escape
from math import log2
from pathlib import Path
from statistics import median
from typing import Any

import torch

import circuitgraph as cg
from benchmarks.models import prompts


def model_of(n_layers: int, device: str) -> Any:
    """Return a GPT-2 of GPT-2 small's width with some layers."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(n_layer=n_layers, vocab_size=5000)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).to(device).eval().requires_grad_(False)
    return build_bridge_from_module(model, "GPT2LMHeadModel", hf_config=model.config).to(device)


def measure(
    model: Any, request: str, n_prompts: int, n_pos: int, device: str, budget: str | None
) -> dict[str, float]:
    """Return seconds of recording and sweep, and peak bytes above the model's own."""
    data = prompts(model, n_prompts, n_pos, device)
    metric = cg.LogitDiff(data["correct"], data["incorrect"], data["end"])

    def experiment() -> cg.Experiment:
        made = cg.Experiment(
            model,
            data["clean"],
            data["corrupt"],
            metric,
            {"end": data["end"]},
            memory_budget=budget,
            progress=False,
        )
        made.clean_metric  # noqa: B018  # records
        return made

    cuda = device.startswith("cuda")
    base = 0
    if cuda:
        torch.cuda.empty_cache()
        base = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    experiment().patch(request)
    records, sweeps = [], []
    for _ in range(3):
        records.append(timed(experiment, cuda))
        exp = experiment()
        exp.plan(request)
        sweeps.append(timed(partial(exp.patch, request), cuda))
    peak = torch.cuda.max_memory_allocated() - base if cuda else 0
    return {"record_s": median(records), "sweep_s": median(sweeps), "peak_bytes": float(peak)}


def timed(run: Callable[[], Any], cuda: bool) -> float:
    """Return how long a function takes."""
    if cuda:
        torch.cuda.synchronize()
    start = time.perf_counter()
    run()
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print a table, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--budget", default=None)
    parser.add_argument("--json", default=None)
    parser.add_argument("--plot", default=None, help="an SVG file to draw the plot into")
    args = parser.parse_args()
    values = "{} -> 8.6.v => logits"
    series: dict[str, list[tuple[int, dict[str, float]]]] = {}
    twelve = model_of(12, args.device)

    def add(name: str, x: int, found: dict[str, float]) -> None:
        series.setdefault(name, []).append((x, found))
        print(
            f"{name:40} {x:6d}  record {found['record_s']:8.4f} s  sweep {found['sweep_s']:8.4f} s"
            f"  peak {found['peak_bytes'] / 2**30:6.2f} GiB",
            flush=True,
        )

    for n in (12, 24, 48, 96):
        names = ", ".join(f"{at // 12}.{at % 12}" for at in range(n))
        add(
            "senders, [...] -> 8.6.v => logits",
            n,
            measure(twelve, values.format(f"[{names}]"), 10, 21, args.device, args.budget),
        )
    for n in (5, 10, 20, 40):
        add(
            "prompts, head -> logits",
            n,
            measure(twelve, "head -> logits", n, 21, args.device, args.budget),
        )
    some = "[0.0, 1.1, 2.2, 3.3, 4.4, 5.5, 6.6, 7.7]"
    for n in (12, 24, 48, 96):
        add(
            "positions, 8 heads -> 8.6.v => logits",
            n,
            measure(twelve, values.format(some), 10, n, args.device, args.budget),
        )
    for n in (3, 6, 12, 24):
        add(
            "layers, head -> logits",
            n,
            measure(model_of(n, args.device), "head -> logits", 10, 21, args.device, args.budget),
        )
    if args.json:
        with Path(args.json).open("w") as file:
            json.dump(series, file, indent=1)
    if args.plot:
        plot(series, args.plot)


def plot(series: dict[str, list[tuple[int, dict[str, float]]]], path: str) -> None:
    """Draw seconds against size as SVG: one panel per series, logarithmic axes, linear dotted."""
    width, height = 250, 190
    parts = ['<rect width="100%" height="100%" fill="white"/>']
    for panel, (name, points) in enumerate(series.items()):
        sizes = [x for x, _ in points]
        times = [found["record_s"] + found["sweep_s"] for _, found in points]
        linear = [times[0] * x / sizes[0] for x in sizes]
        low, high = log2(sizes[0]), log2(sizes[-1])
        bottom = log2(min(times + linear)) - 0.2
        top = log2(max(times + linear)) + 0.2
        left = panel * width + 50

        def place(
            x: float,
            y: float,
            left: int = left,
            low: float = low,
            high: float = high,
            bottom: float = bottom,
            top: float = top,
        ) -> tuple[float, float]:
            return (
                left + (log2(x) - low) / (high - low) * (width - 80),
                150 - (log2(y) - bottom) / (top - bottom) * 110,
            )

        parts.append(f'<text x="{left - 20}" y="20" font-size="11">{escape(name)}</text>')
        for values, style in (
            (linear, 'stroke="#999" stroke-dasharray="4 3"'),
            (times, 'stroke="#0072B2" stroke-width="2"'),
        ):
            line = " ".join(
                "{:.1f},{:.1f}".format(*place(x, y)) for x, y in zip(sizes, values, strict=True)
            )
            parts.append(f'<polyline points="{line}" fill="none" {style}/>')
        for x, y in zip(sizes, times, strict=True):
            at, up = place(x, y)
            parts += [
                f'<circle cx="{at:.1f}" cy="{up:.1f}" r="3" fill="#0072B2"/>',
                f'<text x="{at - 12:.1f}" y="{up - 7:.1f}" font-size="9">{y:.3f}</text>',
                f'<text x="{at - 6:.1f}" y="170" font-size="10">{x}</text>',
            ]
    parts.append(
        '<text x="30" y="186" font-size="10">seconds against size, logarithmic axes; '
        "dotted: linear growth from the first point</text>"
    )
    box = f'viewBox="0 0 {width * len(series)} {height}" font-family="sans-serif"'
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" {box}>{"".join(parts)}</svg>'
    Path(path).write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
