"""Sweeps with several workers beside one: ``python -m benchmarks.sweep``.

On a GPU machine this is one command for everything: all 32,491 edges of the GPT-2 small shape with
one worker, two on one GPU, and one for each GPU; every edge of the Llama-3-8B shape estimated
(EAP-IG, 5 steps, bfloat16); a thousandth of its edges measured exactly, with the cost of all of
them; what a killed worker costs; and whether the joined numbers are one worker's. Weights are
random. ``--tiny`` does the same with small shapes, on a CPU too.

Prints a table, and writes every number to ``--out``.
"""

import argparse
import gc
import json
import os
import shutil
import signal
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

import circuitgraph as cg
from benchmarks.models import build, prompts
from circuitgraph.sweeps.cluster import Cluster
from circuitgraph.sweeps.question import Question
from circuitgraph.sweeps.store import Sweep, open_sweep

REQUEST = "node -> port => logits"


@dataclass(frozen=True)
class Recipe:
    """A model of a shape with random weights, and random prompts."""

    shape: str
    device: str
    dtype: str
    n_prompts: int
    n_pos: int
    budget: str | None = None

    def __call__(self) -> cg.Experiment:
        model = _tiny(self.shape, self.device) if self.shape.startswith("tiny") else None
        if model is None:
            model = build(self.shape, self.device, getattr(torch, self.dtype))
        data = prompts(model, self.n_prompts, self.n_pos, self.device)
        metric = cg.LogitDiff(data["correct"], data["incorrect"], data["end"])
        pair = data["clean"], data["corrupt"]
        return cg.Experiment(model, *pair, metric, memory_budget=self.budget, progress=False)


def _tiny(shape: str, device: str) -> Any:
    """Return a bridge of few layers, for trying this out."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import AutoModelForCausalLM, GPT2Config

    n_layer = int(shape.removeprefix("tiny-"))
    config = GPT2Config(n_layer=n_layer, n_head=4, n_embd=64, vocab_size=500, n_positions=64)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    module = AutoModelForCausalLM.from_config(config).to(device).eval().requires_grad_(False)
    name = type(module).__name__
    return build_bridge_from_module(module, architecture=name, hf_config=module.config).to(device)


@dataclass
class Row:
    """One sweep, timed."""

    what: str
    workers: int
    gpus_each: float | None
    seconds: float
    """From the call to the joined result: models made, prompts recorded, parts run and written."""
    first: float
    """To the first finished part."""
    running: float
    """From the first worker's start on its parts to the last finished part."""
    parts: int
    part_seconds: list[float] = field(default_factory=list)
    apart: float = 0.0
    """The largest difference from one worker's numbers."""
    same_bits: bool = True
    killed: int = 0


class Opened:
    """When the workers are there and parts begin."""

    def __init__(self) -> None:
        self.at = time.time()

    @contextmanager
    def __call__(self, found: Sweep) -> Iterator[Callable[[float], None]]:
        del found
        self.at = time.time()
        yield lambda _: None


def timed(
    what: str,
    recipe: Recipe,
    folder: Path,
    like: cg.Effects | None = None,
    killing: bool = False,
    cut_as: Path | None = None,
    **options: Any,
) -> tuple[Row, cg.Effects]:
    """Run a sweep, cut like another one if that is named, and say how long it took."""
    shutil.rmtree(folder, ignore_errors=True)
    if cut_as is not None:
        shutil.copytree(cut_as, folder)
        for part in (folder / "parts").iterdir():
            part.unlink()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    began, opened = time.time(), Opened()
    if killing:
        threading.Thread(target=_kill_a_worker, args=(folder,), daemon=True).start()
    effects = cg.sweep(recipe, REQUEST, into=folder, watch=opened, **options)
    seconds = time.time() - began
    found = open_sweep(folder)
    parts = [found.read(part).seconds for part in found.cut.parts]
    written = [found.path(part).stat().st_mtime for part in found.cut.parts]
    row = Row(
        what,
        options.get("workers", 1),
        options.get("gpus"),
        seconds,
        min(written) - began,
        max(written) - opened.at,
        len(parts),
        parts,
        killed=int(killing),
    )
    if like is not None:
        one, two = (found.data["patched"].to_numpy() for found in (effects, like))
        row.apart = float(np.nanmax(np.abs(one - two)))
        row.same_bits = bool(np.array_equal(one, two, equal_nan=True))
    print(
        f"{what:44s} {row.workers} workers {'' if row.gpus_each is None else row.gpus_each!s:>5} "
        f"{row.parts:4d} parts {seconds:8.1f} s in all, first part {row.first:6.1f} s, "
        f"parts {row.running:8.1f} s, apart {row.apart:.1e}{' same bits' * row.same_bits}",
        flush=True,
    )
    return row, effects


