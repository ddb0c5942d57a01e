"""The command line: what it prints and leaves behind, and what it says when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import circuitgraph as cg
from circuitgraph.cli import app
from circuitgraph.cli.findings import feeding, opposing, writing
from circuitgraph.cli.keeping import Folder
from circuitgraph.cli.setting import Setting, read_variant
from circuitgraph.effects import Comparison, Effects
from circuitgraph.errors import CircuitGraphError

COMMANDS = ("demo", "patch", "sweep", "compare", "plan", "draw", "models", "tasks")


def run(*words, code=0):
    """Run a command and return what it printed, lines joined as a person reads them."""
    ran = CliRunner().invoke(app, list(map(str, words)), env={"COLUMNS": "200", "NO_COLOR": "1"})
    assert ran.exit_code == code, ran.output
    return ran.output


def said(*words, code=0):
    """The same on one line, for sentences that a narrow terminal would wrap."""
    return " ".join(run(*words, code=code).split())


def names_in(folder):
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def no_model(monkeypatch):
    """Fail the test if a model is loaded."""

    def refuse(*_, **__):
        raise AssertionError("a model was loaded")

    monkeypatch.setitem(vars(cg), "load_model", refuse)  # without importing the true one


@pytest.fixture
def loaded(monkeypatch, smollm2):
    """Hand every command the model that all tests share."""
    monkeypatch.setattr(cg, "load_model", lambda *_, **__: smollm2)


@pytest.fixture
def effects():
    """Effects of three heads on GPT-2 small's shape."""
    return Effects.from_arrays(
        [[[1.0, 1.1, 0.9, 1.0]], [[3.9, 4.0, 4.1, 4.0]], [[4.8, 4.9, 5.1, 5.0]]],
        clean=[4.0] * 4,
        corrupt=[0.0] * 4,
        sweep={"layer": [8, 9, 10], "head": [6]},
        request="head -> logits",
        variant="mlps",
        shape=json.dumps({"n_layers": 12, "n_heads": 12}),
    )


