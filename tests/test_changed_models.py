"""A model that changes after it was recorded: every number is of the model as it is now."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformer_lens.model_bridge.sources import build_bridge_from_module
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama
from transformers.models.llama.modeling_llama import LlamaMLP

import circuitgraph as cg
from circuitgraph.engines.fast.memory import recording_bytes
from circuitgraph.errors import ModelError
from circuitgraph.lens import fingerprint as fingerprints
from circuitgraph.lens.fingerprint import fingerprint
from tests import models

REQUEST = "head -> 2.1.v => logits"
CLEAN = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
CORRUPT = torch.tensor([[3, 1, 8, 1, 5], [9, 2, 7, 5, 3]])


def small_gpt2() -> Any:
    """A fresh GPT-2 in float64, whose weights a test may change."""
    return models.tiny_gpt2().new_bridge()


def new_experiment(bridge: Any, **options: Any) -> cg.Experiment:
    return cg.Experiment(bridge, CLEAN, CORRUPT, cg.LogitDiff([1, 2], [3, 4]), **options)


def patched(effects: cg.Effects) -> Any:
    return effects.data["patched"].to_numpy()


def weight(bridge: Any) -> nn.Parameter:
    """A weight in the middle of the model, as the wrapped module holds it."""
    found = bridge.blocks[1].attn.o.original_component.weight
    assert isinstance(found, nn.Parameter)
    return found


def one_training_step(bridge: Any) -> None:
    """Plain gradient descent, through the wrapped module."""
    module = bridge.original_model
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.05)
    with torch.enable_grad():
        logits = module(CLEAN)
        (logits if isinstance(logits, torch.Tensor) else logits.logits).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    for parameter in module.parameters():
        parameter.requires_grad_(False)


def in_place(bridge: Any) -> None:
    with torch.no_grad():
        weight(bridge).mul_(1.5)


def through_data(bridge: Any) -> None:
    """PyTorch's version counter does not see this."""
    before = weight(bridge)._version
    weight(bridge).data.mul_(1.5)
    assert weight(bridge)._version == before


def through_numpy(bridge: Any) -> None:
    """Nor this."""
    weight(bridge).detach().numpy()[3, 2] += 0.5


def data_copied(bridge: Any) -> None:
    weight(bridge).data.copy_(torch.randn_like(weight(bridge)))


def data_replaced(bridge: Any) -> None:
    weight(bridge).data = torch.randn_like(weight(bridge))


def weight_replaced(bridge: Any) -> None:
    inner = bridge.blocks[1].attn.o.original_component
    inner.weight = nn.Parameter(torch.randn_like(inner.weight), requires_grad=False)


def rows_swapped(bridge: Any) -> None:
    """The same numbers in other places."""
    data = weight(bridge).data
    data.copy_(data.flip(0))


def columns_swapped(bridge: Any) -> None:
    data = weight(bridge).data
    data.copy_(data.flip(1))


def state_loaded(bridge: Any) -> None:
    module = bridge.blocks[2].mlp.original_component
    module.load_state_dict({k: v * 1.3 for k, v in module.state_dict().items()})


class Adapted(nn.Module):
    """A low-rank adapter around a linear module."""

    def __init__(self, inner: nn.Module, width: int) -> None:
        super().__init__()
        self.inner = inner
        generator = torch.Generator().manual_seed(0)
        down, up = torch.randn(2, width, 2, generator=generator, dtype=torch.float64)
        self.down, self.up = nn.Parameter(down), nn.Parameter(up.T)
        self.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) + x @ self.down @ self.up  # type: ignore[no-any-return]


def module_wrapped(bridge: Any) -> None:
    """As LoRA does it, around the projection that the wrapped model runs."""
    projection = bridge.blocks[1].mlp.original_component
    inner = projection.c_proj
    width = 20
    wrapped = Adapted(inner, width)
    wrapped.up = nn.Parameter(torch.randn(2, 12, dtype=torch.float64), requires_grad=False)
    projection.c_proj = wrapped


def epsilon_changed(bridge: Any) -> None:
    bridge.blocks[1].ln1.config.eps = 0.5


def activation_replaced(bridge: Any) -> None:
    bridge.blocks[1].mlp.original_component.act = nn.ReLU()