def _kill_a_worker(folder: Path) -> None:
    """Kill one worker with signal 9 when the first part is there."""
    while not any((folder / "parts").glob("*.json")):
        time.sleep(0.05)
    time.sleep(0.3)
    workers = [
        child
        for child in psutil.Process().children(recursive=True)
        if "_Worker" in " ".join(child.cmdline())
    ]
    if workers:
        os.kill(workers[0].pid, signal.SIGKILL)


def edges(
    what: str, recipe: Recipe, place: Path, gpus: int, cells: int, method: dict[str, Any]
) -> list[Row]:
    """Sweep all edges with one worker, with several, and with one that is killed."""
    one, like = timed(what, recipe, place / "one", cells=cells, **method)
    rows = [one]
    if gpus:
        setups = [(1, 1.0), (2, 0.5)] + ([(gpus, 1.0), (2 * gpus, 0.5)] if gpus > 1 else [])
    else:
        setups = [(1, None), (2, None)]
    for workers, share in setups:
        how = {"workers": workers, "gpus": share, "cells": cells}
        if workers == 1:  # on Ray, too: what Ray itself costs
            rows.append(on_ray(recipe, place / "ray", like, what, cells, method, share))
            continue
        rows.append(timed(what, recipe, place / f"{workers}", like, **how, **method)[0])
    workers, share = setups[-1]
    how = {"workers": workers, "gpus": share, "cells": cells, "killing": True}
    rows.append(timed(f"{what}, one killed", recipe, place / "killed", like, **how, **method)[0])
    return rows


def on_ray(
    recipe: Recipe,
    folder: Path,
    like: cg.Effects,
    what: str,
    cells: int,
    method: dict[str, Any],
    share: float | None,
) -> Row:
    """Return one worker on Ray, beside one in this process."""
    row, _ = timed(
        f"{what}, one on Ray", recipe, folder, like, cells=cells, ray="local", gpus=share, **method
    )
    return row


def overhead(recipe: Recipe) -> dict[str, float]:
    """Return what Ray adds to a part that takes no time: one cell, again and again."""
    asked = Question(cg.parse("0.0 -> logits"), "single-pass")
    own = recipe().answering(asked)
    whole = own.work.whole
    part = type(whole)(own.manifest.digest, whole.cells)

    def beyond(measure: Callable[..., Any]) -> float:
        """Return what a call takes beyond the part itself."""
        began = time.perf_counter()
        finished = measure(part, lambda _: None)
        return time.perf_counter() - began - finished.seconds

    here = [beyond(own.measure) for _ in range(50)]
    began = time.perf_counter()
    with Cluster(recipe, 1, gpus=0.5 if torch.cuda.is_available() else None) as cluster:
        away = cluster.answering(asked)
        away.describe()
        start = time.perf_counter() - began
        there = [beyond(away.measure) for _ in range(50)]
    return {
        "start of Ray and one worker, s": start,
        "beyond a part in this process, s": statistics.median(here),
        "beyond a part on Ray, s": statistics.median(there),
    }