class TestHelp:
    def test_lists_the_commands(self):
        shown = said("--help")
        for command in COMMANDS:
            assert f" {command} " in shown

    def test_is_shown_where_no_command_is_given(self):
        assert "Usage: circuitgraph" in run(code=2)

    @pytest.mark.parametrize("command", COMMANDS)
    def test_of_each_has_examples(self, command):
        shown = run(command, "--help")
        assert f"Usage: circuitgraph {command}" in shown
        assert f"circuitgraph {command}" in shown.split("Examples")[1]
        assert run(command, "-h") == shown

    def test_examples_of_plans_can_be_run(self, no_model, tmp_path, monkeypatch):
        import shlex

        from circuitgraph.cli.plan import EXAMPLES

        monkeypatch.chdir(tmp_path)
        for line in EXAMPLES:
            run(*shlex.split(line)[1:])
        assert (tmp_path / "plan.svg").read_text().startswith("<svg")

    def test_needs_neither_torch_nor_pandas(self):
        script = (
            "import sys\n"
            "from circuitgraph.cli import app\n"
            "try: app(['patch', '--help'])\n"
            "except SystemExit: pass\n"
            "heavy = {'torch', 'transformers', 'transformer_lens', 'pandas', 'networkx'}\n"
            "print(sorted(heavy & set(sys.modules)))"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script],
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.splitlines()[-1] == "[]"

    def test_version(self):
        assert run("--version") == f"circuitgraph {cg.__version__}\n"


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (
                ["plan", "9.12 -> logits", "--shape", "12x12"],
                "no node '9.12' in this graph (12 layers of 12 heads): head must be 0..11",
            ),
            (["plan", "9.9 -> ", "--shape", "12x12"], "cannot read the request '9.9 -> '"),
            (
                ["plan", "head -> logits", "--variant", "none"],
                "no variant 'none': write mlps, single-pass or 'through {mlp0, 4.11}'",
            ),
            (["patch", "9.99 -> logits"], "no node '9.99' in this graph (30 layers of 9 heads)"),
            (["compare", "29.1 -> 23.3.q => logits"], "29.1 does not come before 23.3.q"),
            (["compare", "head -> logits", "--variant", "mlps"], "leaves nothing to compare"),
            (["patch", "head -> logits", "--task", "sum"], "no task 'sum': there is ioi"),
            (["demo", "--task", "my.csv"], "no file 'my.csv' with pairs of prompts"),
            (["demo", "--prompts", "0"], "--prompts must be 1 or more, got 0"),
            (["draw", "nowhere.json"], "no file 'nowhere.json'"),
            (["draw", __file__], "wanted is a JSON file that Effects.save or Circuit.save wrote"),
        ],
    )
    def test_are_one_message_at_once(self, no_model, tmp_path, monkeypatch, words, message):
        monkeypatch.chdir(tmp_path)
        shown = said(*words, code=1)
        assert message in shown
        assert "Traceback" not in shown

    @pytest.mark.parametrize("before", [True, False])
    def test_come_with_a_traceback_on_request(self, before):
        words = ["plan", "9.12 -> logits", "--shape", "12x12"]
        words = ["--traceback", *words] if before else [*words, "--traceback"]
        ran = CliRunner().invoke(app, words)
        assert isinstance(ran.exception, CircuitGraphError)

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["plan", "head -> logits", "--shape", "12y12"], "'12y12' is no shape"),
            (["plan", "head -> logits", "--shape", "2x2", "--model", "gpt2"], "not both"),
            (["plan"], "Missing argument"),
            (["patch", "head -> logits", "--mode", "sum"], "'sum' is not one of"),
            (["paint"], "No such command 'paint'"),
        ],
    )
    def test_of_usage_exit_with_two(self, no_model, words, message):
        assert message in said(*words, code=2)

    def test_a_folder_that_cannot_be_written(self, no_model, tmp_path):
        (tmp_path / "file").touch()
        assert "File exists" in said("demo", "--out", tmp_path / "file", code=1)

    def test_a_folder_that_cannot_be_moved(self, no_model, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert "it is the current folder" in said("demo", "--out", ".", code=1)

    def test_a_device_that_is_not_there(self):
        shown = said("patch", "head -> logits", "--device", "nowhere", code=1)
        assert "no device 'nowhere' here: " in shown

    def test_ctrl_c_is_a_short_line(self, monkeypatch):
        def interrupt(*_):
            raise KeyboardInterrupt

        monkeypatch.setattr(Setting, "make", interrupt)
        assert run("patch", "head -> logits", code=130) == "Stopped.\n"


class TestVariants:
    @pytest.mark.parametrize("text", ["mlps", "single-pass", "through {mlp0, 4.11}", "through {}"])
    def test_are_read_as_they_are_written(self, text):
        assert str(read_variant(text)) == text

    def test_not_through_the_logits(self):
        with pytest.raises(CircuitGraphError, match="a path can pass through heads and MLPs"):
            read_variant("through logits")


class TestPlan:
    def test_is_what_print_shows(self, no_model):
        graph = cg.ModelGraph(cg.ModelShape(12, 12))
        plan = cg.compile(graph, "5.5 -> 8.6.v => logits", "single-pass")
        shown = run("plan", "5.5 -> 8.6.v => logits", "--shape", "12x12", "--variant=single-pass")
        assert shown == f"{plan}\n"

    @pytest.mark.parametrize("shape", [["--shape", "30x9:3"], ["--model", "smollm2-135m"], []])
    def test_of_a_shape_or_a_known_model(self, no_model, shape):
        graph = cg.ModelGraph(cg.ModelShape(30, 9, 3))
        assert run("plan", "head -> logits", *shape) == f"{cg.compile(graph, 'head -> logits')}\n"

    def test_with_its_schedule_and_picture(self, no_model, tmp_path):
        svg = tmp_path / "plan.svg"
        shown = run("plan", "head -> logits", "--shape", "2x2", "--schedule", "--svg", svg)
        plan = cg.compile(cg.ModelGraph(cg.ModelShape(2, 2)), "head -> logits")
        assert f"{plan}\n\n{cg.schedule(plan)}\n" in shown
        assert svg.read_text().startswith("<svg")


class TestDraw:
    def test_effects(self, effects, tmp_path):
        saved = effects.save(tmp_path / "effects.json")
        shown = run("draw", saved, "--threshold", "0.1", "--labels", "--title", "Three heads")
        assert "2 edges" in shown
        assert f"Drawn: {tmp_path / 'effects.svg'}" in shown
        picture = (tmp_path / "effects.svg").read_text()
        assert ">8.6<" in picture
        assert ">10.6<" in picture
        assert ">9.6<" not in picture
        assert "Three heads" in picture

    @pytest.mark.parametrize("suffix", [".svg", ".png", ".pdf", ".dot"])
    def test_a_circuit(self, effects, tmp_path, suffix):
        saved = tmp_path / "circuit.json"
        cg.Circuit.from_effects(effects).save(saved)
        out = tmp_path / f"picture{suffix}"
        assert "1 edge" in run("draw", saved, "--top", 1, "-o", out)
        assert out.stat().st_size > 500

    def test_another_suffix(self, effects, tmp_path):
        saved = effects.save(tmp_path / "effects.json")
        assert "the name must end in .svg" in said("draw", saved, "-o", "picture.jpeg", code=1)

    def test_heatmaps(self, effects, tmp_path):
        saved = effects.save(tmp_path / "effects.json")
        shown = run("draw", saved, "--heatmap", "--title", "All heads")
        assert f"Drawn: {tmp_path / 'effects.svg'}" in shown
        assert "All heads" in (tmp_path / "effects.svg").read_text(encoding="utf-8")
        both = Comparison({"mlps": effects, "again": effects}).save(tmp_path / "both.json")
        run("draw", both, "--heatmap", "-o", tmp_path / "both.html")
        assert "again" in (tmp_path / "both.html").read_text(encoding="utf-8")

    def test_what_cannot_be_a_heatmap_or_a_circuit(self, effects, tmp_path):
        saved = effects.save(tmp_path / "effects.json")
        assert "leave out --top" in said("draw", saved, "--heatmap", "--top", 3, code=1)
        both = Comparison({"mlps": effects, "again": effects}).save(tmp_path / "both.json")
        assert "draw it with --heatmap" in said("draw", both, code=1)
        circuit = tmp_path / "circuit.json"
        cg.Circuit.from_effects(effects).save(circuit)
        assert "it holds a circuit, not effects" in said("draw", circuit, "--heatmap", code=1)


def test_models_lists_what_is_here():
    shown = run("models")
    assert "smollm2-135m" in shown
    assert "gpt2" in shown
    for shape in ("30x9:3", "12x12", "32x32:8"):
        assert shape in shown


class TestModelsCheck:
    @pytest.fixture
    def tiny(self, monkeypatch):
        """Hand the command a tiny model for any name."""
        from tests.models import tiny_llama

        monkeypatch.setattr(cg, "load_model", lambda *_, **__: tiny_llama().bridge)

    def test_shows_what_came_of_each_check(self, tiny):
        words = ["--only", "queries", "--only", "8 replace, all edges", "--only", "untouched"]
        shown = run("models", "--check", "mine", *words)
        assert "Checks of mine" in shown
        for name in ("queries", "8 replace, all edges", "untouched"):
            (row,) = [line for line in shown.splitlines() if line.startswith(f"{name} ")]
            assert row.rstrip().endswith("passed")
        assert "3 passed." in shown
        assert "to logits, mlps" not in shown

    def test_exits_with_one_where_a_check_fails(self, tiny, monkeypatch):
        from circuitgraph.engines.fast import FastEngine

        true = FastEngine.run_schedule
        monkeypatch.setattr(
            FastEngine, "run_schedule", lambda self, schedule: true(self, schedule) + 1.0
        )
        shown = said("models", "--check", "mine", "--only", "queries", code=1)
        assert "queries: " in shown
        assert "differs by" in shown
        assert "1 failed." in shown

    def test_exits_with_one_where_the_model_is_refused(self, monkeypatch):
        from tests.models import tiny_gpt2

        bridge = tiny_gpt2().new_bridge().train()
        monkeypatch.setattr(cg, "load_model", lambda *_, **__: bridge)
        shown = said("models", "--check", "mine", code=1)
        assert "model, refused: " in shown
        assert "call model.eval()" in shown

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--check", "mine", "--only", "querys"], "did you mean 'queries'?"),
            (["--check", "mine", "--prompts", 0], "--prompts must be 1 or more, got 0"),
            (["--check", "mine", "--device", "nowhere"], "no device 'nowhere' here: "),
        ],
    )
    def test_errors_come_before_the_model_is_loaded(self, no_model, words, message):
        assert message in said("models", *words, code=1)

    def test_only_needs_a_model(self, no_model):
        assert "name the model with --check" in said("models", "--only", "queries", code=2)

    def test_a_folder_that_is_not_there(self):
        assert "there is no folder" in said("models", "--check", "./nowhere", code=1)


