"""Sweeps in parts: joined they are what one process measures, whatever ends them on the way."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import copytree
from typing import Any

import numpy as np
import pytest
import torch

import circuitgraph as cg
from circuitgraph.errors import CircuitGraphError, NodeError, SweepError
from circuitgraph.files.writing import TEMPORARY
from circuitgraph.sweeps import estimate_sweep, sweep_status
from circuitgraph.sweeps.executor import Cut, Sizes
from circuitgraph.sweeps.identity import digest_of
from circuitgraph.sweeps.lock import only_driver
from circuitgraph.sweeps.manifest import Part
from circuitgraph.sweeps.question import Question
from circuitgraph.sweeps.store import open_sweep
from tests.sweeping import METHOD, REQUEST, make, recipe

VALUES = "{'a', 'b', 'c'}, {'k': frozenset('xyz')}, cg.EAPIG(2), cg.LogitDiff([1, 2], [3, 4])"
"""What a manifest is made of, some of it without an order."""

Patched = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep; leave it as it is."""
    folder = tmp_path_factory.mktemp("sweep")
    cg.sweep(recipe, REQUEST, **METHOD, into=folder, cells=60)
    return folder


def patched(effects: cg.Effects) -> Patched:
    return effects.data["patched"].to_numpy()


class TestJoined:
    def test_parts_are_what_patch_measures(self, done: Path) -> None:
        whole, joined = recipe().patch(REQUEST, **METHOD), cg.load_sweep(done)
        np.testing.assert_allclose(patched(joined), patched(whole), rtol=0, atol=1e-12)
        assert joined.attrs == whole.attrs
        for name in ("clean", "corrupt", "noise"):
            np.testing.assert_array_equal(joined.data[name], whole.data[name])
        assert joined.data.coords.equals(whole.data.coords)

    @pytest.mark.parametrize(
        ("request_", "options"),
        [
            ("head -> logits", {"source": "mean"}),
            (REQUEST, {"engine": cg.EAP(), "source": "mean-position", "cells": None}),
            (REQUEST, {"engine": cg.EAPIG(2), "cells": None}),
            ("0.1 -> logits", {}),
            (
                "0.1 -> head.q => logits",
                {"metrics": {"a": cg.LogProb([1, 2, 3]), "b": cg.AttentionTo("2.1", 0)}},
            ),
        ],
    )
    def test_of_each_kind(self, request_: str, options: dict[str, Any], tmp_path: Path) -> None:
        how = {"cells": 2} | options
        joined = cg.sweep(recipe, request_, into=tmp_path, **how)
        asked = {key: how[key] for key in how if key not in ("cells", "seconds")}
        whole = recipe().patch(request_, **asked)
        np.testing.assert_allclose(patched(joined), patched(whole), rtol=0, atol=1e-12)
        assert joined.attrs == whole.attrs
        if "metrics" in options or options.get("source") == "mean":
            assert sweep_status(tmp_path).parts > 1

    def test_of_sets_of_edges(self, tmp_path: Path) -> None:
        edges = list(recipe().graph.edges())
        sets = cg.EdgeSets({str(n): edges[: 7 * n] for n in range(1, 6)}, kept=True)
        how = {"variant": "single-pass", "mode": "replace"}
        joined = cg.sweep(recipe, sets, **how, into=tmp_path, cells=2)
        whole = recipe().patch(sets, **how)
        np.testing.assert_allclose(patched(joined), patched(whole), rtol=0, atol=1e-12)
        assert joined.data["set"].to_numpy().tolist() == list("12345")

    def test_only_some_cells(self, tmp_path: Path) -> None:
        only = np.zeros((3, 3), dtype=bool)
        only[[0, 2], [1, 2]] = True
        joined = cg.sweep(recipe, "head -> logits", into=tmp_path, only=only, cells=1)
        whole = recipe().patch("head -> logits", only=only)
        np.testing.assert_allclose(patched(joined), patched(whole), rtol=0, atol=1e-12)
        assert np.isnan(patched(joined)[~only]).all()

    @pytest.mark.parametrize("source", ["corrupt", "mean"])
    def test_of_estimates_cut_by_prompts(
        self, source: Any, tmp_path: Path, monkeypatch: Any
    ) -> None:
        cut = Cut((), 0.0, 0.0)

        def by_prompts(work: Any, sizes: Any) -> Cut:
            of, everything = work.manifest.digest, work.whole.cells
            return replace(
                cut, parts=tuple(Part(of, everything, range(n, n + 1)) for n in range(3))
            )

        monkeypatch.setattr("circuitgraph.experiment.sizing._by_prompts", by_prompts)
        how = {"engine": cg.EAPIG(2), "source": source}
        joined = cg.sweep(recipe, REQUEST, **how, into=tmp_path)
        assert sweep_status(tmp_path).parts == 3
        whole = recipe().patch(REQUEST, **how)
        np.testing.assert_allclose(patched(joined), patched(whole), rtol=0, atol=1e-12)


