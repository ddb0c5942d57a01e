"""A circuit file of the MIB benchmark: its cuts by the published rule, and f at the board's sizes."""

import json
import re
from collections.abc import Mapping

import numpy as np
import pytest

import circuitgraph as cg
from circuitgraph.discover import cut
from circuitgraph.evaluation.curve import MIB_SHARES
from tests.models import gpt2_shaped
from tests.oracles.circuits import plain_edge, run_circuit

Scores = Mapping[tuple[str, str], float]


@pytest.fixture(scope="module")
def scores(mib_file):
    """The file's scores by its own names of edges, read without this package."""
    edges = json.loads(mib_file.read_text(encoding="utf-8"))["edges"]
    return {tuple(name.split("->")): value["score"] for name, value in edges.items()}


@pytest.fixture(scope="module")
def circuit(mib_file):
    return cg.Circuit.from_mib(mib_file)


def published_cut(scores: Scores, n_edges: int, sign: str) -> set[tuple[str, str]]:
    """The strongest edges, pruned as the benchmark does it: both ends, until nothing changes."""
    rank = scores if sign == "signed" else {edge: abs(value) for edge, value in scores.items()}
    kept = set(sorted(rank, key=rank.__getitem__, reverse=True)[:n_edges])
    while True:
        senders = {sender for sender, _ in kept} | {"logits"}
        receivers = {receiver.partition("<")[0] for _, receiver in kept} | {"input"}
        alive = senders & receivers
        left = {
            (sender, receiver)
            for sender, receiver in kept
            if sender in alive and receiver.partition("<")[0] in alive
        }
        if left == kept:
            return kept
        kept = left


def named(edges) -> set[tuple[str, str]]:
    """Edges by the file's names."""

    def name(text):
        text = re.sub(r"^(\d+)\.(\d+)(?:\.([qkv]))?$", r"a\1.h\2<\3>", text).removesuffix("<>")
        return re.sub(r"^mlp", "m", "input" if text == "embed" else text)

    return {tuple(name(end) for end in str(edge).split(" -> ")) for edge in edges}


@pytest.mark.parametrize("sign", ["signed", "absolute"])
def test_every_cut_of_the_board_is_the_published_rule_s(scores, circuit, sign):
    for share in MIB_SHARES[:-1:2]:
        n_edges = int(share * len(scores))
        found = cut(circuit, n_edges, sign=sign).prune()
        assert named(found.members) == published_cut(scores, n_edges, sign), n_edges


def test_f_at_its_sizes_on_a_model_of_its_shape(scores, circuit):
    """Weights are random, so f says nothing of GPT-2; each is what plain torch makes of the cut."""
    tiny = gpt2_shaped()
    clean, corrupt = tiny.tokens(2, 4, seed=1), tiny.tokens(2, 4, seed=2)
    exp = cg.Experiment(tiny.bridge, clean, corrupt, cg.LogitDiff([3, 4], [7, 8]))
    found = exp.curve(circuit)
    assert found.table["size"].tolist() == [int(share * 32491) for share in MIB_SHARES]

    def measured(edges):
        logits = run_circuit(tiny.plain, clean, corrupt, [plain_edge(edge) for edge in edges])
        return np.mean(
            [float(logits[0, -1, 3] - logits[0, -1, 7]), float(logits[1, -1, 4] - logits[1, -1, 8])]
        )

    everything, nothing = measured(exp.graph.edges()), measured([])
    by_name = {next(iter(named([edge]))): edge for edge in exp.graph.edges()}
    for at in (1, 6):
        row = found.table.iloc[at]
        kept = published_cut(scores, int(row["size"]), "signed")
        assert row["pruned"] == len(kept)
        alone = measured([by_name[edge] for edge in kept])
        f = (alone - nothing) / (everything - nothing)
        assert row["faithfulness"] == pytest.approx(f, abs=1e-8)
    assert np.isfinite(found.cpr)
    assert found.cpr == pytest.approx(
        np.trapezoid(found.table["faithfulness"], np.array(found.table["size"]) / 32491)
    )
