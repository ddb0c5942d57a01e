"""Outside ``lens`` nothing knows TransformerLens; and the check that says so can fail."""

from pathlib import Path

import pytest

from tests.seam import problems


def test_nothing_outside_lens_knows_a_bridge() -> None:
    assert list(problems()) == []


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("def width(model): return model.cfg.d_model", ".cfg is a bridge's"),
        ("width = getattr(model, 'cfg', None)", "'cfg' is a bridge's"),
        ("name = f'blocks.{layer}.attn.hook_z'", "names a bridge's hook"),
        ("inner = block.original_component", ".original_component is a bridge's"),
        (
            "def load():\n    from transformer_lens import HookedRootModule",
            "imports TransformerLens",
        ),
        ("import transformer_lens.utilities", "imports TransformerLens"),
    ],
)
def test_each_way_of_knowing_is_found(tmp_path: Path, code: str, what: str) -> None:
    for room, expected in (("engines", 1), ("lens", 0)):
        folder = tmp_path / "package" / room
        folder.mkdir(parents=True)
        (folder / "one.py").write_text(code)
        found = [line for line in problems(tmp_path / "package") if f"/{room}/" in line]
        assert len(found) == expected
        assert all(what in line for line in found)


def test_words_for_people_are_free(tmp_path: Path) -> None:
    (tmp_path / "engines").mkdir()
    (tmp_path / "engines" / "one.py").write_text('"""Hooks such as blocks.0.hook_in."""\n')
    assert list(problems(tmp_path)) == []
