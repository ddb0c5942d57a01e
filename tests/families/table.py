"""The page docs/architectures.md, one row per family, written by the suite.

CIRCUITGRAPH_GOLDEN=write python -m pytest tests/families
"""

import fcntl
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from circuitgraph.checks import Result
from circuitgraph.checks.precision import Precision
from circuitgraph.graph import ModelShape
from circuitgraph.lens.traits import Traits
from tests.families.registry import FAMILIES
from tests.golden import WRITE, writing

__all__ = ["check_row", "page", "row_of", "rows_on", "special"]

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
HEAD = """# Architectures

What is exact on which family of models, and what is refused. The table is written by the test
suite, which makes a tiny random model of each family from its own configuration and holds three
things to be one: the fast engine, the reference engine, and plain hooks on the model before
TransformerLens wraps it. Senders are the embedding, heads and MLPs; receivers are queries, keys,
values, MLPs and the logits; variants are `mlps` and `single-pass`. The suite also checks the
properties of [what a path patch is](concepts.md) that can be stated without an oracle.

Each row but those of TransformerLens' own models holds for both back ends: a `TransformerBridge`, and
the [Hugging Face model](models.md) as it is, whose shape, clean run and effects are held to those of
the bridge. What is special, precision and deviation are told of the bridge.

The last column bounds the deviation between two numbers that should be equal, in units of the
difference between clean and corrupt run, whatever is compared and on whatever processor. A family
runs in float64 where its code allows that. Many families take norms and softmaxes in float32
whatever their weights are (*float32 inside*). Float32 rounding depends on the processor's vector
width and on the shape that a kernel sees, so there two equal numbers may differ by it: the same
prompt with and without padding, say. Their first bound is for the model as it is. The second is for
the same model with those steps taken in float64, which shows that nothing but rounding differs.

| family | what is special | answer | computes in | deviation |
| --- | --- | --- | --- | --- |
"""
FOOT = """
The same checks run on a model of your own, from the hub or from a folder:

```sh
circuitgraph models --check smollm2-135m
circuitgraph models --check smollm2-135m --backend huggingface
```

or in code, `circuitgraph.checks.run_checks(model)`.

`CIRCUITGRAPH_GOLDEN=write python -m pytest tests/families` writes this page anew.
"""


def special(shape: ModelShape, traits: Traits, bridge: Any, module: Any) -> list[str]:
    """What is special about a model, found on the model itself."""
    config = getattr(module, "config", None)
    found = [
        (shape.grouped, f"grouped queries ({shape.n_heads} on {shape.kv_heads})"),
        (shape.parallel, "attention and MLP in parallel"),
        (shape.attn_only, "no MLPs"),
        ("qkv" in bridge.blocks[0].attn._modules, "queries, keys and values in one matrix"),
        (not traits.heads_apart, "queries and keys normed over all heads"),
        (not traits.additive, "writes normed or scaled before they are added"),
        (not traits.plain_readout, "logits capped or scaled"),
        (
            any(getattr(config, n, None) for n in ("sliding_window", "window_size")),
            "sliding window",
        ),
        (bool(getattr(config, "num_local_experts", None)), "mixture of experts"),
    ]
    return [words for holds, words in found if holds]


def row_of(
    name: str, features: Sequence[str], precision: Precision | None, results: Sequence[Result]
) -> str:
    """A family's row of the table."""
    if results[0].status == "refused":
        reason = results[0].reason.partition(" (")[0].replace("layer 0 of this model has", "it has")
        return f"| {name} |  | refused: {reason} |  |  |"
    assert precision is not None
    bound = {1e-9: "< 1e-9", 1e-4: "< 1e-4"}[precision.allowed]
    if precision.dtype == torch.float64 and not precision.float64_inside:
        bound += "; < 1e-9 in float64 throughout"
    largest = max(r.deviation for r in results if r.deviation is not None)
    assert largest < float(bound.rpartition("< ")[2].split()[0])
    return f"| {name} | {'; '.join(features)} | exact | {precision.words} | {bound} |"


def rows_on(text: str) -> dict[str, str]:
    """The rows that stand on a page, by family."""
    lines = text.partition("| --- |")[2].partition("\n\n")[0].splitlines()[1:]
    return {line.split("|")[1].strip(): line for line in lines}


def page(rows: Mapping[str, str]) -> str:
    """The whole page."""
    return HEAD + "".join(f"{rows[f.name]}\n" for f in FAMILIES if f.name in rows) + FOOT


def check_row(name: str, row: str) -> None:
    """Compare a family's row with the page, or write it there where that is asked for."""
    if writing():
        PAGE.touch()
        with PAGE.open("r+", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # another process may be writing its rows
            rows = {**rows_on(file.read()), name: row}
            file.seek(0)
            file.truncate()
            file.write(page(rows))
        return
    found = rows_on(PAGE.read_text(encoding="utf-8")).get(name)
    assert found == row, f"{PAGE.name} has another row: if that is meant, use {WRITE}=write"
