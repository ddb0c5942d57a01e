"""Models that do not lie on one device are refused before anything is run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.errors import ModelError
from circuitgraph.lens.placement import placement_problem
from tests.models import tiny_gpt2
from tests.test_huggingface import experiment, module

LAYERS = 3


def test_a_block_on_a_disk(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    here = dict.fromkeys(
        ("transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head"), "cpu"
    )
    blocks = {f"transformer.h.{n}": "disk" if n == 1 else "cpu" for n in range(LAYERS)}
    spread = accelerate.dispatch_model(
        module(), here | blocks, offload_dir=str(tmp_path), main_device="cpu", force_hooks=True
    )
    words = r"12 offloaded to main memory or a disk \(such as transformer\.h\.1\..*one device"
    with pytest.raises(ModelError, match=words):
        experiment(spread)


@pytest.mark.parametrize("offload", ["cpu_offload", "disk_offload"])
def test_everything_offloaded(offload: str, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    folder = [str(tmp_path)] if offload == "disk_offload" else []
    spread = getattr(accelerate, offload)(module(), *folder, execution_device=torch.device("cpu"))
    with pytest.raises(ModelError, match="offloaded to main memory or a disk"):
        experiment(spread)


def test_a_bridge_with_a_layer_that_is_not_there() -> None:
    model: Any = tiny_gpt2().new_bridge()
    model.original_model.transformer.h[2].to("meta")
    tokens = tiny_gpt2().tokens(3, 5, 0), tiny_gpt2().tokens(3, 5, 1)
    with pytest.raises(ModelError, match="the model's weights are spread"):
        cg.Experiment(model, *tokens, cg.LogitDiff([1, 2, 3], [5, 6, 7]), progress=False)


def test_two_devices_are_named() -> None:
    """Without a second device: a parameter that says it is on one."""

    class There(torch.nn.Parameter):
        device = torch.device("cuda:1")  # type: ignore[assignment]

    whole = module()
    assert placement_problem(whole) is None
    whole.lm_head.weight = There(whole.lm_head.weight.detach().clone())
    found = str(placement_problem(whole))
    assert "1 on cuda:1 (such as lm_head.weight)" in found
    assert " on cpu (such as transformer.wte.weight)" in found


def test_one_device_by_a_map_is_as_ever() -> None:
    accelerate = pytest.importorskip("accelerate")
    mapped = accelerate.dispatch_model(module(), {"": "cpu"})
    one, other = (experiment(each).patch("head -> logits") for each in (mapped, module()))
    np.testing.assert_array_equal(one.data["patched"], other.data["patched"])