CHANGES: list[Callable[[Any], None]] = [
    one_training_step,
    in_place,
    through_data,
    through_numpy,
    data_copied,
    data_replaced,
    weight_replaced,
    rows_swapped,
    columns_swapped,
    state_loaded,
    module_wrapped,
    epsilon_changed,
    activation_replaced,
]
QUICK = [
    (one_training_step, "fast"),
    (through_data, "fast"),
    (through_data, "in parts"),
    (through_data, "reference"),
    (module_wrapped, "fast"),
    (epsilon_changed, "fast"),
]


WAYS = [
    pytest.param(change, how, marks=[] if (change, how) in QUICK else pytest.mark.large)
    for change in CHANGES
    for how in ("fast", "in parts", "reference")
]


@pytest.mark.parametrize(("change", "how"), WAYS)
def test_a_changed_model_is_recorded_anew(change: Callable[[Any], None], how: str) -> None:
    """An experiment made before the change and one made after it say the same."""
    bridge = small_gpt2()
    engine = "reference" if how == "reference" else "fast"
    budget = None if how != "in parts" else 5 * recording_bytes(new_experiment(bridge)._setup)
    exp = new_experiment(bridge, memory_budget=budget)
    before = patched(exp.patch(REQUEST, engine=engine))
    change(bridge)
    after = exp.patch(REQUEST, engine=engine)
    fresh = new_experiment(bridge, self_check=False).patch(REQUEST, engine="reference")
    assert not np.allclose(before, patched(fresh), rtol=1e-3, equal_nan=True)
    for name in ("clean", "corrupt", "patched"):
        assert np.allclose(after.data[name], fresh.data[name], atol=1e-9, equal_nan=True)
    assert np.allclose(exp.clean_metric, fresh.data["clean"], atol=1e-9)
    assert np.allclose(exp.corrupt_metric, fresh.data["corrupt"], atol=1e-9)


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize("what", ["class", "function"])
def test_a_replaced_forward_or_function_of_a_class_is_recorded_anew(
    what: str, engine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, attn_implementation="eager",
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).double().eval().requires_grad_(False)
    exp = new_experiment(model)
    before = patched(exp.patch("head -> 1.1.v => logits", engine=engine))

    def halved(self: Any, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * self.up_proj(x)) / 2

    if what == "class":
        monkeypatch.setattr(LlamaMLP, "forward", halved)
    else:
        monkeypatch.setattr(modeling_llama, "apply_rotary_pos_emb", lambda q, k, *_: (2 * q, k))
    found = patched(exp.patch("head -> 1.1.v => logits", engine=engine))
    fresh = patched(new_experiment(model).patch("head -> 1.1.v => logits", engine=engine))
    assert np.allclose(found, fresh, rtol=1e-9, atol=1e-9, equal_nan=True)
    assert not np.allclose(found, before, equal_nan=True)


@pytest.mark.parametrize("first", ["clean_metric", "compare", "schedule", "metrics"])
def test_whatever_is_asked_first_after_a_change(first: str) -> None:
    bridge = small_gpt2()
    exp = new_experiment(bridge)
    exp.patch(REQUEST)
    through_data(bridge)
    fresh = new_experiment(bridge)
    match first:
        case "clean_metric":
            assert np.allclose(exp.clean_metric, fresh.clean_metric, atol=1e-9)
        case "compare":
            one, other = (e.compare("head -> logits") for e in (exp, fresh))
            for name in ("mlps", "single-pass"):
                assert np.allclose(
                    patched(one.effects[name]), patched(other.effects[name]), atol=1e-9
                )
        case "schedule":
            assert str(exp.schedule(REQUEST)) == str(fresh.schedule(REQUEST))
        case "metrics":
            metrics = {"lp": cg.LogProb([1, 2])}
            one, other = (e.patch(REQUEST, metrics=metrics)["lp"] for e in (exp, fresh))
            assert np.allclose(patched(one), patched(other), atol=1e-9, equal_nan=True)
    assert np.allclose(
        patched(exp.patch(REQUEST)), patched(fresh.patch(REQUEST)), atol=1e-9, equal_nan=True
    )


