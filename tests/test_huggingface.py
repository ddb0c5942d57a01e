"""Plain Hugging Face models: what a user must do, may name, and is told."""

import copy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import circuitgraph as cg
from circuitgraph.checks import run_checks
from circuitgraph.cli.app import app
from circuitgraph.errors import MetricError, ModelError, PromptError
from circuitgraph.lens.backend import backend_of
from circuitgraph.lens.huggingface.families import map_of
from tests.models import tiny_gemma2, tiny_gpt2, tiny_llama, tiny_neox

CLEAN, CORRUPT = tiny_gpt2().tokens(3, 6, seed=1), tiny_gpt2().tokens(3, 6, seed=2)
METRIC = cg.LogitDiff([3, 4, 5], [6, 7, 8])
GPT2 = cg.HuggingFaceMap(
    blocks="transformer.h",
    attention="attn",
    qkv="c_attn",
    o="c_proj",
    mlp_norm="ln_2",
    final_norm="transformer.ln_f",
)


def module(tiny: Any = tiny_gpt2) -> Any:
    return copy.deepcopy(tiny().hf)


def experiment(model: Any, metric: Any = METRIC, **options: Any) -> cg.Experiment:
    return cg.Experiment(model, CLEAN, CORRUPT, metric, progress=False, **options)


WITHOUT = """
import sys, torch, transformers, circuitgraph as cg
from circuitgraph.checks import run_checks
from circuitgraph.cli.app import app
from circuitgraph.lens.backend import backend_of
from typer.testing import CliRunner
config = transformers.LlamaConfig(
    hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4,
    num_key_value_heads=2, vocab_size=23, attn_implementation="eager")
model = transformers.LlamaForCausalLM(config).eval()
clean, corrupt = torch.arange(12).view(2, 6), torch.arange(12).view(2, 6).flip(0)
exp = cg.Experiment(model, clean, corrupt, cg.LogitDiff([3, 4], [5, 6]))
for engine in ("fast", "reference"):
    exp.patch("0.1 -> 1.1.k => logits", engine=engine)
assert [r.status for r in run_checks(model, only=["queries"])] == ["passed"]
print([name for name in sys.modules if name.startswith("transformer_lens")])
"""


def test_transformer_lens_is_not_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_tokenizer_may_be_given() -> None:
    class Letters:
        pad_token_id, eos_token_id, bos_token_id = None, 0, None

        def encode(self, text: str, **_: Any) -> list[int]:
            return [ord(letter) - 97 for letter in text]

    texts, metric = (["abc", "bcde"], ["cba", "edcb"]), cg.LogitDiff([3, 4], [6, 7])
    given = cg.Experiment(module(), *texts, metric, tokenizer=Letters(), progress=False)
    tokens = torch.tensor([[0, 1, 2, 0], [1, 2, 3, 4]]), torch.tensor([[2, 1, 0, 0], [4, 3, 2, 1]])
    same = cg.Experiment(module(), *tokens, metric, lengths=[3, 4], progress=False)
    assert np.array_equal(given.clean_metric, same.clean_metric)
    with pytest.raises(PromptError, match="the model has no tokenizer"):
        cg.Experiment(module(), *texts, metric)


# -- the map ---------------------------------------------------------------------------------------