class TestGoingOn:
    def test_runs_only_what_is_missing(self, done: Path, tmp_path: Path) -> None:
        copytree(done, tmp_path, dirs_exist_ok=True)
        first = cg.load_sweep(done)
        found = open_sweep(tmp_path)
        lost = found.cut.parts[1]
        before = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
        found.path(lost).unlink()
        assert sweep_status(tmp_path).done == sweep_status(tmp_path).parts - 1
        again = cg.sweep(recipe, REQUEST, **METHOD, into=tmp_path)
        after = {path: path.stat().st_mtime_ns for path in (tmp_path / "parts").iterdir()}
        assert [path for path in after if after[path] != before[path]] == [found.path(lost)]
        np.testing.assert_array_equal(patched(again), patched(first))

    def test_missing_parts_are_an_error_or_nan(self, done: Path, tmp_path: Path) -> None:
        copytree(done, tmp_path, dirs_exist_ok=True)
        found = open_sweep(tmp_path)
        part = found.cut.parts[0]
        places = found.read(part).places
        whole = patched(cg.load_sweep(tmp_path)).reshape(-1, 3)
        found.path(part).unlink()
        with pytest.raises(SweepError, match=r"1 of \d+ parts .* are missing"):
            cg.load_sweep(tmp_path)
        some = patched(cg.load_sweep(tmp_path, partial=True)).reshape(-1, 3)
        assert np.isnan(some[places]).all()
        others = np.setdiff1d(np.arange(len(some)), places)
        np.testing.assert_array_equal(some[others], whole[others])

    @pytest.mark.parametrize(
        ("other", "asked", "field"),
        [
            (recipe, {"request": "head -> logits"}, "request"),
            (recipe, {"variant": "mlps"}, "variant"),
            (recipe, {"source": "zero"}, "source"),
            (recipe, {"engine": cg.EAP()}, "engine"),
            (partial(make, 2), {}, "prompts"),
            (partial(make, positions={"there": [1, 2, 3]}), {}, "prompts"),
            (partial(make, metric=cg.LogitDiff([1, 2, 3], [5, 6, 8])), {}, "metric"),
        ],
    )
    def test_another_sweep_is_refused(
        self, done: Path, other: Any, asked: dict[str, Any], field: str
    ) -> None:
        with pytest.raises(SweepError, match=f"another sweep.*\n?.*{field} was"):
            cg.sweep(other, into=done, **({"request": REQUEST} | METHOD | asked))

    def test_other_weights_are_refused(self, done: Path) -> None:
        from tests.models import tiny_gpt2

        def changed() -> cg.Experiment:
            model = tiny_gpt2()
            bridge = model.new_bridge()
            with torch.no_grad():
                next(bridge.original_model.parameters()).flatten()[0] += 1e-9
            tokens = model.tokens(3, 5, 0), model.tokens(3, 5, 1)
            return cg.Experiment(bridge, *tokens, cg.LogitDiff([1, 2, 3], [5, 6, 7]))

        with pytest.raises(SweepError, match="weights was"):
            cg.sweep(changed, REQUEST, **METHOD, into=done)

    def test_other_versions_are_refused(self, tmp_path: Path, monkeypatch: Any) -> None:
        cg.sweep(recipe, "0.1 -> logits", into=tmp_path)
        monkeypatch.setattr("circuitgraph.sweeps.manifest._COMPUTES", ("torch", "nothing-like-it"))
        from circuitgraph.sweeps.manifest import versions

        versions.cache_clear()
        try:
            with pytest.raises(SweepError, match=r"version of numpy was '.*' and is 'none'"):
                cg.sweep(recipe, "0.1 -> logits", into=tmp_path)
        finally:
            versions.cache_clear()


