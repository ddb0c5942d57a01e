"""Dependencies: what is declared is imported, and what is imported is declared."""

from tests.declared import declared, found, imported, problems


def test_both_ways_hold_here() -> None:
    assert found() == []


def test_imports_are_found_wherever_they_stand() -> None:
    source = (
        "import torch.nn as nn\nfrom yaml import load\nimport os\nfrom circuitgraph import Head\n"
        "def late():\n    from numpy.linalg import norm\n"
    )
    assert imported([source]) == {"torch", "yaml", "numpy"}


def test_what_is_declared() -> None:
    table = {
        "dependencies": ["torch>=2", "huggingface_hub[x]; python_version>'3'"],
        "optional-dependencies": {"dev": ["pytest"], "docs": ["sphinx"], "many": ["ray>=2"]},
    }
    assert declared({"project": table}) == {"torch", "huggingface-hub", "ray"}


def test_each_fault_is_a_line() -> None:
    assert problems({"numpy", "einops"}, {"numpy", "torch"}) == [
        "torch is imported, and torch is not declared",
        "einops is declared and never imported",
    ]
