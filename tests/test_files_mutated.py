"""Files with one random fault: an error of ours, or what the file meant before; never a hang.

Files of our own formats carry a checksum, so a fault that changes anything is found. MIB's format
has none: there what is read must be what the changed file says, read here independently. GGUF has
none either; the model's wheel has one for the whole file.
"""

import json
import math
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from circuitgraph.circuit import Circuit
from circuitgraph.effects import Comparison, Effects
from circuitgraph.errors import CircuitGraphError
from circuitgraph.graph import ModelShape
from circuitgraph.models.gguf import read_gguf
from tests.test_gguf import F32, Q8_0, field, gguf, strings, text

ODD = [
    "false", "true", "1", "", "9.9 -> logits", 0, 1, -1, 1.5, 2**64, 2**31, 1e300, 1e999, True,
    False, None, [], {}, [1, 2, 3], [[1]], {"a": 1}, "float64", "U1000000000", "é\0", "\ud800",
]  # fmt: skip


def spots(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value inside a JSON document."""
    entries = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in entries:
        yield (*path, key)
        if isinstance(inner, dict | list):
            yield from spots(inner, (*path, key))


def changed_inside(raw: bytes, rng: random.Random) -> bytes:
    """Change, remove or add one value of a JSON document."""
    document = json.loads(raw)
    *way, last = rng.choice(list(spots(document)))
    holder = document
    for key in way:
        holder = holder[key]
    match rng.randrange(6):
        case 0:
            del holder[last]
        case 1 if isinstance(holder, dict):
            holder[rng.choice(["extra", "weight ", "Version", "", "0.0 -> mlp0", "m0"])] = holder[
                last
            ]
        case 2 if isinstance(holder, dict):
            holder[f"{last}{rng.choice([' ', '.', 'x', '0'])}"] = holder.pop(last)
        case 3:
            if isinstance(holder[last], int | float) and not isinstance(holder[last], bool):
                holder[last] = holder[last] * rng.choice([-1, 2, 1.0000000001, 1e9]) + rng.choice(
                    [0, 1, 0.5]
                )
        case _:
            holder[last] = rng.choice(ODD)
    return json.dumps(document).encode()


def changed_as_text(raw: bytes, rng: random.Random) -> bytes:
    """Put a key twice, nest deeply, or write what other readers take for JSON."""
    words = raw.decode()
    match rng.randrange(4):
        case 0:
            at = rng.choice([n for n, letter in enumerate(words) if letter == "{"])
            key = rng.choice(["format", "weight", "score", "dims", "n_layers", "in_circuit"])
            return f'{words[: at + 1]}"{key}": 1, "{key}": 1, {words[at + 1 :]}'.encode()
        case 1:
            deep = rng.choice([60, 2000, 100_000])
            at = rng.choice([n for n, letter in enumerate(words) if letter == ":"])
            return f"{words[: at + 1]} {'[' * deep}{']' * deep}{words[at + 1 :]}".encode()
        case 2:
            at = rng.choice([n for n, letter in enumerate(words) if letter.isdigit()])
            put = rng.choice(["NaN", "Infinity", "1" * 5000, "0x10", "1e999", "-", "1_0", "٣"])
            return (words[:at] + put + words[at + 1 :]).encode()
        case _:
            return words.encode(rng.choice(["utf-16", "utf-8-sig", "utf-32"]))


def changed_bytes(raw: bytes, rng: random.Random) -> bytes:
    """Flip, remove, repeat or insert bytes, or cut the file off."""
    at, to = sorted(rng.randrange(len(raw)) for _ in range(2))
    match rng.randrange(6):
        case 0:
            return raw[:at] + bytes([rng.randrange(256)]) + raw[at + 1 :]
        case 1:
            return raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]
        case 2:
            return raw[:at] + raw[at + rng.randrange(1, 9) :]
        case 3:
            return raw[:at] + rng.randbytes(rng.randrange(1, 9)) + raw[at:]
        case 4:
            return raw[:to] + raw[at:to][:100] + raw[to:]
        case _:
            return raw[:at]


def mutated(raw: bytes, rng: random.Random, json_too: bool) -> bytes:
    kinds = [changed_bytes, changed_inside, changed_inside, changed_as_text] if json_too else []
    return rng.choice(kinds or [changed_bytes])(raw, rng)


@contextmanager
def at_most(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise AssertionError(f"still reading after {seconds} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def effects() -> Effects:
    patched = np.array([[[1 / 3, 2.0], [np.nan, np.nan]]])
    made = Effects.from_arrays(
        patched, [2.0, 3.0], [0.0, 0.5], {"layer": [3], "sender": ["9.9", "mlp3"]}, request="x", n=2
    )
    return Effects(made.data.assign(flag=("prompt", [True, False])))


def circuit() -> Circuit:
    return Circuit.from_edges(
        ModelShape(2, 2, 1, mlp_layers=(0,)),
        {"0.0 -> logits": (0.5, 0.25, 1.0), "embed -> 1.1.k": None, "mlp0 -> 1.0.q": -2},
        {"movers": ["0.0", "1.1"]},
        {"request": "x", "seeds": [1, 2.5]},
    ).restrict(["0.0", "logits", "mlp0", "1.0"])


MIB = {
    "cfg": {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8},
    "nodes": {
        name: {"in_graph": name in ("input", "a0.h0", "logits")}
        for name in ("input", "a0.h0", "a0.h1", "m0", "logits")
    },
    "edges": {
        "input->a0.h0<q>": {"score": -0.5, "in_graph": True},
        "input->a0.h1<k>": {"score": 0.25, "in_graph": False},
        "a0.h0->m0": {"score": 0.0, "in_graph": False},
        "a0.h0->logits": {"score": 1, "in_graph": True},
    },
}


def says_the_same(read: Circuit, raw: bytes) -> bool:
    """Whether a circuit holds what a file in MIB's format says, by Python's own JSON reader."""
    pairs: list[bool] = []

    def once(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs.append(len(dict(found)) == len(found))
        return dict(found)

    said = json.loads(raw, object_pairs_hook=once)
    edges = said["edges"]
    number = all(
        type(e["score"]) in (int, float) and math.isfinite(e["score"]) for e in edges.values()
    )
    truth = all(
        type(entry["in_graph"]) is bool
        for part in (edges, said["nodes"])
        for entry in part.values()
    )
    cfg = said["cfg"]
    sizes = (cfg["n_layers"], cfg["n_heads"], cfg.get("n_key_value_heads"))
    parallel = cfg.get("parallel_attn_mlp", False)
    shape = read.shape
    return (
        all(pairs)
        and number
        and truth
        and all(type(size) is int for size in sizes[:2])
        and sizes == (shape.n_layers, shape.n_heads, shape.n_kv_heads)
        and parallel is shape.parallel
        and sorted(e["score"] for e in edges.values())
        == sorted(w.value for w in read.known.values())
        and sum(entry["in_graph"] for entry in edges.values()) == len(read)
    )


def mib_survives(read: Circuit, raw: bytes, folder: Path) -> bool:
    again = folder / "again.json"
    read.to_mib(again)
    return says_the_same(read, raw) and json.loads(again.read_bytes()) == json.loads(raw)


Reader = Callable[[Path], Any]
Holds = Callable[[Any, bytes, Path], bool]


def formats(folder: Path) -> dict[str, tuple[bytes, Reader, Holds]]:
    one, both, edges = effects(), Comparison({"a": effects(), "b": effects()}), circuit()
    one.save(folder / "effects")
    both.save(folder / "comparison")
    edges.save(folder / "circuit")
    (folder / "mib").write_text(json.dumps(MIB))
    fields = [
        field("name", 8, text("tiny")),
        field("general.alignment", 4, (32).to_bytes(4, "little")),
        field("flag", 7, b"\x01"),
        field("words", 9, strings("a", "", "b c")),
    ]
    tensors = [("w", (1, 3), F32, bytes(12)), ("b", (1, 32), Q8_0, bytes(34))]
    (folder / "gguf").write_bytes(gguf(fields, tensors))
    readers: dict[str, tuple[Reader, Holds]] = {
        "effects": (Effects.load, lambda read, *_: read == one),
        "comparison": (Comparison.load, lambda read, *_: read == both),
        "circuit": (Circuit.load, lambda read, *_: read == edges),
        "mib": (Circuit.from_mib, mib_survives),
        "gguf": (read_gguf, lambda *_: True),
    }
    return {name: ((folder / name).read_bytes(), *both) for name, both in readers.items()}


@pytest.mark.parametrize("times", [150, pytest.param(3000, marks=pytest.mark.large)])
@pytest.mark.parametrize("name", ["effects", "comparison", "circuit", "mib", "gguf"])
def test_no_fault_gets_past_the_reader(name: str, times: int, tmp_path: Path) -> None:
    raw, read, holds = formats(tmp_path)[name]
    assert holds(read(tmp_path / name), raw, tmp_path)
    rng = random.Random(name)
    path, refused = tmp_path / "mutated", 0
    for number in range(times):
        fault = mutated(raw, rng, json_too=name != "gguf")
        path.write_bytes(fault)
        try:
            with at_most(10):
                found = read(path)
        except CircuitGraphError as error:
            refused += 1
            assert "mutated" in str(error), str(error)
            continue
        assert holds(found, fault, tmp_path), f"fault {number} was accepted: {fault[:2000]!r}"
    assert refused > times / 3


LOOPHOLES = {
    "texts for truth": lambda d: d["edges"]["0.0 -> logits"].update(in_circuit="false"),
    "numbers for truth": lambda d: d["edges"]["0.0 -> logits"].update(in_circuit=1),
    "three ends": lambda d: d["edges"]["0.0 -> logits"].update(interval=[0, 1, 2]),
    "texts for numbers": lambda d: d["edges"]["0.0 -> logits"].update(weight="0.5"),
    "unknown keys": lambda d: d["edges"]["0.0 -> logits"].update(score=1),
    "unknown parts": lambda d: d.update(note="x"),
    "fractions": lambda d: d["shape"].update(n_heads=2.0),
    "huge models": lambda d: d["shape"].update(n_layers=2**64),
    "large models": lambda d: d["shape"].update(n_layers=10**6),
    "edges by two names": lambda d: d["edges"].update(
        {"L0H0 -> logits": d["edges"]["0.0 -> logits"]}
    ),
    "nodes twice": lambda d: d["groups"]["movers"].append("0.0"),
}


@pytest.mark.parametrize("name", LOOPHOLES)
def test_loopholes_of_circuits_are_closed_without_a_checksum_too(name: str, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    circuit().save(path)
    data = json.loads(path.read_bytes())
    del data["checksum"]
    path.write_text(json.dumps(data))
    assert Circuit.load(path) == circuit()  # as files of earlier versions are
    LOOPHOLES[name](data)
    path.write_text(json.dumps(data))
    with pytest.raises(CircuitGraphError, match=r"c\.json"):
        Circuit.load(path)


ARRAYS = {
    "4 GB dtype": lambda a: a.update(dtype="U1000000000"),
    "objects": lambda a: a.update(dtype="object"),
    "dates": lambda a: a.update(dtype="datetime64[s]"),
    "fractions": lambda a: a.update(values=[3.5]),
    "truth": lambda a: a.update(values=[True]),
    "texts": lambda a: a.update(values=["3"]),
    "nothing": lambda a: a.update(values=[None]),
    "too large": lambda a: a.update(values=[2**64]),
    "too large for its kind": lambda a: a.update(values=[2**31], dtype="int32"),
    "another shape": lambda a: a.update(shape=[2]),
    "a shape from the end": lambda a: a.update(shape=[-1]),
    "an endless shape": lambda a: a.update(shape=[2**39, 0], dims=["layer", "x"], values=[]),
    "twice the same": lambda a: a.update(shape=[1, 1], dims=["layer", "layer"]),
    "unknown keys": lambda a: a.update(unit="m"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_loopholes_of_effects_are_closed_without_a_checksum_too(name: str, tmp_path: Path) -> None:
    path = tmp_path / "e.json"
    effects().save(path)
    data = json.loads(path.read_bytes())
    del data["checksum"]
    path.write_text(json.dumps(data))
    assert Effects.load(path) == effects()
    ARRAYS[name](data["coords"]["layer"])
    path.write_text(json.dumps(data))
    with pytest.raises(CircuitGraphError, match=r"e\.json' is damaged: .*layer"):
        Effects.load(path)


@pytest.mark.parametrize("name", ["effects", "circuit"])
def test_a_changed_number_is_found(name: str, tmp_path: Path) -> None:
    raw, read, _ = formats(tmp_path)[name]
    path = tmp_path / name
    before, after = {"effects": (b"2.0,", b"2.1,"), "circuit": (b"0.25", b"0.26")}[name]
    assert before in raw
    path.write_bytes(raw.replace(before, after, 1))
    with pytest.raises(CircuitGraphError, match="its checksum does not fit: .* take the key"):
        read(path)
    reformatted = json.dumps(json.loads(raw), indent=7)
    path.write_text(reformatted)
    read(path)
