"""``circuitgraph sweep`` on a model in a folder: begun, asked, ended, gone on with."""

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.cli.sweep import EXAMPLES
from circuitgraph.sweeps.store import open_sweep
from tests.test_cli import run, said

REQUEST = "node -> port => logits"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2 with a tokenizer in ``model``, pairs of prompts in ``pairs.jsonl``."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("files")
    words = {"<unk>": 0, **{f"w{number}": number for number in range(1, 23)}}
    inner = Tokenizer(WordLevel(words, unk_token="<unk>"))
    inner.pre_tokenizer = Whitespace()
    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=23, n_positions=16)
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(path / "model")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>")
    tokenizer.save_pretrained(path / "model")
    pairs = (
        {"clean": f"w1 w2 w{n}", "corrupt": f"w3 w2 w{n + 1}", "answer": "w5", "wrong": "w6"}
        for n in (7, 8, 9)
    )
    (path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    return path


def command(files: Path, *more: Any) -> list[Any]:
    """A sweep of every edge."""
    setting = ["--model", files / "model", "--task", files / "pairs.jsonl"]
    return ["sweep", REQUEST, *setting, "--variant", "single-pass", *more]


def test_the_same_command_goes_on(files: Path, tmp_path: Path) -> None:
    asked = command(files, "--into", tmp_path)
    assert "Effects of 'node -> port => logits'" in said(*asked)
    model = cg.load_model(files / "model")
    task = cg.tasks.load(files / "pairs.jsonl", model.tokenizer)
    whole = cg.Experiment(model, task, progress=False).patch(REQUEST, "single-pass")
    kept = cg.load_sweep(tmp_path)
    np.testing.assert_allclose(kept.data["patched"], whole.data["patched"], atol=1e-5)
    status = f"1 of 1 part of '{REQUEST}' are finished; nobody works on it"
    assert said("sweep", "--status", tmp_path) == status
    (part,) = map(open_sweep(tmp_path).path, open_sweep(tmp_path).cut.parts)
    written = part.stat().st_mtime_ns
    said(*asked)
    assert part.stat().st_mtime_ns == written
    part.unlink()
    assert said("sweep", "--status", tmp_path).startswith("0 of 1 part")
    said(*asked)
    assert cg.load_sweep(tmp_path) == kept
    other = said(*asked, "--mode", "replace", code=1)
    assert "holds another sweep" in other
    assert "mode was 'set' and is 'replace'" in other


def test_a_dry_run_leaves_nothing_behind(files: Path, tmp_path: Path) -> None:
    folder = tmp_path / "edges"
    shown = said(*command(files, "--into", folder, "--dry-run"))
    graph = cg.ModelGraph(cg.ModelShape(2, 2))
    assert f"{len(list(graph.edges()))} cells in 1 part: " in shown
    for word in ("forward passes", "on one worker", "MB on disk"):
        assert word in shown
    assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["sweep"], "write what to patch", 2),
        (["sweep", "head -> logits"], "name the folder for the parts", 2),
        (
            ["sweep", "head -> logits", "--into", "x", "--workers", "0"],
            "Invalid value for '--workers'",
            2,
        ),
        (["sweep", "head -> ", "--into", "x"], "cannot read the request", 1),
        (["sweep", "99.9 -> logits", "--into", "x"], "no node '99.9'", 1),
        (["sweep", "head -> logits", "--into", "x", "--task", "sum"], "no task 'sum'", 1),
        (["sweep", "--status", "nowhere"], "no file", 1),
    ],
)
def test_what_is_wrong_shows_before_a_model_is_loaded(
    words: list[str], message: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cg, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    assert message in said(*words, code=code)
    assert not list(tmp_path.iterdir())


def test_its_examples_can_be_read() -> None:
    """Every option of the examples is one of the command's."""
    shown = run("sweep", "--help")
    for line in EXAMPLES:
        for word in shlex.split(line)[2:]:
            assert not word.startswith("--") or word in shown
