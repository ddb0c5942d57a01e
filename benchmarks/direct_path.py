"""TransformerLens' own direct path patching beside ours, for one source head and every later head.

``transformer_lens.patching.get_act_patch_direct_path`` runs one forward pass per destination head;
the same numbers are ``SOURCE -> head.q => logits``, single-pass, mode ``add``. Its direction is
denoising: its base run is on the corrupted prompts, so they are our clean ones.
"""

import argparse
import time
from typing import Any

import numpy as np
import torch

import circuitgraph as cg
from benchmarks.models import build, prompts


def main() -> None:
    """Time both and compare their numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prompts", type=int, default=25)
    args = parser.parse_args()
    from transformer_lens.patching import get_act_patch_direct_path

    model = build("gpt2-small", args.device, torch.float32)
    data = prompts(model, args.prompts, 21, args.device)
    rows = torch.arange(args.prompts, device=args.device)

    def metric(logits: Any) -> Any:
        at = logits[rows, data["end"]]
        return (at[rows, data["correct"]] - at[rows, data["incorrect"]]).mean()

    def synchronize() -> None:
        if args.device.startswith("cuda"):
            torch.cuda.synchronize()

    with torch.no_grad():
        _, base = model.run_with_cache(data["clean"])
        _, other = model.run_with_cache(data["corrupt"])
        start = time.perf_counter()
        theirs = get_act_patch_direct_path(model, data["clean"], other, base, metric, 5, 5, "q")
        synchronize()
        theirs_s = time.perf_counter() - start

    def ours() -> Any:
        exp = cg.Experiment(
            model,
            data["clean"],
            data["corrupt"],
            cg.LogitDiff(data["correct"], data["incorrect"], data["end"]),
            progress=False,
        )
        return exp.patch("5.5 -> head.q => logits", "single-pass", "add")

    ours()
    synchronize()
    start = time.perf_counter()
    found = ours()
    synchronize()
    ours_s = time.perf_counter() - start
    mine = found.data["patched"].mean("prompt").values
    their = theirs.detach().float().cpu().numpy()
    valid = ~np.isnan(mine)
    worst = np.abs(mine[valid] - their[valid]).max()
    print(f"largest difference {worst:.2e} over {valid.sum()} edges")
    print(f"TransformerLens {theirs_s:.3f} s, ours {ours_s:.3f} s with recordings")
    print(f"ratio {theirs_s / ours_s:.1f}x")


if __name__ == "__main__":
    main()