def test_compatibility_mode_after_the_recordings() -> None:
    """TransformerLens folds norms and centres weights in place."""
    torch.manual_seed(0)
    config = GPT2Config(n_layer=3, n_head=2, n_embd=16, vocab_size=23, n_positions=16)
    config._attn_implementation = "eager"
    module = GPT2LMHeadModel(config).eval().to(torch.float64)
    bridge = build_bridge_from_module(module, architecture="GPT2LMHeadModel", hf_config=config)
    exp = new_experiment(bridge)
    before = patched(exp.patch("head -> logits"))
    bridge.enable_compatibility_mode(disable_warnings=True)
    after = exp.patch("head -> logits")
    fresh = new_experiment(bridge).patch("head -> logits", engine="reference")
    assert np.allclose(after.data["patched"], fresh.data["patched"], atol=1e-6)
    assert np.allclose(patched(after), patched(fresh), atol=1e-6)
    assert np.allclose(before, patched(after), atol=1e-6)  # property 13: what folding leaves alone


def test_nothing_is_recorded_anew_without_a_change() -> None:
    bridge = small_gpt2()
    exp = new_experiment(bridge)
    exp.patch(REQUEST)
    runs = []
    handle = bridge.embed.original_component.register_forward_hook(lambda *_: runs.append(1))
    handle.remove()
    with torch.no_grad():
        weight(bridge).mul_(1.0)  # counted by PyTorch, but the values are the same
    engines = dict(exp._engines)
    exp.patch(REQUEST)
    assert exp._engines == engines


@pytest.mark.parametrize(
    ("move", "text"),
    [
        (lambda bridge: bridge.to(torch.float32), "torch.float64 on cpu .* torch.float32 on cpu"),
        (lambda bridge: bridge.original_model.bfloat16(), "is torch.bfloat16 on cpu .* now"),
        (lambda bridge: bridge.train(), "training mode"),
    ],
)
def test_a_model_that_became_another_is_refused(move: Callable[[Any], Any], text: str) -> None:
    bridge = small_gpt2()
    exp = new_experiment(bridge)
    move(bridge)
    with pytest.raises(ModelError, match=text):
        exp.patch(REQUEST)
    with pytest.raises(ModelError, match=text):
        exp.clean_metric
    assert "not to be measured" in repr(exp)


def test_a_model_that_changes_while_it_is_patched_is_refused() -> None:
    bridge = small_gpt2()
    training = []

    def metric(logits: torch.Tensor) -> torch.Tensor:
        if training:
            in_place(bridge)
        return logits[:, -1, 1] - logits[:, -1, 3]

    exp = cg.Experiment(bridge, CLEAN, CORRUPT, metric)
    exp.patch("head -> logits")
    training.append(True)
    with pytest.raises(ModelError, match="changed while it was being patched"):
        exp.patch("head -> logits")
    training.clear()
    fresh = cg.Experiment(bridge, CLEAN, CORRUPT, metric).patch("head -> logits")
    assert np.allclose(patched(exp.patch("head -> logits")), patched(fresh), atol=1e-9)


# -- hooks and forwards of others ------------------------------------------------------------------


def doubled(_: Any, __: Any, output: Any) -> Any:
    return output * 2


def lens_hook(bridge: Any) -> Any:
    bridge.add_hook("blocks.1.attn.hook_z", lambda z, hook: z * 2)


def permanent_lens_hook(bridge: Any) -> Any:
    bridge.blocks[1].attn.o.hook_in.add_perma_hook(lambda z, hook: z * 2)


def torch_hook(bridge: Any) -> Any:
    bridge.blocks[1].mlp.original_component.register_forward_hook(doubled)


def torch_pre_hook(bridge: Any) -> Any:
    bridge.original_model.get_input_embeddings()
    bridge.blocks[0].ln2.original_component.register_forward_pre_hook(lambda _, a: (a[0] * 2,))


def backward_hook(bridge: Any) -> Any:
    bridge.blocks[0].mlp.original_component.register_full_backward_hook(lambda *_: None)


def hook_on_the_whole(bridge: Any) -> Any:
    bridge.original_model.register_forward_pre_hook(lambda *_: None)


def forward_replaced(bridge: Any) -> Any:
    mlp = bridge.blocks[1].mlp.original_component
    own = mlp.forward
    vars(mlp)["forward"] = lambda x: own(x) * 2


