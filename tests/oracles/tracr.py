"""Compiled programs, whose circuits are known, as plain transformers."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tests.oracles.plain import EMBED, LOGITS, Edge, Node, PlainTransformer, Port

FIXTURES = Path(__file__).parent.parent / "fixtures"
PROGRAMS = ("frac_prevs", "hist", "reverse")


@dataclass(frozen=True, eq=False)
class Program:
    """A program compiled to a transformer, its inputs, its outputs and its circuit."""

    name: str
    model: PlainTransformer
    clean: Int[Tensor, "prompt pos"]
    corrupt: Int[Tensor, "prompt pos"]
    clean_out: Float[Tensor, "prompt pos d_vocab_out"]
    structural: frozenset[Edge]
    """Edges that can carry anything at all: outside these every effect is exactly 0."""
    effective: dict[Edge, float]
    """Edges that alone change the output of some prompt, with the largest change of any logit."""


@functools.cache
def load(name: str) -> Program:
    """Load one of `PROGRAMS`, in float64."""
    about: dict[str, Any] = json.loads((FIXTURES / "tracr.json").read_text())[name]
    return Program(
        name=name,
        model=PlainTransformer.from_arrays(**arrays(name), causal=False),
        clean=torch.tensor(about["clean_ids"]),
        corrupt=torch.tensor(about["corrupt_ids"]),
        clean_out=torch.tensor(about["clean_out"], dtype=torch.float64),
        structural=frozenset(parse_edge(text) for text in about["structural"]),
        effective={parse_edge(text): change for text, change in about["effective"].items()},
    )


def arrays(name: str) -> dict[str, Any]:
    """The weights of a program, named as `PlainTransformer.from_arrays` wants them."""
    with np.load(FIXTURES / f"tracr_{name}.npz") as file:
        found = {key: torch.from_numpy(file[key]) for key in file.files if key != "residual_labels"}
    n_layers = sum(key.endswith(".Wq") for key in found)
    attention = {f"w_{x}": f"W{x}" for x in "qkvo"} | {f"b_{x}": f"b{x}" for x in "qkvo"}
    mlp = {"w_in": "W1", "b_in": "b1", "w_out": "W2", "b_out": "b2"}
    return {
        "w_e": found["E"],
        "w_pos": found["Pos"],
        "w_u": found["U"],
        "attention": [_of_layer(found, layer, attention) for layer in range(n_layers)],
        "mlps": [_of_layer(found, layer, mlp) for layer in range(n_layers)],
    }


def _of_layer(found: dict[str, Tensor], layer: int, names: dict[str, str]) -> dict[str, Tensor]:
    return {ours: found[f"l{layer}.{theirs}"] for ours, theirs in names.items()}


def parse_edge(text: str) -> Edge:
    """`"m0->a1.0.q"` as `(("mlp", 0), ("q", 1, 0))`."""
    writer, reader = text.split("->")
    return _node(writer), _port(reader)


def _node(text: str) -> Node:
    if text in ("tok", "pos"):
        return EMBED
    if text[0] == "m":
        return ("mlp", int(text[1:]))
    layer, head = text[1:].split(".")
    return ("head", int(layer), int(head))


def _port(text: str) -> Port:
    if text == "out":
        return LOGITS
    if text[0] == "m":
        return ("mlp", int(text[1:]))
    layer, head, kind = text[1:].split(".")
    return (kind, int(layer), int(head))
