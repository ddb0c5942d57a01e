"""Judgements come back from their files as they were, and damaged files are refused."""

import json

import numpy as np
import pytest

from circuitgraph.circuit import Circuit
from circuitgraph.errors import CircuitError
from circuitgraph.evaluation import load
from tests.evaluation.test_evaluation import experiment, some_edges
from tests.models import tiny_attn_only


@pytest.fixture(scope="module")
def judgements():
    exp = experiment(tiny_attn_only())
    circuit = Circuit.from_edges(exp.graph, dict.fromkeys(some_edges(exp, 40), -0.1))
    scored = Circuit.from_edges(exp.graph, dict.fromkeys(exp.graph.edges(), -0.1))
    return [
        exp.evaluate(circuit, baselines=3),
        exp.curve(scored, sizes=[3, 20]),
        exp.completeness(circuit, random_sets=1, greedy_steps=1),
        exp.minimality(circuit, by="node"),
        exp.test_circuit(circuit, randoms=3, permutations=5),
    ]


@pytest.mark.parametrize("number", range(5))
def test_there_and_back(judgements, number, tmp_path):
    before = judgements[number]
    path = before.save(tmp_path / "judgement.json")
    after = load(path)
    assert type(after) is type(before)
    assert repr(after) == repr(before)
    assert after._repr_html_() == before._repr_html_()
    again = after.save(tmp_path / "again.json")
    assert again.read_text() == path.read_text()
    for name in before.__dataclass_fields__:
        one, other = getattr(before, name), getattr(after, name)
        if isinstance(one, np.ndarray):
            assert np.array_equal(one, other, equal_nan=True)


def test_damaged_files_are_refused(judgements, tmp_path):
    path = judgements[0].save(tmp_path / "judgement.json")
    good = json.loads(path.read_text())
    changes = {
        "n_pruned": ({**good, "settings": {**good["settings"], "n_pruned": 1}}, "checksum"),
        "kind": ({**good, "kind": "magic"}, "kind must be"),
        "unknown": ({**good, "more": 1}, "'more' is unknown"),
        "other": ({"format": "else"}, "is no judgement saved by circuitgraph"),
    }
    for name, (data, message) in changes.items():
        broken = tmp_path / f"{name}.json"
        broken.write_text(json.dumps(data))
        with pytest.raises(CircuitError, match=message):
            load(broken)
    with pytest.raises(CircuitError):
        load(tmp_path / "nothing.json")