class TestOneDriver:
    def test_a_second_one_says_who_is_there(self, done: Path) -> None:
        with only_driver(done):
            with pytest.raises(SweepError, match="works on the sweep"):
                cg.sweep(recipe, REQUEST, **METHOD, into=done)
            assert str(os.getpid()) in sweep_status(done).holder
            ask = (
                "import circuitgraph.sweeps as s, circuitgraph as cg, sys\n"
                "from circuitgraph.sweeps.identity import digest_of\n"
                f"print(digest_of({VALUES}))\n"
                "print(s.sweep_status(sys.argv[1]).holder)\n"
                "try: cg.sweep(exit, '0.1 -> logits', into=sys.argv[1])\n"
                "except cg.CircuitGraphError as error: print(error)\n"
            )
            said = subprocess.run(
                [sys.executable, "-c", ask, str(done)],
                check=True,
                capture_output=True,
                text=True,
                env=os.environ | {"PYTHONHASHSEED": "5"},
            ).stdout
            digest, first, second = said.splitlines()
            assert digest == digest_of(*eval(VALUES))  # the same in any process
            assert first == f"process {os.getpid()} on {os.uname().nodename}"
            assert second.startswith(f"{first} works on the sweep in")
        assert not sweep_status(done).holder


class TestFiles:
    def test_damage_is_named(self, tmp_path: Path) -> None:
        cg.sweep(recipe, "head -> logits", into=tmp_path, cells=4)
        found = open_sweep(tmp_path)
        one, other, *_ = map(found.path, found.cut.parts)
        text = one.read_text()
        one.write_text(text.replace('"seconds": ', '"seconds": 1'))
        with pytest.raises(SweepError, match="checksum does not fit"):
            cg.load_sweep(tmp_path)
        one.write_text(text[:-40])
        with pytest.raises(SweepError, match="holds no JSON"):
            cg.load_sweep(tmp_path)
        one.write_text(other.read_text())
        with pytest.raises(SweepError, match="another part than its name says"):
            cg.load_sweep(tmp_path)
        with pytest.raises(SweepError, match="no file"):
            cg.load_sweep(tmp_path / "elsewhere")

    def test_a_full_disk_loses_only_what_was_in_flight(
        self, done: Path, tmp_path: Path, monkeypatch: Any
    ) -> None:
        whole = cg.load_sweep(done)
        written: list[int] = []

        def full(descriptor: int) -> None:
            written.append(descriptor)
            if len(written) >= 5:  # the second part
                raise OSError(28, "No space left on device")
            fsync(descriptor)

        fsync = os.fsync
        monkeypatch.setattr("circuitgraph.files.writing.os.fsync", full)
        with pytest.raises(SweepError, match="No space left"):
            cg.sweep(recipe, REQUEST, **METHOD, into=tmp_path / "full", cells=60)
        monkeypatch.undo()
        there = list((tmp_path / "full").rglob("*.json"))
        assert all(json.loads(path.read_text()) for path in there)
        assert not list((tmp_path / "full").rglob("*.tmp"))
        for place in (tmp_path / "full", tmp_path / "full" / "parts"):
            (place / TEMPORARY.format("0123")).write_text("what a killed process leaves")
        joined = cg.sweep(recipe, REQUEST, **METHOD, into=tmp_path / "full")
        np.testing.assert_array_equal(patched(joined), patched(whole))
        assert not list((tmp_path / "full").rglob("*.tmp"))

    def test_where_nothing_can_be_locked(self, tmp_path: Path, monkeypatch: Any) -> None:
        def lock(*_: Any) -> None:
            raise OSError(37, "No locks available")

        monkeypatch.setattr("circuitgraph.sweeps.lock.fcntl.lockf", lock)
        with pytest.raises(SweepError, match=r"knows no locks \(No locks available\)"):
            cg.sweep(recipe, REQUEST, **METHOD, into=tmp_path)


