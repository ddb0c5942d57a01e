"""TransformerLens' own direct path patching as an outside oracle for the single-pass variant.

It works in the other direction (the corrupted run is the base, clean values are patched in), so
clean and corrupt change places. It covers one head as sender and the queries, keys or values of
every later head, all positions, everything downstream recomputed; rows of layers at or before the
sender's are placeholders. Its result is kept in float32, so the exact numbers are taken from the
metric that it calls.
"""

from typing import Any

import pytest
import torch
from torch import Tensor
from transformer_lens.patching import get_act_patch_direct_path

from circuitgraph.compiler import compile as compile_request
from circuitgraph.engines.setup import Setup
from tests.engines.cases import MODELS, case, close, everything, run
from tests.models import TinyModel

CASES = [
    ("gpt2", (0, 1), "q"),
    ("gpt2", (0, 2), "k"),
    ("gpt2", (1, 0), "v"),
    ("llama", (0, 3), "q"),
    ("llama", (1, 2), "q"),
    ("qwen2", (0, 1), "q"),
    ("mistral", (0, 2), "q"),
]


@pytest.mark.parametrize(("model", "sender", "port"), CASES)
def test_single_pass_head_to_head(model: str, sender: tuple[int, int], port: Any) -> None:
    setup = case(model).setup
    layer, head = sender
    expected, placeholders = _transformer_lens(MODELS[model](), setup, sender, port)
    # Nothing downstream of one edge's receiver reaches it, so the modes agree.
    for mode in ("add", "set", "replace"):
        plan = compile_request(
            setup.graph, f"{layer}.{head} -> head.{port} => logits", "single-pass", mode=mode
        )
        assert [cell.index for cell in plan.cells] == list(expected)
        assert close(run(case(model).fast, plan), torch.stack(list(expected.values())))
        if mode == "add":
            assert close(run(case(model).reference, plan), torch.stack(list(expected.values())))
    assert {index[0] for index in placeholders} == set(range(layer + 1))


def _transformer_lens(
    tiny: TinyModel, setup: Setup, sender: tuple[int, int], port: Any
) -> tuple[dict[tuple[int, int], Tensor], list[tuple[int, int]]]:
    """The metric of every receiving head, in float64, and the heads it did not measure."""
    bridge = tiny.bridge
    measured: list[Tensor] = []

    def metric(logits: Tensor) -> Tensor:
        measured.append(everything(logits))
        return measured[-1].sum()

    with torch.no_grad():
        _, base = bridge.run_with_cache(setup.clean)
        _, patched_in = bridge.run_with_cache(setup.corrupt)
        result = get_act_patch_direct_path(
            bridge, setup.clean, patched_in, base, metric, *sender, component=port, verbose=False
        )
    indices = [tuple(index) for index in torch.ones_like(result).nonzero().tolist()]
    later = [index for index in indices if index[0] > sender[0]]
    found = dict(zip(later, measured, strict=True))
    for index, values in found.items():
        assert result[index].item() == pytest.approx(values.sum().item(), rel=1e-6)
    return found, [index for index in indices if index not in found]
