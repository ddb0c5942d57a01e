"""Texts that are compared letter for letter, and how they are written anew.

    CIRCUITGRAPH_GOLDEN=write python -m pytest tests/test_plan.py tests/test_public_api.py

The table in docs/architectures.md is written in the same way, by tests/families.
Then read the difference: each changed line is a change that users see.
"""

import os
from pathlib import Path

__all__ = ["WRITE", "check_golden", "writing"]

FOLDER = Path(__file__).parent
WRITE = "CIRCUITGRAPH_GOLDEN"


def writing() -> bool:
    """Whether texts are to be written anew rather than compared."""
    return os.environ.get(WRITE) == "write"


def check_golden(name: str, text: str) -> None:
    """Compare a text with the file of that name, or write the file where that is asked for."""
    path = FOLDER / name
    text = text.rstrip("\n") + "\n"
    if writing():
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{name} is missing: run again with {WRITE}=write"
    expected = path.read_text(encoding="utf-8")
    assert text == expected, f"{name} has changed: if that is meant, run again with {WRITE}=write"