def thousandth(
    recipe: Recipe, place: Path, share: float, gpus: int, method: dict[str, Any]
) -> dict[str, Any]:
    """Measure a share of all edges exactly, spread evenly, and say what all would cost."""
    sizes = {"llama-3-8b": (32, 32, 8), "tiny-4": (4, 4)}
    plan = cg.compile(cg.ModelGraph(cg.ModelShape(*sizes[recipe.shape])), REQUEST, **method)
    n_cells = len(plan.cells)
    # Whole stretches of cells, as a part has them: cells beside each other share runs.
    stretch = max(1, min(64, int(n_cells * share)))
    starts = np.linspace(0, n_cells - stretch, max(1, int(n_cells * share / stretch))).astype(int)
    only = np.zeros(plan.shape, dtype=bool)
    for start in starts.tolist():
        for number in range(start, start + stretch):
            only[plan.place(number)] = True
    chosen = int(only.sum())
    what, how = f"{chosen:,} edges, {recipe.shape}", {"only": only, "cells": stretch} | method
    one, like = timed(what, recipe, place / "thousandth", **how)
    rows = [one]
    if gpus > 1:
        more = {"workers": gpus, "gpus": 1.0} | how
        rows.append(timed(what, recipe, place / "thousandths", like, **more)[0])
    running = sum(one.part_seconds)
    per_cell = running / chosen
    return {
        "rows": [asdict(row) for row in rows],
        "cells in all": n_cells,
        "cells measured": chosen,
        "seconds, model and recordings included": one.seconds,
        "seconds of parts": running,
        "seconds per cell": per_cell,
        "hours of 1 GPU, multiplied": per_cell * n_cells / 3600,
        "hours of 8 GPUs, multiplied": per_cell * n_cells / 3600 / 8,
        "hours of 64 GPUs, multiplied": per_cell * n_cells / 3600 / 64,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="small shapes, to try this out")
    parser.add_argument("--out", default=os.environ.get("OUT", "."), help="folder of sweep.json")
    parser.add_argument("--skip", nargs="*", default=[], help="of edges, overhead, estimate, exact")
    parser.add_argument("--cells", type=int, default=None, help="cells of a part, for the edges")
    parser.add_argument("--share", type=float, default=0.001, help="of the large shape's edges")
    options = parser.parse_args()
    gpus = torch.cuda.device_count()
    device = "cuda" if gpus else "cpu"
    small = Recipe("tiny-3", device, "float32", 4, 12)
    large = Recipe("tiny-4", device, "float32", 4, 12)
    if not options.tiny:
        small = Recipe("gpt2-small", device, "float32", 25, 21, "8GiB" if gpus else None)
        large = Recipe("llama-3-8b", device, "bfloat16", 25, 21, "24GiB" if gpus else None)
    many = replace(large, n_prompts=2 * large.n_prompts)
    cells = options.cells or (60 if options.tiny else 1024)
    found: dict[str, Any] = {
        "torch": torch.__version__,
        "cards": [torch.cuda.get_device_name(number) for number in range(gpus)] or ["CPU"],
        "cores": os.cpu_count(),
    }
    out = Path(options.out)
    method = {"variant": "single-pass"}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)

        def keep(name: str, work: Callable[[], Any]) -> None:
            if name in options.skip:
                return
            try:
                found[name] = work()
            except Exception as error:  # noqa: BLE001  # the other measurements still count
                found[name] = f"{type(error).__name__}: {error}"
                print(f"{name} failed: {found[name]}", flush=True)
            (out / "sweep.json").write_text(json.dumps(found, indent=1))

        keep("overhead", lambda: overhead(small))
        print("overhead", found.get("overhead"), flush=True)
        what = f"every edge, {small.shape}"
        keep(
            "edges",
            lambda: [asdict(row) for row in edges(what, small, place, gpus, cells, method)],
        )

        def estimate() -> list[dict[str, Any]]:
            how = method | {"engine": cg.EAPIG(5), "seconds": 2.5}
            what, first = f"EAP-IG, {large.shape}, {many.n_prompts} prompts", place / "estimate"
            one, like = timed(what, many, first, **how)
            rows = [one]
            if gpus > 1:
                more = {"workers": gpus, "gpus": 1.0} | how
                again = place / "estimates"
                rows.append(timed(what, many, again, like, cut_as=first, **more)[0])
            return [asdict(row) for row in rows]

        keep("estimate", estimate)
        share = 0.1 if options.tiny else options.share
        keep("exact", lambda: thousandth(large, place, share, gpus, method))
        print("exact", json.dumps(found.get("exact"), indent=1), flush=True)
    _table(found)


def _table(found: dict[str, Any]) -> None:
    """Print the sweeps beside the first of their kind."""
    print("\n| sweep | workers | GPU each | in all | first part | parts | speed-up | same bits |")
    print("|---|---|---|---|---|---|---|---|")
    exact = found.get("exact")
    share = exact["rows"] if isinstance(exact, dict) else None
    for rows in (found.get("edges"), found.get("estimate"), share):
        for row in rows if isinstance(rows, list) else []:
            gain = rows[0]["running"] / row["running"]
            print(
                f"| {row['what']} | {row['workers']} | {row['gpus_each']} | {row['seconds']:.1f} s "
                f"| {row['first']:.1f} s | {row['running']:.1f} s | {gain:.2f} "
                f"| {row['same_bits']} ({row['apart']:.1e}) |"
            )


if __name__ == "__main__":
    main()