class TestMap:
    """A family that is not known: GPT-2 under another name."""

    @pytest.fixture
    def unknown(self) -> Any:
        model = module()
        model.config.model_type = "mine"
        return model

    def test_is_asked_for(self, unknown: Any) -> None:
        with pytest.raises(ModelError) as caught:
            experiment(unknown)
        assert str(caught.value) == (
            "cannot make an experiment: GPT2LMHeadModel has no blocks at 'model.layers': name its "
            "parts with cg.HuggingFaceMap(blocks=...)"
        )

    def test_gives_the_numbers_of_the_known_family(self, unknown: Any) -> None:
        assert map_of(module()) == GPT2
        request = "[embed, 0.1, mlp0] -> [1.1.q, 2.2.k, 1.0.v] => logits"
        one, other = (
            experiment(model).patch(request).data.patched for model in (module(), GPT2.on(unknown))
        )
        np.testing.assert_array_equal(one, other)

    def test_is_proved_by_the_checks(self, unknown: Any) -> None:
        results = list(run_checks(GPT2.on(unknown), only=["values", "5 all writers"], cells=1))
        assert [result.status for result in results] == ["passed", "passed"]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"blocks": "transformer.x"}, "has no blocks at 'transformer.x'"),
            ({"attention": "self"}, r"layer 0 .* \(it has ln_1, attn, ln_2, mlp\)"),
            ({"o": "proj"}, "c_attn, proj of attn"),
            ({"mlp": "ffn"}, "layer 0 of this model has no 'ffn'"),
            ({"mlp_norm": "ln_3"}, "no 'ln_3'"),
            ({"final_norm": "ln"}, "has no final norm at 'ln'"),
            ({"unembed": "head"}, "nothing that makes logits at 'head'"),
            ({"n_heads": 5}, "not queries of 5 heads"),
            ({"parallel": True}, "ln_2 does not read the block's input"),
            ({"mlp_norm": "ln_1"}, "ln_1 reads the block's input, not what the attention"),
            ({"mlp_norm": ""}, "when the MLP is silent, the block does not leave it as mlp"),
            ({"qkv_order": "grouped"}, "does not hold queries, keys and values in the order"),
            ({"mlp": "attn.resid_dropout"}, "the block does not leave it as ln_2 reads it"),
            ({"mlp": "mlp.act"}, "mlp.act writes 20 features, the residual stream has 12"),
        ],
    )
    def test_that_is_wrong_is_refused_before_anything_is_measured(
        self, change: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ModelError, match=message):
            experiment(replace(GPT2, **change).on(module()))

    def test_of_other_layouts_is_refused(self) -> None:
        neox = map_of(module(tiny_neox))
        assert neox.qkv_order == "grouped"
        with pytest.raises(ModelError, match="say another qkv_order"):
            experiment(replace(neox, qkv_order="joined").on(module(tiny_neox)))
        with pytest.raises(ModelError, match="say parallel=True"):
            experiment(replace(neox, parallel=False).on(module(tiny_neox)))

    def test_from_a_file(self, tmp_path: Path) -> None:
        path = tmp_path / "parts.toml"
        path.write_text('blocks = "transformer.h"\nparallel = true\nn_heads = 4\n')
        found = cg.HuggingFaceMap.read(path)
        assert found == cg.HuggingFaceMap(blocks="transformer.h", parallel=True, n_heads=4)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("block = 'h'", "names 'block', which is no part: the parts are blocks, attention"),
            ("parallel = 'yes'", "gives parallel = 'yes': it must be like False"),
            ("qkv_order = 'mixed'", "no order 'mixed' of qkv"),
            ("blocks", "cannot read the map"),
        ],
    )
    def test_a_file_that_is_wrong(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "parts.toml"
        path.write_text(text)
        with pytest.raises(ModelError, match=message):
            cg.HuggingFaceMap.read(path)
        with pytest.raises(ModelError, match="cannot read the map"):
            cg.HuggingFaceMap.read(tmp_path / "nowhere.toml")


# -- the state that a model is in --------------------------------------------------------------------


def test_attention_that_cannot_be_seen_is_refused() -> None:
    model = module()
    model.set_attn_implementation("sdpa")
    with pytest.raises(
        ModelError, match=r"attention is 'sdpa'.*set_attn_implementation\('eager'\)"
    ):
        experiment(model)
    model.set_attn_implementation("eager")
    experiment(model)


def test_training_and_hooks_of_others_are_refused() -> None:
    model = module().train()
    handle = model.transformer.h[1].mlp.register_forward_hook(lambda *_: None)
    with pytest.raises(ModelError) as caught:
        experiment(model)
    assert "call model.eval()" in str(caught.value)
    assert "hooks were left on the model at transformer.h.1.mlp" in str(caught.value)
    handle.remove()
    experiment(model.eval())


def test_nothing_is_left_on_the_model() -> None:
    model = module()
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    for metric in (METRIC, cg.AttentionTo("2.1", 0)):
        exp = experiment(model, metric)
        for engine in ("fast", "reference"):
            exp.patch("0.1 -> 1.1.k => logits", engine=engine)
    for part in model.modules():
        assert not part._forward_hooks
        assert not part._forward_pre_hooks
        assert "forward" not in vars(part)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, before[name])


# -- metrics of activations --------------------------------------------------------------------------


def seen(model: Any, path: str, tokens: Tensor) -> Tensor:
    """What a module gives, or with ``:in`` reads, by one plain hook."""
    found: list[Tensor] = []
    at, _, kind = path.partition(":")

    def before(_: Any, args: Any, kwargs: Any) -> None:
        found.append(args[0] if args else kwargs["hidden_states"])

    def after(_: Any, __: Any, output: Any) -> None:
        parts = output if isinstance(output, tuple) else (output,)
        found.append(parts[1] if kind == "pattern" else parts[0])

    part = model.get_submodule(at)
    handle = (
        part.register_forward_pre_hook(before, with_kwargs=True)
        if kind == "in"
        else part.register_forward_hook(after)
    )
    with torch.no_grad():
        model(tokens)
    handle.remove()
    return found[0]


PATHS = (
    ("gpt2", "transformer.h.1.attn.c_attn"),
    ("gpt2", "transformer.h.1.mlp.act"),
    ("gpt2", "transformer.h.1:in"),
    ("gpt2", "transformer.h.2"),
    ("gpt2", "transformer.h.2.ln_2:in"),
    ("gpt2", "transformer.h.1.attn.c_proj:in"),
    ("gpt2", "transformer.ln_f"),
    ("llama", "model.layers.1.self_attn"),
    ("llama", "model.layers.1.mlp"),
    ("llama", "model.layers.2.mlp.down_proj:in"),
    ("llama", "model.layers.1.self_attn:pattern"),
    ("gemma2", "model.layers.1.post_attention_layernorm"),
    ("neox", "gpt_neox.layers.1.post_attention_layernorm"),
    ("neox", "gpt_neox.layers.2.attention:pattern"),
)
TINY = {"gpt2": tiny_gpt2, "llama": tiny_llama, "gemma2": tiny_gemma2, "neox": tiny_neox}


