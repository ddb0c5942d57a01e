"""How much memory recordings and stacks may take."""

import os
import re
from collections.abc import Iterator
from typing import Any

import torch

from circuitgraph.engines.setup import Setup
from circuitgraph.errors import RequestError

__all__ = ["parse_budget", "recording_bytes", "rows_that_fit", "token_slices"]

_UNITS = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 2**10, "mi": 2**20, "gi": 2**30}
FRACTION_FREE = 0.4
CPU_FRACTION, CPU_LEAST = 0.25, 2 * 2**30


def parse_budget(budget: Any, device: torch.device) -> int:
    """Return a memory budget in bytes.

    Args:
        budget: Bytes, text such as ``"2GiB"`` or ``"500 MB"``, or None for a fraction of what is
            free on the device; on a CPU a quarter of the machine's memory, 2 GiB at least.
        device: Where the model lives.

    Raises:
        RequestError: Text that is no amount of memory.

    Example:
        >>> parse_budget("1.5GiB", torch.device("cpu"))
        1610612736
    """
    if budget is None:
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
            return int((free + cached) * FRACTION_FREE)
        return max(CPU_LEAST, int(_machine_memory() * CPU_FRACTION))
    if isinstance(budget, int) and not isinstance(budget, bool) and budget > 0:
        return budget
    text = budget if isinstance(budget, str) else ""
    found = re.fullmatch(r"\s*([\d.]+)\s*([kmg]i?)?b?\s*", text, re.IGNORECASE)
    try:
        amount = float(found.group(1)) * _UNITS[(found.group(2) or "").lower()] if found else 0
    except ValueError:
        amount = 0
    if amount < 1:
        raise RequestError(
            f"memory_budget={budget!r} is no amount of memory: write bytes, '500MB' or '2GiB'"
        )
    return int(amount)


def _machine_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # pragma: no cover  # not on every system
        return 0


def recording_bytes(setup: Setup) -> int:
    """Return what the recordings of one prompt pair take: clean and corrupt, all layers."""
    limits, shape = setup.backend.limits, setup.graph.shape
    heads, shared = shape.n_heads * limits.d_head, shape.kv_heads * limits.d_head
    width = 3 * limits.d_model + 2 * heads + 4 * shared
    return 2 * setup.n_pos * shape.n_layers * width * limits.dtype.itemsize


def rows_that_fit(budget: int, bytes_per_row: int) -> int:
    """Return how many rows a stack may have; at least one."""
    return max(1, budget // max(1, bytes_per_row))


def token_slices(n_rows: int, tokens_per_row: int, device: Any) -> Iterator[slice]:
    """Yield slices of the batch axis that suit the device.

    A CPU is fastest when what one module makes stays in its caches; an accelerator wants it all.
    """
    if torch.device(device).type != "cpu":
        yield slice(0, n_rows)
        return
    step = max(1, CPU_TOKENS // max(1, tokens_per_row))
    for start in range(0, n_rows, step):
        yield slice(start, min(n_rows, start + step))


CPU_TOKENS = 1024
