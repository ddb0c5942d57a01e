"""What the documentation shows is what its code does on the real model.

The README's runs as it is, and prints what it says. The tutorial's runs on a few prompts; `make docs`
runs it as it is.
"""

import re
from pathlib import Path

import pytest

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


NUMBER = re.compile(r"[-−]?\d+\.\d+")


def told(text):
    """The words and the numbers of an output; how it is laid out does not count."""
    words = NUMBER.sub("#", text).split()
    return words, [float(number.replace("−", "-")) for number in NUMBER.findall(text)]


def test_the_readme_prints_what_it_says(smollm2, monkeypatch, tmp_path, capsys):
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    shown = re.findall(
        r"^```python\n(.*?)^```$\n+^```\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL
    )
    assert len(shown) >= 4
    monkeypatch.setattr(cg, "load_model", lambda *_: smollm2)
    monkeypatch.chdir(tmp_path)
    names = {}
    for code, expected in shown:
        exec(compile(code, "README.md", "exec"), names)
        printed = capsys.readouterr().out
        # Requests have dots too: 23.3 is a number here, and must be the same.
        assert told(printed)[0] == told(expected)[0]
        assert told(printed)[1] == pytest.approx(told(expected)[1], abs=0.011)
    assert (tmp_path / "circuit.svg").stat().st_size > 1000
