"""Circuits in files: our own format and the MIB benchmark's lose nothing."""

import json

import pytest
from hypothesis import given

from circuitgraph.circuit import Circuit, Weight
from circuitgraph.circuit.mib import from_mib, to_mib
from circuitgraph.circuit.storage import from_json, to_json
from circuitgraph.errors import CircuitError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.nodes import Edge, Head, Logits
from tests.strategies_circuit import circuits

GPT2 = ModelShape(n_layers=12, n_heads=12)


def through_json(data):
    return json.loads(json.dumps(data, allow_nan=False))


class TestOwnFormat:
    @given(circuits())
    def test_nothing_is_lost(self, circuit):
        assert from_json(through_json(to_json(circuit)), "file") == circuit

    def test_to_disk_and_back(self, tmp_path):
        circuit = Circuit.from_edges(
            ModelShape(30, 9, 3, mlp_layers=(0, 2)),
            {"23.3 -> logits": (-0.1, -0.2, -0.05), "mlp2 -> 20.1.k": None, "0.0 -> mlp0": 1e-300},
            {"movers ünï": ["23.3"]},
            {"request": "head -> logits", "seeds": [1, 2.5, None, {"a": True}]},
        ).restrict(["23.3", "logits", "0.0", "mlp0"])
        path = tmp_path / "circuit.json"
        circuit.save(path)
        again = Circuit.load(path)
        assert again == circuit
        assert list(again.groups) == ["movers ünï"]
        assert json.loads(path.read_text())["version"] == 1

    def test_what_the_file_looks_like(self):
        circuit = Circuit.from_edges(ModelShape(1, 1), {"0.0 -> logits": (0.5, 0.25, 1.0)})
        assert to_json(circuit) == {
            "format": "circuitgraph.circuit",
            "version": 1,
            "shape": {
                "n_layers": 1,
                "n_heads": 1,
                "n_kv_heads": None,
                "parallel": False,
                "attn_only": False,
                "mlp_layers": None,
            },
            "attrs": {},
            "groups": {},
            "edges": {
                "0.0 -> logits": {"weight": 0.5, "interval": (0.25, 1.0), "in_circuit": True}
            },
        }

    def test_files_that_are_none(self, tmp_path):
        with pytest.raises(CircuitError, match=r"no file '.*nowhere.json'"):
            Circuit.load(tmp_path / "nowhere.json")
        path = tmp_path / "bad.json"
        path.write_text("{")
        with pytest.raises(CircuitError, match=r"bad.json' holds no JSON \(Expecting"):
            Circuit.load(path)
        path.write_text('{"cfg": {}, "nodes": {}, "edges": {}}')
        with pytest.raises(CircuitError, match=r"MIB benchmark, read it with Circuit.from_mib"):
            Circuit.load(path)
        path.write_text("[]")
        with pytest.raises(CircuitError, match="is no circuit saved by circuitgraph"):
            Circuit.load(path)

    def test_newer_and_damaged_files(self):
        data = through_json(to_json(Circuit.from_edges(GPT2, ["9.9 -> logits"])))
        with pytest.raises(CircuitError, match="is of version 2 of the circuit format"):
            from_json({**data, "version": 2}, "f.json")
        with pytest.raises(
            CircuitError,
            match=r"f.json is a damaged circuit file: in edges: in 9.9 -> logits: 'weight' is missing",
        ):
            from_json({**data, "edges": {"9.9 -> logits": {}}}, "f.json")
        edges = {"12.0 -> logits": {"weight": 1, "interval": None, "in_circuit": True}}
        with pytest.raises(CircuitError, match=r"f.json: cannot make a circuit: no edge '12.0"):
            from_json({**data, "edges": edges}, "f.json")
        with pytest.raises(CircuitError, match="in shape: 'n_experts' is unknown"):
            from_json({**data, "shape": {**data["shape"], "n_experts": 8}}, "f.json")


SMALL = {
    "cfg": {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8},
    "nodes": {
        "input": {"in_graph": True},
        "a0.h0": {"in_graph": True},
        "a0.h1": {"in_graph": False},
        "m0": {"in_graph": False},
        "logits": {"in_graph": True},
    },
    "edges": {
        "input->a0.h0<q>": {"score": -0.5, "in_graph": True},
        "input->a0.h1<k>": {"score": 0.25, "in_graph": False},
        "a0.h0->m0": {"score": 0.0, "in_graph": False},
        "a0.h0->logits": {"score": 1, "in_graph": True},
    },
}


