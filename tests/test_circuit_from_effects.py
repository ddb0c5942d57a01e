"""Circuits from effects: the edges that each cell patched, with hand-made numbers."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import xarray as xr

from circuitgraph.circuit import Circuit, Weight
from circuitgraph.circuit.from_effects import edges_of_cells
from circuitgraph.compiler import compile as compile_request
from circuitgraph.effects import Effects
from circuitgraph.errors import CircuitError
from circuitgraph.graph import ModelGraph, ModelShape
from circuitgraph.request import parse

SHAPE = ModelShape(n_layers=12, n_heads=12)
GROUPED = ModelShape(n_layers=4, n_heads=4, n_kv_heads=2)


def effects_of(request, values, sweep, shape=SHAPE, **attrs):
    """Effects with these normalised values: clean 1, corrupt 0 on both of two prompts."""
    patched = 1 + np.asarray(values, dtype=float)[..., None] * np.ones(2)
    said = {"request": request, "variant": "mlps", "shape": json.dumps(asdict(shape))} | attrs
    return Effects.from_arrays(patched, [1.0, 1.0], [0.0, 0.0], sweep, **said)


def weights(circuit):
    return {str(edge): circuit.weight(edge) for edge in circuit}


def heads(request="head -> logits", **strong):
    values = np.zeros((12, 12))
    for name, value in strong.items():
        layer, head = map(int, name.strip("h").split("_"))
        values[layer, head] = value
    return effects_of(request, values, {"layer": range(12), "head": range(12)})


class TestCells:
    def test_a_sweep_over_heads(self):
        circuit = Circuit.from_effects(heads(h9_9=-0.5, h9_6=-0.25, h10_7=0.375), threshold=0.25)
        assert weights(circuit) == {
            "9.9 -> logits": -0.5,
            "9.6 -> logits": -0.25,
            "10.7 -> logits": 0.375,
        }
        assert len(circuit.known) == 144
        assert circuit.shape == SHAPE
        assert circuit.attrs["request"] == "head -> logits"
        assert circuit.attrs["variant"] == "mlps"
        assert circuit.attrs["helps"] == "negative"

    def test_joint_receivers_get_an_edge_each(self):
        effects = heads("head -> {8.6, 8.10}.v => logits", h5_5=-0.5)
        circuit = Circuit.from_effects(effects, top=2)
        assert weights(circuit) == {"5.5 -> 8.6.v": -0.5, "5.5 -> 8.10.v": -0.5}

    def test_edges_that_cannot_be_are_left_out(self):
        effects = heads("head -> {7.9, 8.6}.v => logits", h7_3=-0.5)
        assert weights(Circuit.from_effects(effects, threshold=0.1)) == {"7.3 -> 8.6.v": -0.5}

    def test_empty_cells_are_not_known(self):
        values = np.full((12, 12), np.nan)
        values[0, 1] = -0.5
        effects = effects_of(
            "head -> 1.0.q => logits", values, {"layer": range(12), "head": range(12)}
        )
        assert len(Circuit.from_effects(effects).known) == 1

    def test_a_longer_path_gives_its_effect_to_each_of_its_edges(self):
        effects = effects_of(
            "[5.5, 6.9] -> 8.6.v -> 9.9.q -> logits", [-0.5, -0.25], {"sender": ["5.5", "6.9"]}
        )
        assert weights(Circuit.from_effects(effects)) == {
            "5.5 -> 8.6.v": -0.5,
            "6.9 -> 8.6.v": -0.25,
            "8.6 -> 9.9.q": -0.5,
            "9.9 -> logits": -0.5,
        }

    def test_a_path_that_ends_in_recomputing_has_no_edge_into_the_logits(self):
        effects = effects_of("5.5 -> 8.6.v -> 9.9.q => logits", -0.5, {})
        assert weights(Circuit.from_effects(effects)) == {
            "5.5 -> 8.6.v": -0.5,
            "8.6 -> 9.9.q": -0.5,
        }

    def test_swept_receivers(self):
        values = np.full((2, 3, 1, 2), np.nan)
        values[1, 2, 0, 1] = 0.5
        sweep = {"layer": [7, 8], "head": [1, 2, 3], "receiver_layer": [9], "receiver_head": [4, 5]}
        effects = effects_of("head -> head.k => logits", values, sweep)
        assert weights(Circuit.from_effects(effects)) == {"8.3 -> 9.5.k": 0.5}

    def test_a_list_of_receivers_and_positions(self):
        values = [[[0.1, -0.4], [0.2, 0.0]]]
        sweep = {"sender": ["5.5@each"], "receiver": ["8.6.v", "{9.6, 9.9}.q"], "position": [0, 1]}
        effects = effects_of("[5.5]@each -> [8.6.v, {9.6, 9.9}.q] => logits", values, sweep)
        assert weights(Circuit.from_effects(effects)) == pytest.approx(
            {"5.5 -> 8.6.v": -0.4, "5.5 -> 9.6.q": 0.2, "5.5 -> 9.9.q": 0.2}
        )

    def test_mlps_and_all_writers_and_ports(self):
        mlps = effects_of("mlp -> mlp => logits", [[0.5]], {"layer": [3], "receiver_layer": [7]})
        assert weights(Circuit.from_effects(mlps)) == {"mlp3 -> mlp7": 0.5}
        values = [[0.5, 0.25], [np.nan, 0.125]]
        sweep = {"sender": ["embed", "mlp0"], "receiver": ["0.0.q", "logits"]}
        every = effects_of("node -> port => logits", values, sweep)
        assert weights(Circuit.from_effects(every)) == {
            "embed -> 0.0.q": 0.5,
            "embed -> logits": 0.25,
            "mlp0 -> logits": 0.125,
        }

    def test_a_key_value_head_is_its_whole_group(self):
        values = [[[np.nan, np.nan], [np.nan, -0.5]]]
        sweep = {"sender": ["0.1"], "receiver_layer": [0, 2], "receiver_kv_head": [0, 1]}
        swept = effects_of("[0.1] -> kv.v => logits", values, sweep, GROUPED)
        expected = {"0.1 -> 2.2.v": -0.5, "0.1 -> 2.3.v": -0.5}
        assert weights(Circuit.from_effects(swept)) == expected
        single = effects_of("0.1 -> 2.kv1.v => logits", -0.5, {}, GROUPED)
        assert weights(Circuit.from_effects(single)) == expected

    def test_a_set_of_edges_patched_together(self):
        effects = effects_of("5.5 -> 8.6.v, 9.9 -> logits => logits", -0.5, {})
        assert weights(Circuit.from_effects(effects)) == {
            "5.5 -> 8.6.v": -0.5,
            "9.9 -> logits": -0.5,
        }

    def test_a_cut_of_a_sweep(self):
        effects = heads(h9_9=-0.5).sel(layer=9)
        assert weights(Circuit.from_effects(effects, top=1)) == {"9.9 -> logits": -0.5}

    @pytest.mark.parametrize(
        "request_text",
        [
            "head -> logits",
            "[0.1, {0.0, 1.1}] -> {2.0, 3.1}.v => logits",
            "[0.1, 1.1]@each -> [{2.0, 2.1}.v, 3.1.k] -> 3.3.q => logits",
            "head -> head.q -> 3.0.q -> logits",
            "mlp -> mlp => logits",
            "node -> port => logits",
            "{embed, mlp0} -> kv.k => logits",
            "head -> kv.v => logits",
            "1.0 -> 2.1.v, {mlp0} -> 3.kv1.k => logits",
        ],
    )
    def test_cells_mean_what_the_compiler_says_they_mean(self, request_text):
        graph = ModelGraph(GROUPED)
        plan = compile_request(graph, request_text, n_positions=2)
        grid = np.full(plan.shape, np.nan)
        for cell in plan.cells:
            grid[cell.index] = 0.5
        coords = {axis.dim: list(axis.values) for axis in plan.axes}
        values = xr.DataArray(grid, dims=tuple(coords), coords=coords)
        found = dict(edges_of_cells(graph, plan.request, values))
        for cell in plan.cells:
            number = np.ravel_multi_index(cell.index, plan.shape) if plan.shape else 0
            alone = dict(edges_of_cells(graph, parse(cell.name), xr.DataArray(0.5)))
            assert set(found[int(number)]) == set(alone[0])
            assert found[int(number)]
        assert len(found) == len(plan.cells)


class TestChoosing:
    def test_threshold_and_top_together(self):
        effects = heads(h9_9=-0.5, h9_6=-0.25, h10_7=0.375)
        assert set(weights(Circuit.from_effects(effects, threshold=0.3, top=1))) == {
            "9.9 -> logits"
        }
        assert len(Circuit.from_effects(effects, threshold=0.3)) == 2
        assert len(Circuit.from_effects(effects)) == 144

    def test_intervals_and_significance(self):
        draw = np.random.default_rng(0)
        clean, corrupt = 1 + draw.normal(0, 0.1, 40), draw.normal(0, 0.1, 40)
        patched = np.stack(
            [clean + draw.normal(0, 0.2, 40), clean - 0.5 + draw.normal(0, 0.05, 40)]
        )
        effects = Effects.from_arrays(
            patched,
            clean,
            corrupt,
            {"sender": ["9.0", "9.9"]},
            request="[9.0, 9.9] -> logits",
            shape=json.dumps(asdict(SHAPE)),
        )
        circuit = Circuit.from_effects(effects, significant_only=True)
        assert [str(edge) for edge in circuit] == ["9.9 -> logits"]
        low, high = circuit.interval("9.9 -> logits")
        assert low < circuit.weight("9.9 -> logits") < high < 0
        found = effects.statistics().sel(sender="9.9")
        assert (low, high) == pytest.approx((float(found["ci_low"]), float(found["ci_high"])))
        assert circuit.interval("9.0 -> logits") is None

    def test_what_is_significant_has_an_interval_without_zero(self):
        # Many weak effects: the test of the mean and the bootstrapped ratio do not always agree.
        draw = np.random.default_rng(0)
        clean, corrupt = 1 + draw.normal(0, 0.3, 8), draw.normal(0, 0.3, 8)
        names = [f"{cell // 12}.{cell % 12}" for cell in range(132)]
        mean = draw.normal(0, 0.5, (132, 1))
        patched = clean + mean * (1 + draw.normal(0, 0.6, (132, 8)))
        effects = Effects.from_arrays(
            patched,
            clean,
            corrupt,
            {"sender": names},
            request=f"[{', '.join(names)}] -> logits",
            shape=json.dumps(asdict(SHAPE)),
        )
        found = effects.statistics()
        outside = (found["ci_low"] > 0) | (found["ci_high"] < 0)
        both = (found["significant"] & outside).values
        assert both.sum() < found["significant"].sum() < outside.sum(), "or nothing is told apart"
        circuit = Circuit.from_effects(effects, significant_only=True)
        assert {str(edge) for edge in circuit} == {
            f"{name} -> logits" for name, kept in zip(names, both, strict=True) if kept
        }
        for edge in circuit:
            low, high = circuit.interval(edge)
            assert low > 0 or high < 0

    def test_one_prompt_has_no_interval(self):
        effects = Effects.from_arrays(
            [0.5], [1.0], [0.0], request="9.9 -> logits", shape=json.dumps(asdict(SHAPE))
        )
        circuit = Circuit.from_effects(effects)
        assert dict(circuit.known) == {circuit.edges[0]: Weight(-0.5)}


class TestRefusals:
    def test_activation_patching_has_no_edges(self):
        with pytest.raises(CircuitError, match="'head => logits' patches no single edges"):
            Circuit.from_effects(heads("head => logits"))

    def test_several_metrics(self):
        patched = np.ones((2, 1, 3))
        two = {"metric": ["logit difference", "p"], "sender": ["9.9"]}
        effects = Effects.from_arrays(
            patched, np.ones((2, 3)), np.zeros((2, 3)), two, request="[9.9] -> logits"
        )
        with pytest.raises(CircuitError, match=r"several metrics \(logit difference, p\): choose"):
            Circuit.from_effects(effects, shape=SHAPE)

    def test_no_shape_or_request(self):
        bare = Effects.from_arrays([0.5], [1.0], [0.0], request="9.9 -> logits")
        with pytest.raises(CircuitError, match=r"give shape=ModelShape\(...\)"):
            Circuit.from_effects(bare)
        assert len(Circuit.from_effects(bare, shape=ModelGraph(SHAPE))) == 1
        silent = Effects.from_arrays([0.5], [1.0], [0.0])
        with pytest.raises(CircuitError, match="they have no request"):
            Circuit.from_effects(silent, shape=SHAPE)

    def test_coordinates_that_are_gone(self):
        effects = effects_of("head -> logits", [0.5], {"layer": [9]})
        with pytest.raises(CircuitError, match="no coordinate 'head', which their request sweeps"):
            Circuit.from_effects(effects)

    def test_cells_that_the_request_does_not_list(self):
        effects = effects_of("[9.9, 9.6] -> logits", [0.5], {"sender": ["10.0"]})
        with pytest.raises(CircuitError, match=r"a cell '10.0', but their request lists 9.9, 9.6"):
            Circuit.from_effects(effects)

    def test_numbers_out_of_range(self):
        with pytest.raises(CircuitError, match="top must be a whole number of at least 0, got -1"):
            Circuit.from_effects(heads(), top=-1)