class TestNames:
    def test_travel_and_tell_parts_apart(self) -> None:
        asked = recipe().answering(Question(cg.parse("head -> logits")))
        parts = asked.cut(Sizes(cells=2)).parts
        assert pickle.loads(pickle.dumps(parts)) == parts
        assert len({part.name for part in parts}) == len(parts)
        again = make().answering(Question(cg.parse("head -> logits")))
        assert again.manifest == asked.manifest
        assert Part("a", range(2)).name != Part("a", range(2), range(1)).name

    def test_of_values_look_at_content_only(self) -> None:
        def function(a: Any) -> Any:
            return lambda x: x + a

        assert digest_of(function(1)) == digest_of(function(1)) != digest_of(function(2))
        assert digest_of(torch.ones(2)) == digest_of(torch.ones(3)[:2])
        assert digest_of(torch.ones(2)) != digest_of(torch.ones(2, dtype=torch.float64))
        assert digest_of({"b", "a"}) == digest_of({"a", "b"})
        assert digest_of([1, 2]) != digest_of([2, 1]) != digest_of((2, 1))
        loop: list[Any] = []
        loop.append(loop)
        assert digest_of(loop)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"workers": 0}, "workers must be a whole number of at least 1"),
            ({"cells": 0}, "cells must be a whole number of at least 1"),
            ({"seconds": 0}, "seconds is a number above 0"),
            ({"gpus": -1}, "gpus is a number above 0"),
            ({"recipe": 3}, "a recipe is a function that makes the experiment, got int"),
            ({"request": "nonsense ->"}, "nonsense"),
            ({"engine": "slow"}, "no engine 'slow'"),
        ],
    )
    def test_come_before_anything_is_made(
        self, options: dict[str, Any], words: str, tmp_path: Path
    ) -> None:
        def never() -> Any:
            pytest.fail("an experiment was made")

        asked = {"recipe": never, "request": "head -> logits", "into": tmp_path / "x"} | options
        with pytest.raises(CircuitGraphError, match=words):
            cg.sweep(**asked)
        assert not (tmp_path / "x").exists()

    def test_a_model_that_changes_is_no_one_model(self) -> None:
        from tests.models import tiny_gpt2

        model = tiny_gpt2()
        bridge = model.new_bridge()
        tokens = model.tokens(3, 5, 0), model.tokens(3, 5, 1)
        exp = cg.Experiment(bridge, *tokens, cg.LogitDiff([1, 2, 3], [5, 6, 7]))
        asked = exp.answering(Question(cg.parse("head -> logits")))
        with torch.no_grad():
            next(bridge.original_model.parameters()).mul_(1.01)
        with pytest.raises(cg.CircuitGraphError, match="the model has changed since"):
            asked.measure(Part("", range(2)), lambda _: None)


def test_an_estimate_says_what_it_costs() -> None:
    cost = estimate_sweep(recipe, REQUEST, "single-pass", cells=20)
    exp = recipe()
    assert cost.n_cells == len(exp.plan(REQUEST, "single-pass").cells)
    assert len(cost.cut.parts) == -(-cost.n_cells // 20)
    passes = exp.schedule(REQUEST, "single-pass").forward_passes
    assert passes <= cost.cut.passes < 3 * passes
    assert str(cost).startswith(f"{cost.n_cells} cells in {len(cost.cut.parts)} parts")
    with pytest.raises(NodeError):
        estimate_sweep(recipe, "9.9 -> logits")
    only = np.zeros((3, 3), dtype=bool)
    only[1, :2] = True
    metrics = {"a": cg.LogProb([1, 2, 3]), "b": cg.Rank([1, 2, 3])}
    few = estimate_sweep(recipe, "head -> logits", only=only, metrics=metrics)
    assert (few.n_cells, len(few.cut.parts)) == (2, 1)
