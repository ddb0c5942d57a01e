"""How far bfloat16 answers are from the float32 answer: the fast engine beside the reference.

Run ``python -m benchmarks.precision``. The truth is the same (bfloat16) weights run in float32.
"""

import argparse
from typing import Any

import numpy as np
import torch

import circuitgraph as cg
from benchmarks.models import build, prompts
from circuitgraph.engines.reference import ReferenceEngine


def effects(model: Any, data: dict[str, Any], request: str, variant: str, engine: str) -> Any:
    """Return patched minus clean per cell and prompt."""
    metric = cg.LogitDiff(data["correct"], data["incorrect"], data["end"])
    exp = cg.Experiment(
        model, data["clean"], data["corrupt"], metric, {"end": data["end"]}, progress=False
    )
    found = exp.patch(request, variant, engine=engine)
    # Each engine is read against its own clean run, as it would be by itself.
    clean = (
        ReferenceEngine(exp._setup).clean_metric.double().cpu().numpy()
        if engine == "reference"
        else exp.clean_metric
    )
    return found.data["patched"].values - clean


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shape", default="gpt2-small")
    parser.add_argument("--prompts", type=int, default=8)
    args = parser.parse_args()
    half = build(args.shape, args.device, torch.bfloat16)
    data = prompts(half, args.prompts, 21, args.device)
    senders = "[0.0, 2.3, 4.4, 6.2, 8.1, 10.5, mlp3]"
    works = [
        (f"{senders} -> logits", "mlps"),
        (f"{senders} -> logits", "single-pass"),
        ("[0.0, 2.3, 4.4, mlp3] -> 8.6.v => logits", "mlps"),
        ("[0.0, 2.3, 4.4] => logits", "mlps"),
    ]
    rough = {
        (work, engine): effects(half, data, *work, engine)
        for work in works
        for engine in ("fast", "reference")
    }
    whole = half.float()
    for module in whole.modules():
        if hasattr(module, "cfg") and hasattr(module.cfg, "dtype"):
            module.cfg.dtype = torch.float32
    print("root mean square error of an effect, relative to the root mean square effect")
    for work in works:
        truth = effects(whole, data, *work, "fast")
        scale = np.sqrt(np.nanmean(truth**2))
        errors = {
            engine: np.sqrt(np.nanmean((rough[work, engine] - truth) ** 2)) / scale
            for engine in ("fast", "reference")
        }
        parts = [f"{engine} {error:.4f}" for engine, error in errors.items()]
        print(f"{work[0]:55} {work[1]:12} {'  '.join(parts)}")


if __name__ == "__main__":
    main()
