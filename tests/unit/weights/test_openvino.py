from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos.errors import ModelRejected
from llmos.weights import inspect
from llmos.weights.openvino import read_ir
from tests.unit.openvino_file import CONFIG, DECODER, const, inputs, layer, make_openvino, net


def read(folder: Path, data: bytes, num_bytes: int = 64) -> object:
    (folder / "m.xml").write_bytes(data)
    (folder / "m.bin").write_bytes(bytes(num_bytes))
    return read_ir(folder / "m.xml", folder / "m.bin")


def test_what_a_folder_says(tmp_path: Path) -> None:
    facts = inspect(make_openvino(tmp_path))
    assert (facts.format, facts.architecture) == ("openvino", "LlamaForCausalLM")
    assert (facts.dtype, facts.quantization, facts.kv_dtype) == ("float32", "", "float32")
    assert facts.files == ["openvino_model.xml", "openvino_model.bin"]
    assert (facts.num_parameters, facts.weights_bytes) == (8, 64)
    assert (facts.context_length, facts.vocab_size) == (256, 300)
    assert facts.kv_bytes_per_token == 2 * 2 * 2 * 8 * 4
    assert facts.footprint_bytes > facts.weights_bytes


@pytest.mark.parametrize(
    ("constants", "dtype", "quantization"),
    [
        (const("f16", size=16), "float16", ""),
        (const("bf16", size=16) + const("i64", "1", size=8), "bfloat16", ""),
        (const("u8", size=8) + const("f16", "4,1", size=8), "float16", "openvino-int8"),
        (const("i4", "5,3", size=8) + const("f16", "5,1", size=10), "float16", "openvino-int4"),
        (const("u8", "3", size=3) + const("f32"), "float32", ""),
        ("", "float32", ""),
    ],
)
def test_types(tmp_path: Path, constants: str, dtype: str, quantization: str) -> None:
    facts = inspect(make_openvino(tmp_path, DECODER + constants))
    assert (facts.dtype, facts.quantization) == (dtype, quantization)
    exact = dtype == "float32" and not quantization
    assert facts.kv_dtype == ("float32" if exact else "float16")


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        (const(offset=40), "ends at byte 72 of 64"),
        (const(shape="4,3"), "12 f32 in 32 bytes"),
        (const(kind="string"), "'string'"),
        (const(kind="f33"), "'f33'"),
        (const(shape="-4,-2"), "shape '-4,-2'"),
        (layer("Const", data='<data element_type="f32" shape="" size="4"/>'), "without its place"),
        (layer("Evil", opset="extension"), "Evil is of 'extension'"),
        (layer("If", data=f"<then_body><layers>{const()}</layers></then_body>"), "inside"),
        ("<a>" * 80 + "</a>" * 80, "nested too deeply"),
    ],
)
def test_operations_that_are_refused(tmp_path: Path, layers: str, why: str) -> None:
    with pytest.raises(ModelRejected, match=why) as caught:
        read(tmp_path, net(layers))
    assert caught.value.message.startswith("m.xml: ")


BOMB = '<!DOCTYPE net [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]>'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no xml",
        b"<net version='11'>",
        b"<other/>",
        net("", version="10"),
        net("&b;", head=BOMB),
        net("", head='<!DOCTYPE net SYSTEM "file:///etc/passwd">'),
        b"\xff\xfe\x00" * 20,
    ],
)
def test_files_that_are_none(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(ModelRejected, match=r"m\.xml: "):
        read(tmp_path, data)


@pytest.mark.parametrize(
    ("layers", "why"),
    [
        (inputs("input_ids", "attention_mask"), "text-generation-with-past"),
        (inputs("pixel_values") + layer("ReadValue"), "takes pixel_values"),
        (inputs("input_ids", "token_type_ids") + layer("ReadValue"), "token_type_ids"),
        (layer("ReadValue"), "takes nothing"),
    ],
)
def test_models_of_another_kind(tmp_path: Path, layers: str, why: str) -> None:
    with pytest.raises(ModelRejected, match=why):
        inspect(make_openvino(tmp_path, layers))


@pytest.mark.parametrize("name", ["openvino_model.bin", "config.json", "tokenizer.json"])
def test_a_file_that_is_missing(tmp_path: Path, name: str) -> None:
    (make_openvino(tmp_path) / name).unlink()
    with pytest.raises(ModelRejected, match=f"{name}: missing"):
        inspect(tmp_path)


def test_a_number_that_is_missing(tmp_path: Path) -> None:
    make_openvino(tmp_path)
    left = {name: value for name, value in CONFIG.items() if name != "max_position_embeddings"}
    (tmp_path / "config.json").write_text(json.dumps(left))
    with pytest.raises(ModelRejected, match="max_position_embeddings is missing"):
        inspect(tmp_path)


def test_a_bin_alone_is_a_pickle(tmp_path: Path) -> None:
    (make_openvino(tmp_path) / "openvino_detokenizer.bin").write_bytes(b"\x80")
    with pytest.raises(ModelRejected, match=r"openvino_detokenizer\.bin: a pickle"):
        inspect(tmp_path)
    (tmp_path / "openvino_detokenizer.xml").write_text("<net/>")
    assert inspect(tmp_path).format == "openvino"
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80")
    (tmp_path / "pytorch_model.xml").write_text("<net/>")
    with pytest.raises(ModelRejected, match=r"pytorch_model\.bin: a pickle"):
        inspect(tmp_path)


@given(st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_damage_is_refused_or_read(tmp_path: Path, data: st.DataObject) -> None:
    whole = bytearray(net(DECODER + const()))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModelRejected):
        read(tmp_path, bytes(whole))
