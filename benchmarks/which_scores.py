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
from pathlib import Path

import pandas as pd

import circuitgraph as cg
from circuitgraph import evaluation
from circuitgraph.draw.curves import plot_curves

SIZES = [0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]


def measure(folder: Path) -> None:
    """Finds circuits in every way, judges them and keeps the numbers in `folder`."""
    n_prompts = int(os.environ.get("PROMPTS", "8"))
    exact = os.environ.get("EXACT", "screened")  # or all, or none
    threshold = float(os.environ.get("ACDC", "0.01"))
    start_from = int(os.environ.get("START", "500"))
    model = cg.load_model("smollm2-135m", device=os.environ.get("DEVICE", "cpu"))
    task = cg.tasks.ioi(model.tokenizer, n=2 * n_prompts, seed=1)
    found_on, held_out = (cg.Experiment(model, half) for half in task.split(0.5))
    request = "node -> port => logits"
    print(found_on)

    # Scores of every edge.
    engines = {
        "EAP": cg.EAP(),
        "EAP-IG": cg.EAPIG(steps=5),
        "EAP-IG, GIM rules": cg.EAPIG(steps=5, rules="gim"),
        "EAP-IG, RelP rules": cg.EAPIG(steps=5, rules="relp"),
    }
    scores, seconds = {}, {}
    for name, engine in engines.items():
        started = time.perf_counter()
        scores[name] = found_on.patch(request, "single-pass", engine=engine)
        seconds[name] = time.perf_counter() - started
    started = time.perf_counter()
    if exact == "all":
        scores["exact"] = found_on.patch(request, "single-pass")
    elif exact == "screened":
        keep = int(os.environ.get("KEEP", "300"))
        screening = cg.discover.screen(found_on, request, keep, by=engines["EAP-IG"], sample=60)
        print(screening)
        scores["exact, screened by EAP-IG"] = screening.effects
    if exact != "none":
        seconds[list(scores)[-1]] = time.perf_counter() - started

    signed, rows = {}, []
    for name, effects in scores.items():
        signed[name] = held_out.curve(effects, sizes=SIZES, sign="signed")
        absolute = held_out.curve(effects, sizes=SIZES, sign="absolute")
        stable = cg.discover.stability(effects, 1000)
        rows.append((name, signed[name].cpr, absolute.cmd, stable.jaccard, seconds[name]))
    table = pd.DataFrame(rows, columns=["scores", "CPR", "CMD", "Jaccard at 1,000", "seconds"])
    print(table.round(3).to_string(index=False))
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "scores.csv", index=False)
    for number, curve in enumerate(signed.values()):
        curve.save(folder / f"curve_{number}.json")

    # Searches, one circuit each.
    first = cg.discover.cut(scores["EAP-IG"], start_from)
    searches = {
        f"ACDC at {threshold:g} from {start_from:,} edges": cg.discover.acdc(
            found_on, threshold, start=first
        ),
        "backward, three levels": cg.discover.backward(
            found_on, 0.02, variant="single-pass", depth=3
        ),
    }
    points = []
    for name, search in searches.items():
        if not len(search.circuit.edges):
            print(f"\n{name}\n{search}\nnothing left to judge")
            continue
        judged = held_out.evaluate(search.circuit, baselines=20)
        print(f"\n{name}\n{search}\n{judged}")
        low, high = judged.interval
        points.append((name, judged.n_pruned, judged.faithfulness, low, high))
        same = cg.discover.cut(scores["EAP-IG"], max(1, judged.n_pruned), "greedy")
        of_scores = held_out.evaluate(same, baselines=0).faithfulness
        print(f"as many edges cut greedily from EAP-IG: f {of_scores:.3f}")
    found = pd.DataFrame(points, columns=["name", "edges", "faithfulness", "low", "high"])
    print(found.round(3).to_string(index=False))
    found.to_csv(folder / "searches.csv", index=False)


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