@pytest.mark.parametrize(("name", "path"), PATHS)
def test_activations_by_module_path(name: str, path: str) -> None:
    """Clean values by a plain hook, everything patched is corrupt, and the engines agree."""
    model = module(TINY[name])
    metric = cg.Activation(path, lambda value: (value * value.cos()).flatten(1).sum(dim=1))
    exp = experiment(model, metric)
    for tokens, ours in ((CLEAN, exp.clean_metric), (CORRUPT, exp.corrupt_metric)):
        theirs = metric.function(seen(model, path, tokens)).numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    everything = exp.patch("embed => logits").data.patched
    np.testing.assert_allclose(everything, exp.corrupt_metric, rtol=1e-6)
    one, other = (
        exp.patch("[embed, 0.1] => logits", engine=engine).data.patched
        for engine in ("fast", "reference")
    )
    np.testing.assert_allclose(one, other, rtol=1e-7)


@pytest.mark.parametrize("name", ["gpt2", "llama", "neox"])
def test_the_pattern_of_a_patched_head_is_the_bridges(name: str) -> None:
    """The bridge shows patterns before the attention is done, a plain model after."""
    head = cg.AttentionTo("1.1", 2, query=4)
    for request in ("0.1 -> 1.1.q => logits", "embed -> {1.0.k, 1.1.k} => logits"):
        found = [
            experiment(model, head).patch(request, engine=engine).data.patched.to_numpy()
            for model in (module(TINY[name]), TINY[name]().bridge)
            for engine in ("fast", "reference")
        ]
        for one in found[1:]:
            np.testing.assert_allclose(one, found[0], rtol=1e-5)


def test_activations_that_are_not_there() -> None:
    for path, message in (
        ("transformer.h.1.mpl", r"did you mean .*transformer\.h\.1\.mlp"),
        ("transformer.wte", "before the first block"),
        ("blocks.1.attn.hook_pattern", "no hook named"),
    ):
        with pytest.raises(MetricError, match=message):
            experiment(module(), cg.Activation(path, lambda value: value[:, 0, 0]))


# -- loading and the command line ------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 as `save_pretrained` writes it, tokenizer beside it."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("tiny-gpt2")
    model = module()
    words = {"<unk>": 0, **{f"w{number}": number for number in range(1, 23)}}
    inner = Tokenizer(WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>").save_pretrained(path)
    model.save_pretrained(path)
    return path


def test_a_folder_is_loaded_ready_to_be_patched(folder: Path) -> None:
    model = cg.load_model(folder, backend="huggingface", dtype=torch.float64, device="cpu")
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert not any(weight.requires_grad for weight in model.parameters())
    assert model.tokenizer.encode("w3 w4") == [3, 4]
    one, other = (experiment(each).patch("head -> logits") for each in (model, module()))
    np.testing.assert_allclose(one.data.patched, other.data.patched, rtol=1e-12)
    with pytest.raises(ModelError, match="no back end 'jax': write one of transformerlens, hugg"):
        cg.load_model(folder, backend="jax")  # type: ignore[call-overload]


def test_a_folder_that_transformers_cannot_load(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a model transformers can load"):
        cg.load_model(tmp_path, backend="huggingface")


def test_a_map_is_checked_on_the_command_line(folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "parts.toml"
    names.write_text(
        'blocks = "transformer.h"\nattention = "attn"\nqkv = "c_attn"\no = "c_proj"\n'
        'mlp_norm = "ln_2"\nfinal_norm = "transformer.ln_f"\n'
    )
    asked = ["models", "--check", str(folder), "--only", "queries", "--map", str(names)]
    right = CliRunner().invoke(app, [*asked, "--backend", "huggingface", "--dtype", "float64"])
    assert right.exit_code == 0, right.output
    assert "1 passed." in right.output
    without = CliRunner().invoke(app, asked)
    assert without.exit_code == 2
    assert "--backend huggingface" in without.output
    names.write_text('blocks = "transformer.h"\nattention = "self"\n')
    wrong = CliRunner().invoke(app, [*asked, "--backend", "huggingface"])
    assert wrong.exit_code == 1


# -- recordings -------------------------------------------------------------------------------------


def overwrite(value: Tensor) -> None:
    value.mul_(0)


def test_what_a_model_writes_over_is_recorded_as_it_was_read() -> None:
    """Hooks stand in for parts that write into what they were given, after use."""
    plain, writing = module(), module()
    for block in writing.transformer.h:
        block.attn.c_proj.register_forward_hook(lambda _, given, __: overwrite(given[0]))
    one, other = (backend_of(model).record(CLEAN) for model in (plain, writing))
    assert not one.copied
    assert other.copied
    for before, after in zip(one.layers, other.layers, strict=True):
        assert before.z is not None
        assert after.z is not None
        assert torch.equal(before.z, after.z)
        assert after.z.any()
