"""``circuitgraph discover`` and ``evaluate``: what they leave behind is what the library gives."""

from types import SimpleNamespace

import pandas as pd
import pytest

import circuitgraph as cg
from circuitgraph.circuit import Circuit
from circuitgraph.cli.setting import Setting
from circuitgraph.evaluation import Curve, Evaluation, load
from tests.models import tiny_gpt2
from tests.test_cli import names_in, run, said

ASKED = SimpleNamespace(
    question="Which edges answer?",
    clean_text=["one", "two", "three", "four"],
    corrupt_text=["uno", "due", "tre", "quattro"],
    answers=[("a", "b")] * 4,
)


def experiment(seed=1):
    tiny = tiny_gpt2()
    clean, corrupt = tiny.tokens(4, 5, seed=seed), tiny.tokens(4, 5, seed=seed + 1)
    return cg.Experiment(tiny.bridge, clean, corrupt, cg.LogitDiff([3] * 4, [7] * 4))


@pytest.fixture(autouse=True)
def _tiny(monkeypatch):
    """Every command runs a tiny model; the seed decides its prompts."""
    monkeypatch.setattr(Setting, "make", lambda self: (experiment(self.seed), ASKED))


def test_scores_are_cut_and_judged(tmp_path):
    out = tmp_path / "found"
    words = ("--model", "mine", "--by", "exact", "--edges", 40, "--baselines", 2, "--out", out)
    printed = said("discover", *words)
    circuit = Circuit.load(out / "circuit.json")
    exp = experiment()
    scored = exp.patch("node -> port => logits", "single-pass")
    assert circuit.members == cg.discover.cut(scored, 40, "greedy").members
    found = load(out / "evaluation.json")
    assert isinstance(found, Evaluation)
    assert found.faithfulness == pytest.approx(exp.evaluate(circuit, baselines=0).faithfulness)
    assert found.found_here is True
    assert "found on these prompts" in printed
    curve = load(out / "curve.json")
    assert isinstance(curve, Curve)
    assert curve.cmd == pytest.approx(exp.curve(scored, how="greedy", sign="absolute").cmd)
    assert names_in(out) >= {
        *("report.html", "circuit.svg", "curve.svg", "evaluation.csv", "effects.json", "run.json"),
    }
    page = (out / "report.html").read_text()
    assert "Is the circuit right?" in page
    assert "<svg" in page
    table = pd.read_csv(out / "evaluation.csv")
    assert table["value"][0] == pytest.approx(found.faithfulness)


def test_a_search_keeps_its_steps_and_judging_goes_on_with_other_prompts(tmp_path):
    out = tmp_path / "found"
    words = ("--model", "mine", "--by", "eap-ig", "--edges", 60, "--acdc", 0.002)
    printed = said("discover", *words, "--baselines", 0, "--out", out)
    assert "Search by acdc" in printed
    steps = pd.read_csv(out / "steps.csv")
    assert steps.columns.tolist() == ["edge", "before", "after", "kept"]
    circuit = Circuit.load(out / "circuit.json")
    assert len(circuit) <= 60
    judged = tmp_path / "judged"
    words = (out / "circuit.json", "--model", "mine", "--seed", 7, "--baselines", 2)
    printed = said("evaluate", *words, "--tests", "--out", judged)
    assert "fresh prompts" in printed
    assert "Shi et al. 2024" in printed
    found = load(judged / "evaluation.json")
    alone = experiment(7).evaluate(circuit, baselines=0)
    assert found.faithfulness == pytest.approx(alone.faithfulness)
    assert found.found_here is False


def test_backward_from_the_logits(tmp_path):
    printed = said("discover", "--model", "mine", "--backward", 0.3, "--baselines", 0)
    assert "Search by backward" in printed


def test_files_of_the_benchmark_are_judged_too(tmp_path):
    exp = experiment()
    scored = exp.patch("node -> port => logits", "single-pass")
    circuit = cg.discover.cut(scored, 30)
    circuit.to_mib(tmp_path / "mib.json")
    printed = said("evaluate", tmp_path / "mib.json", "--model", "mine", "--baselines", 0)
    assert "30 edges" in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("discover", "--acdc", 0.1, "--backward", 0.1), "give --acdc or --backward, not both"),
        (("discover", "--by", "exact", "--rules", "gim"), "--rules is for estimates"),
        (("evaluate", "nowhere.json"), "nowhere.json"),
    ],
)
def test_what_is_wrong_is_said(words, message):
    assert message in said(*words, "--model", "mine", code=1)


def test_help_lists_both():
    shown = run("--help")
    for command in ("discover", "evaluate"):
        assert f" {command} " in shown
        assert "Examples" in run(command, "--help")
