from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.errors import ModelRejected
from llmos.weights.safetensors import read_tensors
from tests.unit.model_folder import SHAPES, raw_safetensors, safetensors_bytes


def _entry(dtype: Any = "F32", shape: Any = (2,), offsets: Any = (0, 8), **more: Any) -> Any:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def _read(tmp_path: Path, data: bytes) -> Any:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    return read_tensors(path)


def test_reads_what_is_there(tmp_path: Path) -> None:
    tensors = _read(tmp_path, safetensors_bytes(SHAPES))
    assert [(t.name, list(t.shape)) for t in tensors] == list(SHAPES.items())


def test_spaces_after_the_header_and_empty_tensors_are_fine(tmp_path: Path) -> None:
    header = {"a": _entry(shape=[0], offsets=[0, 0]), "b": _entry()}
    padded = json.dumps(header).encode() + b"   "
    assert len(_read(tmp_path, raw_safetensors(padded, bytes(8)))) == 2


def test_sub_byte_elements(tmp_path: Path) -> None:
    header = {"a": _entry("F4", [4], [0, 2])}
    assert _read(tmp_path, raw_safetensors(header, bytes(2)))[0].num_elements == 4


REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too short"),
    "header longer than the file": (struct.pack("<Q", 100) + b"{}", "truncated"),
    "header absurd": (struct.pack("<Q", 1 << 63) + b"{}", "over the limit"),
    "garbage": (raw_safetensors(b"\x00garbage", b""), "not valid JSON"),
    "a list": (raw_safetensors([], b""), "expected a JSON object"),
    "no tensors": (raw_safetensors({}, b""), "holds no tensors"),
    "duplicate": (raw_safetensors(b'{"a": 1, "a": 2}', b""), "duplicate key 'a'"),
    "metadata of numbers": (raw_safetensors({"__metadata__": {"a": 1}}, b""), "__metadata__"),
    "data cut off": (raw_safetensors({"a": _entry()}, bytes(7)), "truncated file"),
    "data left over": (raw_safetensors({"a": _entry()}, bytes(9)), "not all accounted for"),
    "hole before": (raw_safetensors({"a": _entry(offsets=[4, 12])}, bytes(12)), "not all"),
    "overlap": (
        raw_safetensors({"a": _entry(), "b": _entry(offsets=[4, 12])}, bytes(12)),
        "'a' and 'b' overlap",
    ),
    "hole": (
        raw_safetensors({"a": _entry(), "b": _entry(offsets=[9, 17])}, bytes(17)),
        "'a' and 'b' leave a hole",
    ),
    "offsets backwards": (raw_safetensors({"a": _entry(offsets=[8, 0])}, bytes(8)), "does not"),
    "offsets negative": (raw_safetensors({"a": _entry(offsets=[-8, 0])}, b""), "bad data_offsets"),
    "offsets three": (raw_safetensors({"a": _entry(offsets=[0, 4, 8])}, b""), "bad data_offsets"),
    "offsets true": (raw_safetensors({"a": _entry(offsets=[False, 8])}, b""), "bad data_offsets"),
    "shape negative": (raw_safetensors({"a": _entry(shape=[-2])}, bytes(8)), "bad shape"),
    "shape float": (raw_safetensors({"a": _entry(shape=[2.0])}, bytes(8)), "bad shape"),
    "shape long": (raw_safetensors({"a": _entry(shape=[1] * 99)}, bytes(8)), "bad shape"),
    "shape wrong": (raw_safetensors({"a": _entry(shape=[3])}, bytes(8)), "does not fill"),
    "dtype unknown": (raw_safetensors({"a": _entry("F5")}, bytes(8)), "unknown dtype"),
    "dtype a list": (raw_safetensors({"a": _entry(["F32"])}, bytes(8)), "unknown dtype"),
    "field missing": (raw_safetensors({"a": {"dtype": "F32"}}, b""), "must have exactly"),
    "field too many": (raw_safetensors({"a": _entry(x=1)}, bytes(8)), "must have exactly"),
    "name with a control": (raw_safetensors({"a\n": _entry()}, bytes(8)), "bad name"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, tmp_path: Path) -> None:
    data, reason = REFUSED[name]
    with pytest.raises(ModelRejected, match=reason) as caught:
        _read(tmp_path, data)
    assert caught.value.message.startswith("model.safetensors: ")


@given(cut=st.integers(0, 400), flip=st.integers(0, 400), bits=st.integers(1, 255))
@settings(max_examples=60, deadline=None)
def test_damage_is_refused_or_harmless(
    cut: int, flip: int, bits: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever one damaged byte or a cut does, it never is another exception."""
    data = bytearray(safetensors_bytes(SHAPES))
    data[flip % len(data)] ^= bits
    for damaged in (data, safetensors_bytes(SHAPES)[: -1 - cut]):
        try:
            tensors = _read(tmp_path_factory.mktemp("m"), bytes(damaged))
        except ModelRejected:
            continue
        assert damaged is data
        assert sum(t.end - t.begin for t in tensors) == 192
