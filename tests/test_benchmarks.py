"""Every benchmark runs to its end, on a tiny model: what it measures there means nothing.

What it compares does: each prints how far the two sides' numbers are apart.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.acdc
import benchmarks.circuits
import benchmarks.direct_path
import benchmarks.edges
import benchmarks.growth
import benchmarks.memory
import benchmarks.precision
import benchmarks.speed


def tiny(_: Any = None, __: Any = None, dtype: torch.dtype = torch.float32) -> Any:
    """Return a bridge of GPT-2 small's layers and heads, two dimensions each."""
    from transformer_lens.model_bridge.sources import build_bridge_from_module
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(n_embd=24, vocab_size=300, n_positions=96, attn_implementation="eager")
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if weight.ndim == 2 and "h." in name:
            weight.mul_(8.0)
    return build_bridge_from_module(model, "GPT2LMHeadModel", hf_config=model.config)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a benchmark on a tiny model, with arguments; return what it prints."""

    def run(module: Any, *args: str) -> str:
        name = "model_of" if module is benchmarks.growth else "build"
        monkeypatch.setattr(module, name, tiny, raising=True)
        monkeypatch.setattr(sys, "argv", [module.__name__, *args])
        module.main()
        return capsys.readouterr().out

    return run


def test_speed_compares_both_sides(run: Any, tmp_path: Path) -> None:
    file, works = tmp_path / "rows.json", ("gpt2-mlps", "gpt2-single", "gpt2-queries")
    asked = ("--device=cpu", "--sample=2", "--prompts=2", "--positions=8", "--repeat=1")
    printed = run(benchmarks.speed, *works, *asked, f"--json={file}")
    rows = json.loads(file.read_text())
    assert len(rows) == len(printed.splitlines()) - 1 == len(works)
    for row in rows:
        assert row["largest_difference"] < 1e-4 * row["effect_scale"]
        whole = row["recordings_s"] + row["sweep_s"]
        assert row["ratio"] == pytest.approx(row["baseline_s"] / whole)
        assert row["ratio_without_recordings"] == pytest.approx(row["baseline_s"] / row["sweep_s"])


def test_the_direct_path_gives_transformer_lens_numbers(run: Any) -> None:
    printed = run(benchmarks.direct_path, "--device=cpu", "--prompts=3")
    difference, edges = re.search(r"difference (\S+) over (\d+) edges", printed).groups()  # type: ignore[union-attr]
    assert (float(difference) < 1e-4, int(edges)) == (True, 6 * 12)


def test_edges_agree_with_the_reference_engine(run: Any) -> None:
    printed = run(benchmarks.edges, "--device=cpu", "--prompts=2", "--ports=3.1.q")
    assert float(re.search(r"largest difference (\S+)", printed)[1]) < 1e-4  # type: ignore[index]


def test_precision_reads_both_engines(run: Any) -> None:
    lines = run(benchmarks.precision, "--device=cpu", "--prompts=2").splitlines()[1:]
    assert len(lines) == 4
    for line in lines:
        fast, reference = re.search(r"fast (\S+)  reference (\S+)$", line).groups()  # type: ignore[union-attr]
        assert 0 < float(fast) < 10
        assert 0 < float(reference) < 10


def test_growth_prints_and_draws_every_series(run: Any, tmp_path: Path) -> None:
    plot = tmp_path / "growth.svg"
    printed = run(benchmarks.growth, "--device=cpu", f"--plot={plot}")
    assert len(printed.splitlines()) == 16
    assert plot.read_text().count("<polyline") == 8


def test_memory_says_that_it_needs_an_accelerator(
    run: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(SystemExit):
        run(benchmarks.memory)
    assert "needs a CUDA device" in capsys.readouterr().err


def test_circuits_are_what_they_must_be_at_both_ends(run: Any) -> None:
    asked = ("--prompts=2", "--positions=6", "--edges", "60", "--rows=2", "--repeat=1")
    printed = run(benchmarks.circuits, *asked)
    apart = [float(found) for found in re.findall(r"from that run (\S+)", printed)]
    assert len(apart) == 2
    assert max(apart) < 1e-4
    assert printed.count("bare passes\n") == 6


def test_acdc_is_the_plain_loop(run: Any) -> None:
    asked = ("--prompts=2", "--positions=6", "--threshold=0.2", "--start=40", "--plain=6")
    assert "plain loop" in run(benchmarks.acdc, *asked)
