"""Which scores make the better circuit? Several ways of finding one, judged on held-out prompts.

Exact effects of single edges, four kinds of estimates, ACDC and a backward search are all asked the
same question of SmolLM2-135M: which edges carry indirect objects? Each finds its circuits on one
half of the prompts; all are judged on the other half. One figure has a curve for each kind of score
(faithfulness against size) and a point for each search. CPR is the area under f where edges are
ranked by importance, CMD the area of |1 - f| where they are ranked by size, as in MIB
(arXiv:2504.13151).

``python -m benchmarks.which_scores`` screens the exact effects, on few prompts; on a GPU
``DEVICE=cuda PROMPTS=25 EXACT=all python -m benchmarks.which_scores`` measures every single edge.

``OUT=DIR`` says where the numbers go; ``python -m benchmarks.which_scores draw DIR`` draws them
again as ``which_scores.svg``, without measuring anything.
"""

import os
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

import circuitgraph as cg
from circuitgraph import evaluation
from circuitgraph.draw.curves import plot_curves

REQUEST = "node -> port => logits"
SIZES = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]


def measure(folder: Path) -> None:
    """Find circuits in every way, judge them and keep the numbers in `folder`."""
    n_prompts = int(os.environ.get("PROMPTS", "8"))
    model = cg.load_model("smollm2-135m", device=os.environ.get("DEVICE", "cpu"))
    task = cg.tasks.ioi(model.tokenizer, n=2 * n_prompts, seed=1)
    found_on, held_out = (cg.Experiment(model, half) for half in task.split(0.5))
    print(found_on)
    folder.mkdir(parents=True, exist_ok=True)
    scores, seconds = score_edges(found_on)
    rows = []
    for number, (name, effects) in enumerate(scores.items()):
        signed = held_out.curve(effects, sizes=SIZES, sign="signed")
        signed.save(folder / f"curve_{number}.json")
        absolute = held_out.curve(effects, sizes=SIZES, sign="absolute")
        stable = cg.discover.stability(effects, 1000)
        rows.append((name, signed.cpr, absolute.cmd, stable.jaccard, seconds[name]))
    table = pd.DataFrame(rows, columns=["scores", "CPR", "CMD", "Jaccard at 1,000", "seconds"])
    print(table.round(3).to_string(index=False))
    table.to_csv(folder / "scores.csv", index=False)
    found = search(found_on, held_out, scores["EAP-IG"])
    print(found.round(3).to_string(index=False))
    found.to_csv(folder / "searches.csv", index=False)


def score_edges(found_on: cg.Experiment) -> tuple[dict[str, cg.Effects], dict[str, float]]:
    """Scores of every edge, exact and estimated, and the seconds that each took."""
    engines = {
        "EAP": cg.EAP(),
        "EAP-IG": cg.EAPIG(steps=5),
        "EAP-IG, GIM rules": cg.EAPIG(steps=5, rules="gim"),
        "EAP-IG, RelP rules": cg.EAPIG(steps=5, rules="relp"),
    }
    ways = {name: partial(_patch, found_on, engine) for name, engine in engines.items()}
    exact = os.environ.get("EXACT", "screened")
    if exact == "all":
        ways["exact"] = partial(_patch, found_on, "fast")
    elif exact == "screened":
        ways["exact, screened by EAP-IG"] = partial(_screen, found_on, engines["EAP-IG"])
    scores, seconds = {}, {}
    for name, way in ways.items():
        started = time.perf_counter()
        scores[name] = way()
        seconds[name] = time.perf_counter() - started
    return scores, seconds


def _patch(found_on: cg.Experiment, engine: Any) -> cg.Effects:
    return found_on.patch(REQUEST, "single-pass", engine=engine)


def _screen(found_on: cg.Experiment, engine: Any) -> cg.Effects:
    keep = int(os.environ.get("KEEP", "300"))
    return cg.discover.screen(found_on, REQUEST, keep, by=engine, sample=60).effects


def search(found_on: cg.Experiment, held_out: cg.Experiment, scores: cg.Effects) -> pd.DataFrame:
    """Circuits that searches find, one row each, beside cuts of `scores` of the same size."""
    start = cg.discover.cut(scores, int(os.environ.get("START", "500")))
    thresholds = [float(text) for text in os.environ.get("ACDC", "0.01").split(",")]
    searches = {
        f"ACDC at {threshold:g}": partial(cg.discover.acdc, found_on, threshold, start=start)
        for threshold in thresholds
    }
    searches["backward, three levels"] = partial(
        cg.discover.backward, found_on, 0.02, variant="single-pass", depth=3
    )
    points = []
    for name, begin in searches.items():
        started = time.perf_counter()
        found = begin()
        took = time.perf_counter() - started
        print(f"\n{name}, {took:.0f} s\n{found}")
        if not found.circuit.edges:
            continue
        judged = held_out.evaluate(found.circuit, baselines=20)
        print(judged)
        same = cg.discover.cut(scores, max(1, judged.n_pruned), "greedy")
        beside = held_out.evaluate(same, baselines=0).faithfulness
        low, high = judged.interval
        points.append((name, judged.n_pruned, judged.faithfulness, low, high, beside, took))
    columns = ["name", "edges", "faithfulness", "low", "high", "of as many by EAP-IG", "seconds"]
    return pd.DataFrame(points, columns=columns)


def draw(folder: Path) -> None:
    """The figure of what is kept in `folder`: a curve for each score, a point for each search."""
    names = pd.read_csv(folder / "scores.csv")["scores"]
    curves = {
        name: evaluation.load(folder / f"curve_{number}.json") for number, name in enumerate(names)
    }
    chart = plot_curves(
        curves,
        title="Circuits for indirect objects in SmolLM2-135M",
        points=pd.read_csv(folder / "searches.csv"),
        bands=True,
    )
    chart.save(folder / "which_scores.svg")


if __name__ == "__main__":
    kept = Path(sys.argv[2] if len(sys.argv) > 2 else os.environ.get("OUT", "which-scores"))
    if "draw" not in sys.argv[1:2]:
        measure(kept)
    draw(kept)
