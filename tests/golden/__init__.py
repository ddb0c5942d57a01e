"""Texts that are compared letter for letter, and how they are written anew.

    CIRCUITGRAPH_GOLDEN=write python -m pytest tests/test_plan.py tests/test_public_api.py

Then read the difference: each changed line is a change that users see.
"""

import os
from pathlib import Path

__all__ = ["check_golden"]

FOLDER = Path(__file__).parent
WRITE = "CIRCUITGRAPH_GOLDEN"


def check_golden(name: str, text: str) -> None:
    """Compare a text with the file of that name, or write the file where that is asked for."""
    path = FOLDER / name
    text = text.rstrip("\n") + "\n"
    if os.environ.get(WRITE) == "write":
        path.write_text(text, encoding="utf-8")
    assert path.exists(), f"{name} is missing: run again with {WRITE}=write"
    expected = path.read_text(encoding="utf-8")
    assert text == expected, f"{name} has changed: if that is meant, run again with {WRITE}=write"
