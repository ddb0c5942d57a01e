"""What is found of a model does not hang on the prompts on which it was asked."""

from typing import Any

import pytest
import torch

import circuitgraph as cg
from circuitgraph.engines.fast.engine import _KNOWN_TRAITS, FastEngine
from circuitgraph.lens import traits as found_traits
from circuitgraph.lens.shortage import is_shortage
from tests.engines.cases import MODELS, case
from tests.engines.known_models import compiled_program, only_at
from tests.engines.test_known_answers import setup_of

KINDS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes"),
    RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
    MemoryError(),
]


@pytest.mark.parametrize("n_pos", [1, 2, 5])
def test_a_bidirectional_model_is_seen_on_one_token_and_on_equal_prompts(n_pos: int) -> None:
    tokens = torch.ones(2, n_pos, dtype=torch.long)
    setup = setup_of(compiled_program("hist"), tokens, tokens, only_at(0, 1))
    assert not FastEngine(setup).traits.causal


@pytest.mark.parametrize("model", ["gpt2", "gemma2"])
def test_short_prompts_first_say_what_long_ones_say(model: str) -> None:
    verdicts = []
    for tokens in (torch.ones(2, 1, dtype=torch.long), torch.tensor([[1, 2, 3, 4, 5, 6]] * 2)):
        exp = cg.Experiment(
            MODELS[model]().new_bridge(),
            tokens,
            tokens,
            cg.LogitDiff([1, 2], [3, 4]),
            allow_no_difference=True,
        )
        verdicts.append(exp._fast.traits)
    assert verdicts[0] == verdicts[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cap_on_small_logits_is_seen(dtype: torch.dtype) -> None:
    """Logits of about .01 are what a cap of 30 leaves alone, to any precision."""
    bridge = MODELS["gemma2"]().new_bridge().to(dtype)
    with torch.no_grad():
        weight = bridge.unembed.original_component.weight
        weight.set_((weight * 1e-2).clone())
    tokens = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    exp = cg.Experiment(bridge, tokens, tokens.flip(0), cg.LogitDiff([1, 2], [3, 4]))
    assert not exp._fast.traits.plain_readout


@pytest.mark.parametrize("error", KINDS, ids=range(len(KINDS)))
@pytest.mark.parametrize("check", ["_replays_clean", "_mlps_alone", "_causal", "_sliceable"])
def test_memory_that_ran_out_is_no_verdict(
    error: Exception, check: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    setup = case("gpt2").setup
    before = FastEngine(setup).traits
    _KNOWN_TRAITS.pop(setup.backend.model)

    def fail(*_: Any) -> bool:
        raise error

    with monkeypatch.context() as patch, pytest.raises(type(error)):
        patch.setattr(found_traits, check, fail)
        _ = FastEngine(setup).traits
    assert setup.backend.model not in _KNOWN_TRAITS
    assert FastEngine(setup).traits == before
    assert is_shortage(error)
