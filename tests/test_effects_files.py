"""Effects in files, and effects from parts."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from circuitgraph.effects import Comparison, Effects
from circuitgraph.errors import EffectsError

NAN = float("nan")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.none() | st.booleans() | st.integers() | finite | texts


@st.composite
def any_effects(draw: st.DrawFn) -> Effects:
    kind = draw(st.sampled_from([np.float32, np.float64]))
    width = 32 if kind is np.float32 else 64
    numbers = st.floats(allow_nan=False, allow_infinity=False, width=width)
    layers, n_prompts = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    named = draw(st.booleans())
    patched = draw(hnp.arrays(kind, (layers, n_prompts), elements=numbers))
    patched[draw(hnp.arrays(bool, layers))] = NAN
    clean, corrupt = (draw(hnp.arrays(kind, n_prompts, elements=numbers)) for _ in range(2))
    names = draw(st.lists(texts, min_size=layers, max_size=layers, unique=True))
    # NumPy's texts end at their last character that is not a zero byte.
    names = [f"{number}{name}x" for number, name in enumerate(names)]
    attrs = draw(st.dictionaries(texts, plain | st.lists(plain, max_size=2), max_size=4))
    sweep = {"sender": names} if named else {"layer": range(layers)}
    made = Effects.from_arrays(patched, clean, corrupt, sweep)
    return Effects(made.data.assign_attrs(attrs))


@given(effects=any_effects())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_gives_back_what_went_in(effects: Effects, tmp_path: Path) -> None:
    again = Effects.load(effects.save(tmp_path / "effects.json"))
    assert again == effects
    for name in effects.data.variables:
        before, after = effects.data[name], again.data[name]
        assert before.dtype.kind == after.dtype.kind
        if before.dtype.kind == "f":
            assert before.dtype == after.dtype
            assert before.values.tobytes() == after.values.tobytes() or np.isnan(before).any()
    assert list(map(type, again.attrs.values())) == list(map(type, effects.attrs.values()))


def test_everything_survives(tmp_path: Path) -> None:
    effects = Effects(
        Effects.from_arrays(
            np.array([[[[1 / 3, -0.0]], [[NAN, NAN]]]], dtype=np.float32),
            np.array([[1e-30, 2.0]], dtype=np.float32),
            np.array([[0.1, 0.2]], dtype=np.float32),
            {"metric": ["é <b>"], "layer": [0, 5], "position": ["S2"]},
            request="mlp@each -> logits",
            nothing=None,
            values=[1, 2.5, "x", True],
        ).data.assign(text=("prompt", ["a", "ß"]), flag=("prompt", [True, False]))
    )
    again = Effects.load(str(effects.save(str(tmp_path / "e.json"))))
    assert again == effects
    assert np.signbit(again.data["patched"].values[0, 0, 0, 1])
    assert again.data["flag"].dtype == bool
    assert not list(tmp_path.glob("*.partial"))


def test_the_file_is_plain_json_as_documented(tmp_path: Path) -> None:
    effects = Effects.from_arrays(
        [[0.1], [NAN]], [2.0], [0.0], {"layer": [9, 10]}, request="mlp -> logits"
    )
    document = json.loads(effects.save(tmp_path / "e.json").read_text(encoding="utf-8"))
    assert document.pop("checksum").startswith("sha256:")
    assert document == {
        "format": "circuitgraph effects",
        "version": 1,
        "attrs": {"request": "mlp -> logits"},
        "coords": {
            "layer": array(["layer"], [2], "int64", [9, 10]),
            "prompt": array(["prompt"], [1], "int64", [0]),
        },
        "variables": {
            "patched": array(["layer", "prompt"], [2, 1], "float64", [0.1, None]),
            "clean": array(["prompt"], [1], "float64", [2.0]),
            "corrupt": array(["prompt"], [1], "float64", [0.0]),
        },
    }


def array(dims: list[str], shape: list[int], dtype: str, values: list[object]) -> dict[str, object]:
    return {"dims": dims, "shape": shape, "dtype": dtype, "values": values, "attrs": {}}


def test_wrong_files_say_what_was_expected(tmp_path: Path) -> None:
    expected = "expected a JSON file written by Effects.save"
    effects = Effects.from_arrays([1.0], [2.0], [0.0])
    with pytest.raises(EffectsError, match=f"no file '.*missing.json': {expected}"):
        Effects.load(tmp_path / "missing.json")
    with pytest.raises(EffectsError, match=f"no file '.*': {expected}"):
        Effects.load(tmp_path)
    path = tmp_path / "wrong.json"
    for content in (b"\x89PNG\r\n\x1a\n", b"not json", b""):
        path.write_bytes(content)
        with pytest.raises(EffectsError, match=rf"wrong.json' holds no JSON \(.*\): {expected}"):
            Effects.load(path)
    for content in ("[1, 2]", '{"format": "other"}'):
        path.write_text(content)
        with pytest.raises(EffectsError, match=f"\"format\": 'circuitgraph effects' .*{expected}"):
            Effects.load(path)
    Comparison({"a": effects, "b": effects}).save(path)
    with pytest.raises(EffectsError, match=r"it was written by Comparison\.save"):
        Effects.load(path)
    effects.save(path)
    text = path.read_text()
    path.write_text(text.replace('"version": 1', '"version": 99'))
    with pytest.raises(EffectsError, match=r"has version 99 .* reads version 1"):
        Effects.load(path)
    path.write_text(text.replace('"variables"', '"somewhere"'))
    with pytest.raises(EffectsError, match="is damaged: 'variables' is missing"):
        Effects.load(path)
    path.write_text(text.replace('"shape": [1]', '"shape": [2]'))
    with pytest.raises(EffectsError, match="is damaged: cannot reshape"):
        Effects.load(path)
    with pytest.raises(EffectsError, match=r"cannot write '.*': there is no folder '.*nowhere'"):
        effects.save(tmp_path / "nowhere" / "e.json")


@pytest.mark.parametrize("value", ['"x"', "{}", "null", "[[1]]", '{"patched": 3}'])
def test_no_damage_gets_past_the_reader(tmp_path: Path, value: str) -> None:
    path = Effects.from_arrays([1.0], [2.0], [0.0]).save(tmp_path / "e.json")
    document = json.loads(path.read_text())
    for key in ("attrs", "coords", "variables"):
        if key in ("attrs", "coords") and value == "{}":
            continue  # nothing to say is fine
        if key == "attrs" and value == '{"patched": 3}':
            continue
        path.write_text(json.dumps(document | {key: json.loads(value)}))
        with pytest.raises(EffectsError):
            Effects.load(path)


# -- parts -------------------------------------------------------------------------------------


def whole(**attrs: object) -> Effects:
    rng = np.random.default_rng(0)
    patched = rng.normal(size=(4, 3, 5))
    patched[3, 2] = NAN
    clean, corrupt = rng.normal(5, 1, 5), rng.normal(0, 1, 5)
    attrs = {"request": "head -> logits", "variant": "mlps", "n_prompts": 5} | attrs
    return Effects.from_arrays(
        patched, clean, corrupt, {"layer": range(4), "head": range(3)}, **attrs
    )


def test_pieces_of_a_sweep_join_along_a_dimension() -> None:
    effects = whole()
    pieces = [effects.sel(layer=[0]), effects.sel(layer=[1, 2]), effects.sel(layer=[3])]
    assert Effects.concat(pieces, "layer") == effects
    single = [effects.sel(layer=layer) for layer in range(4)]
    assert Effects.concat(single, "layer") == effects
    assert Effects.concat([effects]) == effects


def test_batches_of_prompts_join_and_are_numbered_through() -> None:
    effects = whole()
    batches = [effects.sel(prompt=[0, 1]), effects.sel(prompt=[2, 3, 4])]
    assert Effects.concat(batches, "prompt") == effects
    counted = [
        Effects(batch.data.assign_coords(prompt=np.arange(batch.n_prompts))) for batch in batches
    ]
    assert Effects.concat(counted, "prompt") == effects
    named = [
        Effects(batch.data.assign_coords(prompt=[f"{number} {n}" for n in range(batch.n_prompts)]))
        for number, batch in enumerate(batches)
    ]
    joined = Effects.concat(named, "prompt").data["prompt"].to_numpy().tolist()
    assert joined == ["0 0", "0 1", "1 0", "1 1", "1 2"]


def test_metrics_join() -> None:
    first, second = whole(metric="logit difference"), whole(metric="probability")
    named = [Effects(one.data.assign_coords(metric=one.attrs["metric"])) for one in (first, second)]
    both = Effects.concat(named, "metric")
    assert both.dims == ("metric", "layer", "head")
    assert both.data["clean"].dims == ("metric", "prompt")
    assert both.sel(metric="probability").normalized().equals(named[1].normalized())


def test_parts_of_one_grid_fill_each_other_in() -> None:
    effects = whole()
    values = effects.data["patched"].values
    mask = np.random.default_rng(1).integers(0, 3, values.shape[:2])
    parts = [
        Effects(
            effects.data.assign(
                patched=(("layer", "head", "prompt"), np.where((mask == n)[..., None], values, NAN))
            )
        )
        for n in range(3)
    ]
    assert Effects.concat(parts) == effects
    rest = [
        effects.sel(layer=[2, 3]),
        effects.sel(layer=[0, 1], head=[1]),
        effects.sel(head=[0, 2]),
    ]
    assert Effects.concat(rest) == effects  # parts that overlap and agree
    listed = [
        Effects.from_arrays(
            [[1.0]], [2.0], [0.0], {"sender": [name]}, request=f"[{name}] -> logits"
        )
        for name in ("mlp3", "9.6", "0.1")
    ]
    joined = Effects.concat(listed)
    assert joined.cells() == ("mlp3", "9.6", "0.1")
    assert joined.attrs["request"] == "[mlp3] -> logits; [9.6] -> logits; [0.1] -> logits"


def test_parts_that_do_not_belong_together_are_refused() -> None:
    effects = whole()
    data = effects.data
    with pytest.raises(EffectsError, match="nothing to join: there are no parts"):
        Effects.concat([])
    with pytest.raises(EffectsError, match="more than one part has layer 1; without a dimension"):
        Effects.concat([effects.sel(layer=[0, 1]), effects.sel(layer=[1])], "layer")
    other = Effects.from_arrays([[1.0] * 5], data["clean"], data["corrupt"], {"sender": ["a"]})
    with pytest.raises(EffectsError, match=r"part 2 has the dimensions .* no value of 'sender'"):
        Effects.concat([other, effects], "sender")
    with pytest.raises(EffectsError, match="part 2 differs from part 1 in 'head' too"):
        Effects.concat([effects.sel(layer=[0]), effects.sel(layer=[1], head=[0])], "layer")
    moved = Effects(data.assign(clean=data["clean"] + np.array([0, 0, 0.5, 0, 0])))
    message = r"part 1 and part 2 were not measured on the same prompts: clean is .* on prompt 2"
    for dim in (None, "layer"):
        with pytest.raises(EffectsError, match=message):
            Effects.concat([effects.sel(layer=[0]), moved.sel(layer=[1])], dim)
    with pytest.raises(EffectsError, match="on the same prompts: 5 prompts against 2"):
        Effects.concat([effects, effects.sel(prompt=[0, 1])])
    with pytest.raises(EffectsError, match="variant is 'mlps' against 'single-pass'"):
        Effects.concat([effects.sel(layer=[0]), whole(variant="single-pass").sel(layer=[1])])
    changed = Effects(data.assign(patched=data["patched"] + 0.5))
    with pytest.raises(
        EffectsError, match=r"part 2 fills cells .* other values \(up to 0.5 apart\)"
    ):
        Effects.concat([effects, changed])
    with pytest.raises(EffectsError, match=r"part 2 has the cell dimensions \(head\), part 1 has"):
        Effects.concat([effects, effects.sel(layer=0)])
    other_metric = [
        Effects(one.data.expand_dims(metric=[name]))
        for one, name in ((effects, "a"), (effects, "b"))
    ]
    with pytest.raises(EffectsError, match="part 2 has other metrics: join along 'metric' instead"):
        Effects.concat(other_metric)
    with pytest.raises(EffectsError, match=r"other grids: layer is 0 against 1; .*'layer'\) joins"):
        Effects.concat([effects.sel(layer=0), effects.sel(layer=1)])
    lengths = [Effects(data.assign(length=("prompt", np.arange(5) + n))) for n in range(2)]
    with pytest.raises(EffectsError, match="part 2 has other values of 'length' than part 1"):
        Effects.concat([lengths[0].sel(layer=[0]), lengths[1].sel(layer=[1])], "layer")
    with pytest.raises(EffectsError, match="cannot join along 'layer': "):
        Effects.concat([effects.sel(layer=[0], head=1), effects.sel(layer=[1], head=2)], "layer")
    text = Effects(data.assign(text=xr.DataArray(list("abcde"), dims="prompt")))
    pieces = [text.sel(layer=[0]), effects.sel(layer=[1])]
    for parts in (pieces, pieces[::-1]):
        with pytest.raises(EffectsError, match="only some parts have 'text'"):
            Effects.concat(parts, "layer")
        assert Effects.concat(parts).data["text"].to_numpy().tolist() == list("abcde")


def test_unknown_attributes_survive_where_they_agree() -> None:
    parts = [whole(run=1, seed=3).sel(layer=[0]), whole(run=2, seed=3).sel(layer=[1])]
    assert Effects.concat(parts, "layer").attrs == {
        "request": "head -> logits",
        "variant": "mlps",
        "n_prompts": 5,
        "seed": 3,
    }


def test_no_cell_of_a_table_is_a_formula(tmp_path: Path) -> None:
    names = ["=1+1", "+x", "-y", "@z", "\tq", "9.6"]
    swept = {"sender": names, "=cmd": [1, 2]}
    effects = Effects.from_arrays(np.full((6, 2, 2), -1.5), [4.0, 2.0], [0.0, 0.0], swept)
    with effects.to_csv(tmp_path / "cells.csv").open(newline="", encoding="utf-8") as file:
        header, *rows = csv.reader(file)
    assert "'=cmd" in header
    assert "=cmd" not in header
    at = header.index("sender")
    assert [row[at] for row in rows[::2]] == ["'=1+1", "'+x", "'-y", "'@z", "'\tq", "9.6"]
    for row in rows:
        for cell in row:
            assert not cell.startswith(("=", "+", "@", "\t"))
            if cell.startswith("-"):
                float(cell)  # a number stays a number
