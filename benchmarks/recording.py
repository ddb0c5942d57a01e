"""What recording a run costs beside the model's own forward pass, on both back ends.

Run ``python -m benchmarks.recording [--device cuda]``. Recorded is what an experiment records of
its prompts: everything that replay needs, of clean and corrupt prompts together, logits at one
position each. Beside it stands the model's own forward pass over the same tokens: as it is, with
all logits; and with the last position's logits alone.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.models import SHAPES, build, build_module
from circuitgraph.engines.fast.engine import REPLAYED
from circuitgraph.lens.backend import backend_of


def seconds(run: Callable[[], Any], repeat: int, device: str) -> float:
    """Return the median time of a call, after one to warm up."""
    times = []
    for _ in range(repeat + 1):
        if device == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        run()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def measure(shape: str, n_rows: int, n_pos: int, repeat: int, device: str, dtype: Any) -> None:
    """Print one row."""
    model = build_module(shape, device, dtype)
    plain, bridge = backend_of(model), None
    tokens = torch.randint(0, plain.limits.d_vocab, (n_rows, n_pos)).to(device)
    at = torch.full((n_rows, 1), n_pos - 1, device=device)

    def own(**options: Any) -> Any:
        with torch.no_grad():
            return model(input_ids=tokens, **options)

    forward = seconds(own, repeat, device)
    short = seconds(lambda: own(logits_to_keep=1), repeat, device)
    recorded = seconds(lambda: plain.record(tokens, read=at, fields=REPLAYED), repeat, device)
    logits = plain.record(tokens, read=at, fields=REPLAYED).logits
    assert logits is not None
    del plain, model
    bridge = backend_of(build(shape, device, dtype))
    passed = seconds(lambda: bridge.logits(tokens), repeat, device)
    wrapped = seconds(lambda: bridge.record(tokens, read=at, fields=REPLAYED), repeat, device)
    other = bridge.record(tokens, read=at, fields=REPLAYED).logits
    apart = (logits - other).abs().max().item()
    print(
        f"{shape:14} {n_rows:4} x {n_pos:<4} own pass {forward * 1e3:8.1f} ms, one logit "
        f"{short * 1e3:8.1f} ms | recorded {recorded * 1e3:8.1f} ms = {recorded / forward:5.2f} x, "
        f"{recorded / short:5.2f} x | bridge: pass {passed * 1e3:8.1f} ms = "
        f"{passed / forward:5.2f} x, recorded {wrapped * 1e3:8.1f} ms = "
        f"{wrapped / forward:5.2f} x | apart {apart:.0e}",
        flush=True,
    )


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=SHAPES[:2])
    parser.add_argument("--rows", type=int, nargs="+", default=[50])
    parser.add_argument("--positions", type=int, default=21)
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", default="float32")
    args = parser.parse_args()
    for shape in args.shapes:
        for n_rows in args.rows:
            dtype = getattr(torch, args.dtype)
            measure(shape, n_rows, args.positions, args.repeat, args.device, dtype)


if __name__ == "__main__":
    main()
