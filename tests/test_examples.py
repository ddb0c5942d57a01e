"""The examples run on the real model, on a few prompts each; `make docs` runs them as they are."""

import ast
import functools
import runpy
from pathlib import Path

import pytest

import circuitgraph as cg
from circuitgraph.tasks import ioi

FEW = 4
FEWER = {"ioi_circuit": 2, "arena_path_patching": 2}
"""Of an example with several large sweeps."""
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
EDGES = {
    "ioi_circuit": "23.3 -> logits",
    "ioi_published": "5.5 -> 8.6.v",
    "name_movers": "23.3 -> logits",
}
"""An edge of the circuit that an example ends with."""
FILES = {
    "ioi_circuit": ["ioi_circuit.svg", "ioi_circuit.html"],
    "ioi_published": ["ioi_published.svg"],
    "name_movers": ["name_movers.svg"],
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_reads_like_a_page(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)).startswith("# "), "it begins with a title"
    assert "# %%" in text
    assert "# %% [markdown]" in text


def few_prompts(tokenizer, n, seed, most=FEW, **options):
    """The task that an example asks for, cut short."""
    return ioi(tokenizer, n=min(n, most), seed=seed, **options)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_runs(path, smollm2, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cg, "load_model", lambda *_: smollm2)  # loaded once for all tests
    few = functools.partial(few_prompts, most=FEWER.get(path.stem, FEW))
    monkeypatch.setattr(cg.tasks, "ioi", few)
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(path))
    assert capsys.readouterr().out
    if path.stem in EDGES:
        assert EDGES[path.stem] in names["circuit"]
        assert set(FILES[path.stem]) <= {file.name for file in tmp_path.iterdir()}
