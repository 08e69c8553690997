"""GGUF headers, whole and hostile, and the facts in them."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmos.errors import ModelRejected
from llmos.weights import inspect
from llmos.weights.gguf import read_header
from tests.unit.gguf_file import (
    ARRAY,
    FLOAT32,
    INT32,
    STRING,
    UINT32,
    gguf_bytes,
    make_gguf,
    tensor_entry,
    tensors_of,
    text,
    values_of,
)

VALUES = values_of()
TENSORS = tensors_of()


def rejected(folder: Path, data: bytes, match: str) -> None:
    path = folder / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(ModelRejected, match=match) as caught:
        inspect(folder)
    assert caught.value.message.startswith("m.gguf: ")
    assert len(caught.value.message) < 500


def test_facts(tmp_path: Path) -> None:
    path = make_gguf(tmp_path)
    facts = inspect(tmp_path)
    assert (facts.format, facts.architecture, facts.dtype) == ("gguf", "llama", "float32")
    assert (facts.context_length, facts.vocab_size, facts.hidden_size) == (256, 300, 32)
    assert (facts.num_layers, facts.num_heads, facts.num_kv_heads, facts.head_dim) == (2, 4, 2, 8)
    assert facts.num_parameters == sum(t.size for t in TENSORS.values())
    assert facts.weights_bytes == 4 * facts.num_parameters
    assert facts.kv_bytes_per_token == 2 * 2 * 2 * 8 * 4
    assert facts.has_chat_template
    assert not facts.tied
    assert (facts.license, facts.files, facts.quantization) == ("mit", [path.name], "")
    assert facts.footprint_bytes > facts.weights_bytes


def test_the_card_beside_it_names_the_licence(tmp_path: Path) -> None:
    make_gguf(tmp_path, template=False)
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    facts = inspect(tmp_path)
    assert (facts.license, facts.has_chat_template) == ("apache-2.0", False)


def test_real_file(test_data: Path) -> None:
    facts = inspect(test_data / "models", ["stories260k.gguf"])
    assert (facts.vocab_size, facts.context_length, facts.num_layers) == (512, 512, 5)
    assert facts.kv_bytes_per_token == 5 * 2 * 4 * 8 * 4


def test_quantized_weights_are_told(tmp_path: Path) -> None:
    values = VALUES | {"llama.attention.head_count_kv": (ARRAY, (INT32, [2, 1]))}
    data = gguf_bytes(values, TENSORS)
    head = data.index(text("token_embd.weight"))
    # 300 rows of 32 elements in blocks of Q8_0, 34 bytes each
    entry = tensor_entry("token_embd.weight", (32, 300), 8, 0)
    end = head + len(entry)
    size = 300 * 34 + -(300 * 34) % 32
    moved = bytearray(data[:head] + entry + data[end:])
    at = end
    for _ in range(len(TENSORS) - 1):  # everybody else begins that much earlier
        (length,) = struct.unpack_from("<Q", moved, at)
        (dimensions,) = struct.unpack_from("<I", moved, at + 8 + length)
        at += 8 + length + 4 + 8 * dimensions + 4
        (begin,) = struct.unpack_from("<Q", moved, at)
        struct.pack_into("<Q", moved, at, begin - 300 * 32 * 4 + size)
        at += 8
    begin = at + -at % 32
    path = tmp_path / "q.gguf"
    path.write_bytes(bytes(moved[:begin]) + bytes(size) + bytes(moved[begin + 300 * 32 * 4 :]))
    facts = inspect(tmp_path)
    header = read_header(path)
    assert header.tensors[0].size_bytes == 300 * 34
    assert (facts.kv_dtype, facts.num_kv_heads) == ("float16", 2)


def spoiled(**keys: Any) -> bytes:
    values = {k: v for k, v in (VALUES | keys).items() if v is not None}
    return gguf_bytes(values, TENSORS)


HEAD = b"GGUF" + struct.pack("<I", 3)

BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "empty": (lambda: b"", "too short"),
    "magic": (lambda: b"GGML" + bytes(60), "no GGUF"),
    "version 1": (lambda: b"GGUF" + struct.pack("<I", 1) + bytes(60), "version 1"),
    "big endian": (lambda: b"GGUF" + struct.pack(">I", 3) + bytes(60), "big-endian"),
    "no tensors": (lambda: HEAD + struct.pack("<QQ", 0, 0) + bytes(40), "holds no tensors"),
    "many tensors": (lambda: HEAD + struct.pack("<QQ", 1 << 60, 0) + bytes(40), "over the limit"),
    "many keys": (lambda: HEAD + struct.pack("<QQ", 1, 1 << 63) + bytes(40), "over the limit"),
    "long key": (
        lambda: HEAD + struct.pack("<QQQ", 1, 1, 1 << 40) + bytes(40),
        "over the limit of 256",
    ),
    "long string": (
        lambda: HEAD + struct.pack("<QQ", 1, 1) + text("a") + struct.pack("<IQ", 8, 1 << 62),
        "over the limit",
    ),
    "long array": (
        lambda: HEAD + struct.pack("<QQ", 1, 1) + text("a") + struct.pack("<IIQ", 9, 4, 1 << 62),
        "over the limit",
    ),
    "array past the end": (
        lambda: HEAD + struct.pack("<QQ", 1, 1) + text("a") + struct.pack("<IIQ", 9, 4, 1 << 20),
        "truncated",
    ),
    "array of arrays": (
        lambda: HEAD + struct.pack("<QQ", 1, 1) + text("a") + struct.pack("<IIQ", 9, 9, 1),
        "array of type 9",
    ),
    "unknown type": (
        lambda: HEAD + struct.pack("<QQ", 1, 1) + text("a") + struct.pack("<IQ", 77, 1),
        "unknown type 77",
    ),
    "not a flag": (
        lambda: HEAD + struct.pack("<QQ", 1, 1) + text("a") + struct.pack("<IB", 7, 2) + bytes(9),
        "neither true nor false",
    ),
    "not UTF-8": (
        lambda: HEAD + struct.pack("<QQQ", 1, 1, 2) + b"\xff\xfe" + bytes(40),
        "not UTF-8",
    ),
    "twice the same key": (
        lambda: gguf_bytes(VALUES | {"general.namf": (STRING, "x")}, TENSORS).replace(
            b"general.namf", b"general.name"
        ),
        "there twice",
    ),
    "no architecture": (
        lambda: spoiled(**{"general.architecture": None}),
        "general.architecture is missing",
    ),
    "architecture that is no word": (
        lambda: spoiled(**{"general.architecture": (STRING, "a b\n")}),
        "general.architecture must be",
    ),
    "no context": (
        lambda: spoiled(**{"llama.context_length": None}),
        "llama.context_length is missing",
    ),
    "context of text": (
        lambda: spoiled(**{"llama.context_length": (STRING, "1")}),
        "llama.context_length must be",
    ),
    "no layers": (lambda: spoiled(**{"llama.block_count": (UINT32, 0)}), "block_count must be"),
    "no vocabulary": (
        lambda: spoiled(**{"tokenizer.ggml.tokens": None}),
        "it has no vocabulary",
    ),
    "too few scores": (
        lambda: spoiled(**{"tokenizer.ggml.scores": (ARRAY, (FLOAT32, [0.0]))}),
        "scores does not go with 300",
    ),
    "kinds of another type": (
        lambda: spoiled(**{"tokenizer.ggml.token_type": (ARRAY, (FLOAT32, [0.0] * 300))}),
        "token_type does not go with",
    ),
    "alignment of 3": (
        lambda: spoiled(**{"general.alignment": (UINT32, 3)}),
        "not a power of two",
    ),
    "alignment of 0": (
        lambda: spoiled(**{"general.alignment": (UINT32, 0)}),
        "not a power of two",
    ),
    "alignment of text": (
        lambda: spoiled(**{"general.alignment": (STRING, "32")}),
        "no 32-bit number",
    ),
    "narrow embedding": (
        lambda: spoiled(**{"llama.embedding_length": (UINT32, 31)}),
        r"token_embd.weight is \[32, 300\]",
    ),
    "no embedding": (
        lambda: gguf_bytes(VALUES, {k: v for k, v in TENSORS.items() if k != "token_embd.weight"}),
        "token_embd.weight is missing",
    ),
    "cut by a byte": (lambda: gguf_bytes(VALUES, TENSORS)[:-1], "truncated"),
    "cut in the header": (lambda: gguf_bytes(VALUES, TENSORS)[:5000], "truncated"),
    "something behind": (lambda: gguf_bytes(VALUES, TENSORS) + bytes(64), "follow the last"),
}


@pytest.mark.parametrize("what", BAD)
def test_hostile_files_are_refused_by_name(tmp_path: Path, what: str) -> None:
    make, match = BAD[what]
    rejected(tmp_path, make(), match)


@pytest.mark.parametrize(
    ("entry", "match"),
    [
        (tensor_entry("a" * 64, (4,), 0, 0), "over the limit of 63"),
        (tensor_entry("", (4,), 0, 0), "bad name"),
        (tensor_entry("a\n", (4,), 0, 0), "bad name"),
        (tensor_entry("a", (), 0, 0), "0 dimensions"),
        (tensor_entry("a", (1,) * 5, 0, 0), "5 dimensions"),
        (tensor_entry("a", (4, 0), 0, 0), "bad shape"),
        (tensor_entry("a", (1 << 40, 1 << 40), 0, 0), "bad shape"),
        (tensor_entry("a", (1 << 62,), 0, 0), "truncated"),
        (tensor_entry("a", (4,), 4, 0), "unknown type 4"),
        (tensor_entry("a", (33,), 8, 0), "do not divide into Q8_0"),
        (tensor_entry("a", (4,), 0, 32), "overlap or hole"),
        (tensor_entry("a", (4,), 0, (1 << 64) - 32), "overlap or hole"),
    ],
)
def test_hostile_tensors_are_refused(tmp_path: Path, entry: bytes, match: str) -> None:
    data = HEAD + struct.pack("<QQ", 1, 0) + entry
    rejected(tmp_path, data + bytes(-len(data) % 32) + bytes(16), match)


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    entries = tensor_entry("a", (8,), 0, 0) + tensor_entry("a", (8,), 0, 32)
    data = HEAD + struct.pack("<QQ", 2, 0) + entries
    rejected(tmp_path, data + bytes(-len(data) % 32) + bytes(64), "'a' is there twice")


def test_any_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    """No byte of the header, flipped, makes anything but a rejection or facts."""
    data = gguf_bytes(VALUES, {"token_embd.weight": np.zeros((300, 32), np.float32)})
    rng = random.Random(5)
    path = tmp_path / "m.gguf"
    num_refused = 0
    for _ in range(400):
        at = rng.randrange(len(data) - 300 * 32 * 4)
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
        try:
            inspect(tmp_path)
        except ModelRejected:
            num_refused += 1
    assert 20 < num_refused < 400


def test_several_files_are_several_models(tmp_path: Path) -> None:
    make_gguf(tmp_path, "a.gguf")
    make_gguf(tmp_path, "b.gguf")
    with pytest.raises(ModelRejected, match=r"2 GGUF files.*a\.gguf, b\.gguf"):
        inspect(tmp_path)


def test_a_part_is_no_model(tmp_path: Path) -> None:
    make_gguf(tmp_path, "a-00001-of-00002.gguf")
    with pytest.raises(ModelRejected, match="one part of several"):
        inspect(tmp_path)
