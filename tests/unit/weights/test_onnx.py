from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos.errors import ModelRejected
from llmos.weights import inspect
from llmos.weights.onnx import read_header
from tests.unit.onnx_file import field, graph, model, number, tensor, value


def write(folder: Path, data: bytes) -> Path:
    path = folder / "m.onnx"
    path.write_bytes(data)
    return path


def test_what_a_file_says(tmp_path: Path) -> None:
    data = model(graph([value("x"), value("w")], [value("y")], [tensor("w", [3, 4])]))
    header = read_header(write(tmp_path, data))
    assert (header.inputs, header.outputs) == (["x"], ["y"])
    assert header.num_parameters == 12
    assert header.size_bytes == len(data)


@pytest.mark.parametrize("external", [field(13, field(1, b"location")), number(14, 1)])
@pytest.mark.parametrize("is_inside", [False, True])
def test_weights_in_another_file(tmp_path: Path, external: bytes, is_inside: bool) -> None:
    """Also in a node's attribute, and in a graph inside of one."""
    outer = graph([value("x")], [value("y")], [] if is_inside else [tensor("w", [1], external)])
    if is_inside:
        inner = graph([], [], [tensor("w", [1], external)])
        outer += field(1, field(5, field(6, inner)))
    with pytest.raises(ModelRejected, match="another file"):
        read_header(write(tmp_path, model(outer)))


def test_graphs_without_end(tmp_path: Path) -> None:
    inner = graph([], [], [])
    for _ in range(40):
        inner = field(1, field(5, field(6, inner)))
    with pytest.raises(ModelRejected, match="too deep"):
        read_header(write(tmp_path, model(graph([value("x")], [value("y")], []) + inner)))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"x",
        b"\x08\x01",
        b"\x3a\xff\xff\xff\xff\x0f",
        b"\xff" * 20,
        model(b""),
        field(7, b"\x5a\x05a"),
    ],
)
def test_files_that_are_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelRejected, match=r"m\.onnx"):
        read_header(write(tmp_path, data))


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_damage_is_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(model(graph([value("x")], [value("y")], [tensor("w", [300, 2])])))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(whole)))
    with contextlib.suppress(ModelRejected):
        read_header(write(tmp_path, bytes(whole[:cut])))


def test_silero(test_data: Path) -> None:
    facts = inspect(test_data / "models" / "silero_vad")
    assert (facts.format, facts.architecture) == ("onnx", "SileroVAD")
    assert facts.files == ["silero_vad.onnx"]
    assert facts.num_parameters > 300_000
    assert facts.kv_bytes_per_token == 0


def test_one_that_says_nothing_of_itself(tmp_path: Path) -> None:
    write(tmp_path, model(graph([value("x")], [value("y")], [])))
    with pytest.raises(ModelRejected, match="nothing says what it is for"):
        inspect(tmp_path)


def test_several_in_a_folder(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        (tmp_path / name).write_bytes(model(graph([value("x")], [value("y")], [])))
    with pytest.raises(ModelRejected, match=r"2 ONNX files.*a\.onnx, b\.onnx"):
        inspect(tmp_path)
