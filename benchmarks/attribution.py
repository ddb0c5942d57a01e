"""All edges estimated, beside a bare forward and backward pass of the same model: one process.

Run ``python -m benchmarks.attribution --shape gpt2-small --engine eap``. It is a whole ``patch``:
recordings, plan and labelled effects are included; trying out what the model can do (once per
model) stands apart.
"""

import argparse
import resource
import time
from collections.abc import Callable

import torch

import circuitgraph as cg
from benchmarks.models import SHAPES, build, prompts
from benchmarks.speed import synchronize

ENGINES = {
    "eap": lambda steps, rules: cg.EAP(rules=rules),
    "clean-corrupt": lambda steps, rules: cg.CleanCorrupt(rules=rules),
    "eap-ig": lambda steps, rules: cg.EAPIG(steps, rules=rules),
}


def timed(run: Callable[[], object], device: str, repeat: int) -> float:
    """Return the least time of a function after a warm-up."""
    run()
    times = []
    for _ in range(repeat):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-small")
    parser.add_argument("--engine", choices=list(ENGINES), default="eap")
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--rules", choices=["relp", "gim"])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--prompts", type=int, default=25)
    parser.add_argument("--pos", type=int, default=21)
    parser.add_argument("--repeat", type=int, default=2)
    options = parser.parse_args()
    device = options.device
    model = build(options.shape, device, getattr(torch, options.dtype))
    asked = prompts(model, options.prompts, options.pos, device)
    metric = cg.LogitDiff(asked["correct"], asked["incorrect"])
    exp = cg.Experiment(model, asked["clean"], asked["corrupt"], metric, progress=False)
    rows = torch.arange(options.prompts, device=device)

    def bare() -> None:
        backend = exp._setup.backend
        with torch.enable_grad():
            run = backend.parts.run
            held = {}

            def enter(_: object, args: tuple[torch.Tensor, ...]) -> tuple[object, ...]:
                held["x"] = args[0].detach().requires_grad_()
                return (held["x"], *args[1:])

            last = backend.parts.unembed.module.register_forward_pre_hook(
                lambda _, args: (args[0][:, -1:], *args[1:])
            )
            first = backend.parts.blocks[0].block.register_forward_pre_hook(enter)
            try:
                logits = run(asked["clean"], False)[:, 0]
            finally:
                first.remove()
                last.remove()
            value = logits[rows, asked["correct"]] - logits[rows, asked["incorrect"]]
            value.sum().backward()

    def estimate() -> None:
        engine = ENGINES[options.engine](options.steps, options.rules)
        exp._forget()  # recordings are part of what is measured
        exp.patch("node -> port => logits", "single-pass", engine=engine)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one = timed(bare, device, options.repeat)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    every = timed(estimate, device, options.repeat)
    peak = (
        (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20
        if device == "cpu"
        else torch.cuda.max_memory_allocated() / 2**30
    )
    print(
        f"{options.shape}, {options.dtype}, {device}: forward and backward {one:.2f} s; "
        f"{options.engine} of {exp.graph.n_edges:,} edges {every:.2f} s = "
        f"{every / one:.2f} passes; "
        f"peak {peak:.2f} GiB{' above the model' if device == 'cpu' else ' in all'}"
    )


if __name__ == "__main__":
    main()
