"""Activations in one kernel: the same numbers, wide types only, and nothing left on the model."""

import pytest
import torch
from transformers.activations import NewGELUActivation

from circuitgraph.lens.backend import backend_of
from tests.models import tiny_gpt2


def activations(model: torch.nn.Module) -> list[NewGELUActivation]:
    return [module for module in model.modules() if isinstance(module, NewGELUActivation)]


def test_a_fused_activation_gives_what_the_model_gives() -> None:
    tiny = tiny_gpt2()
    model = tiny.new_bridge()
    recording = backend_of(model).record(tiny.tokens())
    blocks, calls = backend_of(model), []
    for module in activations(model):
        module.register_forward_hook(lambda module, _, __: calls.append(vars(module)["forward"]))
    for number, layer in enumerate(recording.layers):
        assert layer.mid is not None
        assert layer.mlp is not None
        alone = blocks.mlp_output(number, layer.mid, layer.call, direct=True)
        torch.testing.assert_close(alone, layer.mlp, rtol=0, atol=1e-12)
    assert [call.forward.func for call in calls] == [torch.nn.functional.gelu] * len(blocks)
    assert not any("forward" in vars(module) for module in activations(model))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_activation_of_the_model(dtype: torch.dtype) -> None:
    """In half precision a fused one differs by more than the changes that are looked for."""
    tiny = tiny_gpt2()
    model = tiny.new_bridge().to(dtype)
    recording = backend_of(model).record(tiny.tokens())
    blocks = backend_of(model)
    for number, layer in enumerate(recording.layers):
        assert layer.mid is not None
        assert layer.mlp is not None
        alone = blocks.mlp_output(number, layer.mid, layer.call, direct=True)
        assert torch.equal(alone, layer.mlp)
