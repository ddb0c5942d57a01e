"""The reader of GGUF files, on files of a few bytes written here."""

import struct

import numpy as np
import pytest
import torch

from circuitgraph.errors import ModelError
from circuitgraph.models.gguf import read_gguf

F32, F16, Q4_1, Q8_0 = 0, 1, 3, 8


def text(value):
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def field(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def strings(*values):
    return struct.pack("<IQ", 8, len(values)) + b"".join(map(text, values))


def gguf(fields=(), tensors=(), version=3, magic=b"GGUF", alignment=32):
    """The bytes of a file: `fields` are packed, `tensors` are (name, shape, packing, bytes)."""
    head, data = magic + struct.pack("<IQQ", version, len(tensors), len(fields)), b""
    head += b"".join(fields)
    for name, shape, packing, raw in tensors:
        dims = tuple(reversed(shape))
        head += text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, packing, len(data))
        data += raw + bytes(-len(raw) % alignment)
    return head + bytes(-len(head) % alignment) + data


@pytest.fixture
def write(tmp_path):
    def written(raw):
        path = tmp_path / "tiny.gguf"
        path.write_bytes(raw)
        return path

    return written


def test_fields_of_every_kind(write):
    file = read_gguf(
        write(
            gguf(
                [
                    field("name", 8, text("tiny ☕")),
                    field("layers", 4, struct.pack("<I", 7)),
                    field("scale", 6, struct.pack("<f", 0.5)),
                    field("flag", 7, b"\x01"),
                    field("big", 10, struct.pack("<Q", 2**40)),
                    field("words", 9, strings("a", "", "b c")),
                    field("nested", 9, struct.pack("<IQ", 9, 1) + strings("x")),
                ]
            )
        )
    )
    assert file.name == "tiny.gguf"
    assert file.fields == {
        "name": "tiny ☕",
        "layers": 7,
        "scale": 0.5,
        "flag": True,
        "big": 2**40,
        "words": ["a", "", "b c"],
        "nested": [["x"]],
    }
    assert file["layers"] == 7
    with pytest.raises(ModelError, match=r"cannot read 'tiny\.gguf': it says nothing of 'heads'"):
        file["heads"]


@pytest.mark.parametrize("alignment", [32, 64])
def test_weights_of_every_packing(write, alignment):
    plain = np.array([[1.5, -2.0, 3.25]], dtype=np.float32)
    half = np.array([0.5, -1.0], dtype=np.float16)
    # 32 numbers 0..15, 15..0 in the low and high halves of 16 bytes; value = scale * number + least
    low, high = list(range(16)), list(range(15, -1, -1))
    nibbles = np.array([0.25, -1.0], dtype=np.float16).tobytes() + bytes(
        one | other << 4 for one, other in zip(low, high, strict=True)
    )
    signed = np.arange(-16, 16, dtype=np.int8)
    blocks = np.float16(0.5).tobytes() + signed.tobytes()
    fields = [field("general.alignment", 4, struct.pack("<I", alignment))]
    file = read_gguf(
        write(
            gguf(
                fields if alignment != 32 else [],
                [
                    ("plain", (1, 3), F32, plain.tobytes()),
                    ("half", (2,), F16, half.tobytes()),
                    ("nibbles", (2, 32), Q4_1, nibbles * 2),
                    ("blocks", (1, 32), Q8_0, blocks),
                ],
                alignment=alignment,
            )
        )
    )
    row = [0.25 * number - 1 for number in low + high]
    expected = {
        "plain": torch.tensor([[1.5, -2.0, 3.25]]),
        "half": torch.tensor([0.5, -1.0]),
        "nibbles": torch.tensor([row, row]),
        "blocks": torch.arange(-16, 16)[None] * 0.5,
    }
    assert file.tensors.keys() == expected.keys()
    for name, weights in expected.items():
        assert file.tensors[name].dtype == torch.float32
        assert torch.equal(file.tensors[name], weights), name


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "it is no GGUF file"),
        (gguf(magic=b"GGML"), "it is no GGUF file"),
        (gguf(version=2), "GGUF version 2, known is 3"),
        (
            gguf(tensors=[("w", (256,), 77, bytes(210))]),
            "its weights are packed in unknown kinds [77]",
        ),
        (gguf([field("layers", 4, b"\x07")])[:30], "it is cut off or damaged"),
        (gguf([field("layers", 99, b"")]), "it is cut off or damaged"),
        (gguf([field("name", 8, struct.pack("<Q", 99))]), "it is cut off or damaged"),
        (gguf(tensors=[("w", (64,), F32, b"")]), "it is cut off or damaged"),
    ],
)
def test_what_cannot_be_read(write, raw, reason):
    with pytest.raises(ModelError) as caught:
        read_gguf(write(raw))
    assert str(caught.value) == f"cannot read 'tiny.gguf': {reason}"
