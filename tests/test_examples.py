"""The examples run on the real model, on a few prompts each; `make docs` runs them as they are."""

import ast
import runpy
from pathlib import Path

import pytest

import circuitgraph as cg
from circuitgraph.tasks import ioi

FEW = 4
EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_reads_like_a_page(path):
    text = path.read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(text)).startswith("# "), "it begins with a title"
    assert "# %%" in text
    assert "# %% [markdown]" in text


def few_prompts(tokenizer, n, seed):
    """The task that an example asks for, cut short."""
    return ioi(tokenizer, n=min(n, FEW), seed=seed)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_runs(path, smollm2, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(cg, "load_model", lambda *_: smollm2)  # loaded once for all tests
    monkeypatch.setattr(cg.tasks, "ioi", few_prompts)
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(path))
    assert capsys.readouterr().out