class TestMib:
    def test_read(self):
        circuit = from_mib(SMALL, "small")
        assert circuit.shape == ModelShape(1, 2)
        assert {str(edge) for edge in circuit} == {"embed -> 0.0.q", "0.0 -> logits"}
        assert circuit.weight("0.0 -> mlp0") == 0.0
        assert circuit.weight("embed -> 0.1.k") == 0.25

    def test_both_ways(self):
        assert through_json(to_mib(from_mib(SMALL, "small"))) == SMALL

    def test_what_else_a_file_says_comes_back(self):
        data = json.loads(json.dumps(SMALL))
        data["nodes"]["m0"] = {"in_graph": True, "score": 0.3, "neurons": [1.0, 0.0]}
        data["nodes"]["a0.h0"]["in_graph"] = False
        del data["nodes"]["a0.h1"]
        data["edges"]["a0.h0->m0"]["neurons"] = [1]
        data["comment"] = {"by": "someone"}
        circuit = from_mib(data, "small")
        assert through_json(to_mib(circuit)) == data
        assert through_json(to_mib(from_json(through_json(to_json(circuit)), "own"))) == data

    def test_what_a_file_says_of_nodes_ends_with_its_edges(self):
        data = json.loads(json.dumps(SMALL))
        data["nodes"]["m0"]["in_graph"] = True
        data["edges"]["a0.h0->m0"]["why"] = "kept"
        narrowed = to_mib(from_mib(data, "small").top(1))
        assert [name for name, node in narrowed["nodes"].items() if node["in_graph"]] == [
            "a0.h0",
            "logits",
        ]
        assert narrowed["edges"]["a0.h0->m0"]["why"] == "kept"
        assert narrowed["cfg"] == SMALL["cfg"]

    @given(circuits(weighted=True, with_mlps=True))
    def test_scores_and_membership_of_any_circuit_survive(self, circuit):
        again = from_mib(through_json(to_mib(circuit)), "file")
        assert again.shape == circuit.shape
        assert again.members == circuit.members
        assert {e: w.value for e, w in again.known.items()} == {
            e: w.value for e, w in circuit.known.items()
        }

    def test_edges_without_weight(self, tmp_path):
        circuit = Circuit.from_edges(GPT2, ["9.9 -> logits"])
        with pytest.raises(
            CircuitError, match=r"1 have none, the first '9.9 -> logits': .*missing"
        ):
            circuit.to_mib(tmp_path / "c.json")
        circuit.to_mib(tmp_path / "c.json", missing=0.0)
        assert Circuit.from_mib(tmp_path / "c.json").known == {
            Edge(Head(9, 9), Logits()): Weight(0.0)
        }

    def test_models_without_all_mlps(self):
        with pytest.raises(CircuitError, match="has an MLP in every layer"):
            to_mib(Circuit.from_edges(ModelShape(2, 2, attn_only=True), {"0.0 -> logits": 1.0}))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda d: d.pop("cfg"), "it needs cfg, nodes and edges"),
            (lambda d: d["cfg"].pop("n_heads"), "cfg needs n_layers and n_heads"),
            (
                lambda d: d["edges"].update({"m1->logits": {"score": 1, "in_graph": True}}),
                "no edge 'mlp1 -> logits'",
            ),
            (
                lambda d: d["edges"].update({"0.0->logits": {"score": 1, "in_graph": True}}),
                "'0.0' is no node of the MIB format: input, a3.h1, m0 or logits",
            ),
            (
                lambda d: d["edges"].update({"input->a0.h0": {"score": 1, "in_graph": True}}),
                "'input->a0.h0' is no edge",
            ),
            (
                lambda d: d["edges"].update({"input,m0": {"score": 1, "in_graph": True}}),
                "'input,m0' is no edge of the MIB format",
            ),
            (
                lambda d: d["edges"]["a0.h0->m0"].update(score=float("nan")),
                "'a0.h0->m0': score must be a finite number or None, got nan",
            ),
            (lambda d: d["edges"]["a0.h0->m0"].update(score=None), "'a0.h0->m0' has no score"),
            (
                lambda d: d["edges"]["a0.h0->m0"].update(in_graph=1),
                "needs a score and in_graph true or false",
            ),
            (lambda d: d["nodes"].update(m7={"in_graph": True}), "no node 'm7' in a model of 1"),
        ],
    )
    def test_files_that_are_none(self, change, message):
        data = json.loads(json.dumps(SMALL))
        change(data)
        with pytest.raises(CircuitError) as caught:
            from_mib(data, "f.json")
        assert message in str(caught.value)

    def test_a_circuit_of_the_benchmark_comes_back_as_it_was(self, tmp_path, mib_file):
        source = mib_file
        circuit = Circuit.from_mib(source)
        assert len(circuit.known) == ModelGraph(circuit.shape).n_edges == 32491
        assert len(circuit) == 756
        assert len(circuit.nodes) == 81
        circuit.to_mib(tmp_path / "mib.json")
        circuit.save(tmp_path / "own.json")
        again = Circuit.load(tmp_path / "own.json")
        assert again == circuit
        expected = json.loads(source.read_text())
        assert json.loads((tmp_path / "mib.json").read_text()) == expected
        again.to_mib(tmp_path / "again.json")
        assert json.loads((tmp_path / "again.json").read_text()) == expected
