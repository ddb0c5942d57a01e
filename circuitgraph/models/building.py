"""Giving a model of transformers the weights of a file, every one of them, and quietly."""

import io
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging as transformers_logging

from circuitgraph.errors import ModelError

__all__ = ["build", "quiet"]


def build(
    kind: Any, config: Any, weights: Mapping[str, Tensor], dtype: torch.dtype, name: str
) -> torch.nn.Module:
    """Build a model of a class of transformers and give it weights.

    Raises:
        ModelError: The weights are not exactly the model's; names the file and the weights.
    """
    model, loading = kind.from_pretrained(
        None,
        config=config,
        state_dict=dict(weights),
        dtype=dtype,
        ignore_mismatched_sizes=True,  # to be told of them below
        output_loading_info=True,
    )
    astray = [
        f"{kind.removesuffix('_keys')}: {', '.join(sorted(map(_name, found)))}"
        for kind, found in loading.items()
        if found
    ]
    if astray:
        raise ModelError(
            f"cannot read {name!r}: its weights do not fit the model ({'; '.join(astray)})"
        )
    built: torch.nn.Module = model
    return built


def _name(found: str | tuple[Any, ...]) -> str:
    """Return the weight's name from what the loader reports: the name, or name and sizes."""
    return found if isinstance(found, str) else str(found[0])


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back progress bars and warnings of transformers, and leave all settings as they were.

    Not every bar can be switched off, so standard error is held back too; exceptions pass.
    """
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(level)