class TestFindings:
    def test_heads_that_matter_by_size_where_the_interval_leaves_out_zero(self, effects):
        assert writing(effects) == ("8.6",)
        assert opposing(effects) == ("10.6",)
        assert feeding(effects) == ("8.6", "10.6")

    def test_there_is_always_one_to_go_on_with(self):
        weak = Effects.from_arrays(
            [[3.99, 4.01]], [4.0, 4.0], [0.0, 0.0], sweep={"sender": ["9.6"]}
        )
        assert writing(weak) == feeding(weak) == ("9.6",)
        assert opposing(weak) == ()

    def test_what_is_within_chance_feeds_nothing(self):
        """As the table above the circuit says of it."""
        sure, chance = [2.0, 2.1, 1.9, 2.0, 2.1, 1.9], [3.9, 3.9, 3.9, 3.9, 3.9, 4.04]
        values = np.array([sure, chance] + [[4.0] * 6] * 60)
        names = ["8.6", "10.6", *(f"{layer}.{head}" for layer in range(6) for head in range(10))]
        effects = Effects.from_arrays(values, [4.0] * 6, [0.0] * 6, sweep={"sender": names})
        assert feeding(effects) == ("8.6",)


def test_a_folder_of_results_takes_the_place_of_an_older_one(effects, tmp_path, capsys):
    first = Folder(tmp_path / "results")
    first.keep_effects(effects)
    first.finish()
    assert names_in(tmp_path / "results") == {
        "effects.json", "effects.csv", "effects.html", "run.json"
    }  # fmt: skip
    (tmp_path / "results" / "notes.txt").write_text("mine")
    second = Folder(tmp_path / "results")
    second.keep_text("a plan", "plan.txt", "the plan")
    assert "effects.csv" in names_in(tmp_path / "results")
    second.finish()
    assert names_in(tmp_path / "results") == {"plan.txt", "run.json", "notes.txt"}
    assert names_in(tmp_path) == {"results"}
    assert "which run these files are from" in capsys.readouterr().out


