"""The tutorial's code runs on the real model, on a few prompts; `make docs` runs it as it is."""

import re
from pathlib import Path

import circuitgraph as cg
from tests.test_examples import few_prompts

DOCS = Path(__file__).parents[1] / "docs"


def code_of(page):
    """The code cells of a page of the documentation, in order."""
    cells = re.findall(r"^```\{code-cell\}[^\n]*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return "\n".join(cells)


def test_the_tutorial_runs(smollm2, monkeypatch, tmp_path, capsys):
    code = code_of((DOCS / "tutorial.md").read_text(encoding="utf-8"))
    monkeypatch.setattr(cg, "load_model", lambda *_: smollm2)
    monkeypatch.setattr(cg.tasks, "ioi", few_prompts)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "tutorial.md", "exec"), names)
    assert "did you mean 23.8?" in capsys.readouterr().out
    for edge in ("23.3 -> logits", "20.0 -> 23.3.q", "17.4 -> 20.0.v", "16.0 -> 17.4.k"):
        assert edge in names["circuit"]