def forward_of_the_bridge_replaced(bridge: Any) -> Any:
    attn = bridge.blocks[1].attn
    own = attn.forward
    vars(attn)["forward"] = lambda *a, **k: own(*a, **k)


FOREIGN = [
    lens_hook,
    permanent_lens_hook,
    torch_hook,
    torch_pre_hook,
    backward_hook,
    hook_on_the_whole,
    forward_replaced,
    forward_of_the_bridge_replaced,
]


@pytest.mark.parametrize("put", FOREIGN)
def test_what_somebody_put_on_the_model_is_refused(put: Callable[[Any], None]) -> None:
    bridge = small_gpt2()
    exp = new_experiment(bridge)
    exp.patch(REQUEST)
    put(bridge)
    text = "forward of .* was replaced" if "forward" in put.__name__ else "hooks were left on"
    for ask in (
        lambda: exp.patch(REQUEST),
        lambda: exp.patch(REQUEST, engine="reference"),
        lambda: exp.compare("head -> logits"),
        lambda: exp.schedule(REQUEST),
        lambda: exp.patch(REQUEST, metrics={"a": cg.LogProb([1, 2])}),
        lambda: exp.clean_metric,
        lambda: exp.corrupt_metric,
        lambda: new_experiment(bridge),
    ):
        with pytest.raises(ModelError, match=text):
            ask()


def test_a_hook_on_every_module_is_refused() -> None:
    exp = new_experiment(small_gpt2())
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        with pytest.raises(ModelError, match="register_module_forward_hook"):
            exp.patch(REQUEST)
    finally:
        handle.remove()
    exp.patch(REQUEST)


def test_hooks_that_were_taken_off_again_change_nothing() -> None:
    bridge = small_gpt2()
    exp = new_experiment(bridge)
    before = patched(exp.patch(REQUEST))
    with bridge.hooks(fwd_hooks=[("blocks.1.attn.hook_z", lambda z, hook: z * 2)]):
        with pytest.raises(ModelError, match="hooks were left on"):
            exp.patch(REQUEST)
    bridge.blocks[1].mlp.original_component.register_forward_hook(doubled).remove()
    assert np.array_equal(patched(exp.patch(REQUEST)), before, equal_nan=True)


# -- fingerprints ----------------------------------------------------------------------------------


@pytest.fixture(params=["whole", "sample"])
def reading(request: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "sample":
        monkeypatch.setattr(fingerprints, "SUMMED_WHOLE", {})
        monkeypatch.setattr(fingerprints, "SAMPLE", 16)
    return str(request.param)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_any_changed_number_makes_another_fingerprint(dtype: torch.dtype, reading: str) -> None:
    """Each entry of each weight: the smallest change that the type knows."""
    module = nn.Sequential(nn.Linear(37, 5), nn.LayerNorm(5), nn.Embedding(3, 300)).to(dtype)
    before = fingerprint(module)
    assert fingerprint(copy.deepcopy(module)).sums == before.sums
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        size = parameter.numel()
        for at in torch.randperm(size, generator=generator)[:40].tolist():
            data = parameter.detach().view(-1)
            old = data[at].clone()
            data[at] = torch.nextafter(old.double(), torch.tensor(9.0, dtype=torch.float64)) * 1.02
            if data[at] != old:
                assert fingerprint(module) != before, (tuple(parameter.shape), at)
            data[at] = old
    if reading == "whole":
        assert fingerprint(module) == before


def test_a_sample_sees_what_pytorch_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """Larger models: a write through `.data` shows where it touches one number in many."""
    monkeypatch.setattr(fingerprints, "SUMMED_WHOLE", {})
    module = nn.Linear(400, 400)
    before = fingerprint(module)
    module.weight.data[7:11] *= 1.001
    assert fingerprint(module) != before


def test_one_fingerprint_for_equal_models() -> None:
    one, other = small_gpt2(), small_gpt2()
    assert fingerprint(one) == fingerprint(other)
    assert hash(fingerprint(one)) == hash(fingerprint(other))
    with torch.no_grad():
        one(CLEAN)
    assert fingerprint(one) == fingerprint(other)