class TestOnSmolLM2:
    def test_demo(self, loaded, tmp_path):
        shown = run("demo", "--out", tmp_path / "demo", "--prompts", 3, "--seed", 1)
        for text in ("MLPs recomputed", "23.3", "of the logit difference", "Logit difference:"):
            assert text in shown
        folder = tmp_path / "demo"
        names = names_in(folder)
        assert names >= {
            "report.html",
            "head_to_logits.html",
            "head_to_logits.csv",
            "circuit.svg",
            "plan.svg",
        }
        listed = {line.split()[0] for line in shown.split(f"In {folder}")[1].splitlines() if line}
        assert names <= listed
        both = Comparison.load(folder / "head_to_logits.json")
        assert Effects.load(folder / "head_to_logits.mlps.json") == both.effects["mlps"]
        assert both.effects["mlps"].normalized().sel(layer=23, head=3) < -0.2
        assert len(pd.read_csv(folder / "head_to_logits.csv")) == 270
        circuit = cg.Circuit.load(folder / "circuit.json")
        assert "23.3 -> logits" in circuit
        assert any(edge.receiver.name == "q" for edge in circuit)
        for picture in ("circuit.svg", "plan.svg"):
            assert (folder / picture).read_text().startswith("<svg")
        report = (folder / "report.html").read_text()
        assert "circuitgraph demo --model smollm2-135m --prompts 3 --seed 1" in report

    def test_patch(self, loaded, tmp_path):
        request = "[23.3, 5.5] -> logits"
        shown = run("patch", request, "-n", 2, "--top", 1, "--out", tmp_path / "a" / "b")
        assert f"Effects of '{request}'" in shown
        assert "23.3" in shown.split("interval")[1]
        folder = tmp_path / "a" / "b"
        effects = Effects.load(folder / "effects.json")
        assert effects.cells() == ("23.3", "5.5")
        assert list(pd.read_csv(folder / "effects.csv")["name"].astype(str)) == ["23.3", "5.5"]
        assert "<svg" in (folder / "effects.html").read_text()
        report = (folder / "report.html").read_text()
        assert '<section id="circuit"' in report
        assert "<td>logits</td>" in report  # an edge of it

    def test_a_report_says_where_edges_were_patched_together(self, loaded, tmp_path):
        for request, said in (
            ("[23.3, 5.5] -> {24.4, 29.1}.q@end => logits", True),
            ("[23.3, 5.5] -> [24.4, 29.1].q@end => logits", False),
        ):
            run("patch", request, "-n", 2, "--out", tmp_path)
            page = (tmp_path / "report.html").read_text()
            assert '<section id="circuit"' in page
            assert ("each carry the effect of all of them" in page) is said

    def test_a_report_of_no_single_edges_has_no_circuit(self, loaded, tmp_path):
        run("patch", "23.3 => logits", "-n", 2, "--out", tmp_path)
        assert '<section id="circuit"' not in (tmp_path / "report.html").read_text()

    def test_patch_a_single_request_by_the_reference(self, loaded):
        shown = run("patch", "23.3 -> logits", "-n", 2, "--engine", "reference")
        assert "engine reference" in shown

    def test_compare(self, loaded, tmp_path):
        shown = run("compare", "[23.3, 24.4, 5.5] -> logits", "-n", 3, "--out", tmp_path)
        assert "single-pass" in shown
        assert "Effects that stand out from zero" in shown
        both = Comparison.load(tmp_path / "comparison.json")
        assert both.names == ("mlps", "single-pass")
        assert '<section id="circuit"' in (tmp_path / "report.html").read_text()

    def test_compare_as_asked(self, loaded, tmp_path):
        asked = ["--variant", "single-pass", "--source", "corrupt", "--source", "zero"]
        shown = run("compare", "[23.3, 5.5] -> logits", "-n", 3, "--out", tmp_path, *asked)
        assert "corrupt" in shown
        both = Comparison.load(tmp_path / "comparison.json")
        assert both.names == ("corrupt", "zero")
        assert {one.attrs["variant"] for one in both.effects.values()} == {"single-pass"}
        page = (tmp_path / "report.html").read_text()
        assert "--variant single-pass --source corrupt --source zero --out" in page
        assert "Sources compared" in page

    def test_compare_three(self, loaded):
        three = [
            word
            for name in ("mlps", "single-pass", "through {mlp25}")
            for word in ("--variant", name)
        ]
        shown = run("compare", "[23.3, 5.5] -> logits", "-n", 3, *three)
        assert "through {mlp25}" in shown
        assert "range" in shown

    def test_models_check(self, loaded):
        words = ["--only", "to logits, mlps", "--only", "5 all writers", "--prompts", 1]
        shown = run("models", "--check", "smollm2-135m", *words)
        assert "2 passed." in shown
        assert "Up to 1e-04 is rounding here." in " ".join(shown.split())

    def test_a_position_that_is_not_named(self, loaded):
        shown = said("patch", "23.3@S3 -> logits", "-n", 2, code=1)
        assert "S3" in shown
        assert "S2" in shown


def test_as_a_module():
    command = [sys.executable, "-m", "circuitgraph", "--version"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.startswith("circuitgraph ")


def test_engines_that_estimate_are_values() -> None:
    from circuitgraph.cli.options import EstimatorName, RulesName
    from circuitgraph.cli.patch import read_engine
    from circuitgraph.errors import RequestError

    assert read_engine(EstimatorName.EAP_IG, 7, RulesName.GIM) == cg.EAPIG(7, rules="gim")
    assert read_engine(EstimatorName.EAP, 7, None) == cg.EAP()
    path = read_engine(EstimatorName.EAP_IG_ACTIVATIONS, 2, None)
    assert path == cg.EAPIG(2, path="activations")
    assert read_engine(EstimatorName.FAST, 7, None) == "fast"
    with pytest.raises(RequestError, match="estimate with --engine eap or eap-ig"):
        read_engine(EstimatorName.FAST, 7, RulesName.GIM)
