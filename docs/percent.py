"""Reads a percent script (`# %%` cells) as a notebook, so that the examples are pages too.

The examples stay plain Python files that tests run and readers download; the documentation shows
them cell by cell with their real output.
"""

import re

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

_CELL = re.compile(r"^# %%[ \t]*(\[markdown\])?.*$", re.MULTILINE)


def read(text: str) -> NotebookNode:
    """The notebook of a percent script.

    A `# %% [markdown]` cell holds comment lines, the page's text. Whatever stands before the first
    cell is a cell of its own: Markdown if it is the module's docstring, else code.
    """
    first = _CELL.search(text)
    head = text[: first.start()] if first else text
    cells = [_head_cell(head)] if head.strip() else []
    marks = list(_CELL.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=False):
        body = text[mark.end() : end].strip("\n")
        if mark.group(1):
            cells.append(new_markdown_cell(re.sub(r"^# ?", "", body, flags=re.MULTILINE)))
        elif body:
            cells.append(new_code_cell(body))
    metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    return new_notebook(cells=cells, metadata=metadata)


def _head_cell(head: str) -> NotebookNode:
    docstring = re.fullmatch(r'\s*"""(.*)"""\s*', head, flags=re.DOTALL)
    return new_markdown_cell(docstring.group(1)) if docstring else new_code_cell(head.strip("\n"))
