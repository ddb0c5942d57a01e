"""The examples run on the real model, on a few prompts each; `make docs` runs them as they are."""

import ast
import functools
import json
import re
import runpy
from pathlib import Path

import pytest

import circuitgraph as cg
from circuitgraph.tasks import ioi

FEW = 4
FEWER = {"ioi_circuit": 2, "arena_path_patching": 2}
"""Of an example with several large sweeps."""
ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
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
    monkeypatch.setenv("PROMPTS", str(FEWER.get(path.stem, FEW)))
    monkeypatch.chdir(tmp_path)
    names = runpy.run_path(str(path))
    assert capsys.readouterr().out
    if path.stem in EDGES:
        assert EDGES[path.stem] in names["circuit"]
        assert set(FILES[path.stem]) <= {file.name for file in tmp_path.iterdir()}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_holds_the_code_of_its_source_after_a_cell_that_installs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    first, *code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert "%pip install" in first
    assert not any(cell.get("outputs") for cell in cells)
    page, script = (ROOT / "docs" / f"{path.stem}.md", ROOT / "examples" / f"{path.stem}.py")
    if script.exists():
        parts = re.split(r"^# %%(.*)\n", script.read_text(encoding="utf-8"), flags=re.MULTILINE)
        kinds, bodies = parts[1::2], parts[2::2]
        source = [
            body.strip("\n")
            for kind, body in zip(kinds, bodies, strict=True)
            if "markdown" not in kind
        ]
    else:
        text = page.read_text(encoding="utf-8")
        source = re.findall(r"^```\{code-cell\} python\n(.*?)\n```", text, re.DOTALL | re.MULTILINE)
    assert code == source, "python docs/notebooks.py writes them anew"
