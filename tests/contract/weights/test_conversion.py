"""A folder quantized and read back, and everything that can be wrong with one."""

from __future__ import annotations

import json
import os
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmos.drivers.catalog import choose
from llmos.errors import Conflict, DiskFull, InvalidRequest, ModelRejected
from llmos.weights import inspect, rewriting
from llmos.weights import quantization as qn
from llmos.weights.conversion import needed_bytes, quantize_folder
from llmos.weights.quantized import QuantizedFolder
from llmos.weights.safetensors import read_header
from tests.unit.model_folder import make_model, raw_safetensors

Arrays = dict[str, np.ndarray[Any, Any]]
LAYER = "model.layers.0."
NUMPY = {np.dtype("float32"): "F32", np.dtype("uint16"): "BF16", np.dtype("int8"): "I8"}
NUMPY |= {np.dtype("uint8"): "U8", np.dtype("float16"): "F16", np.dtype("int64"): "I64"}


def arrays(seed: int = 0, *, tied: bool = True) -> Arrays:
    """Of a layer of 4 columns, all of whose matrices have other shapes."""
    draws = np.random.default_rng(seed)
    shapes = {
        "model.embed_tokens.weight": (8, 4),
        f"{LAYER}self_attn.q_proj.weight": (4, 4),
        f"{LAYER}self_attn.q_proj.bias": (4,),
        f"{LAYER}input_layernorm.weight": (4,),
        f"{LAYER}mlp.down_proj.weight": (4, 200),
        f"{LAYER}mlp.up_proj.weight": (200, 4),
    }
    if not tied:
        shapes["lm_head.weight"] = (8, 4)
    return {name: draws.standard_normal(s).astype(np.float32) for name, s in shapes.items()}


def save(path: Path, tensors: Arrays, metadata: dict[str, str] | None = None) -> None:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    at = 0
    for name, array in tensors.items():
        end = at + array.nbytes
        dtype = NUMPY[array.dtype]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [at, end]}
        at = end
    path.write_bytes(raw_safetensors(header, b"".join(a.tobytes() for a in tensors.values())))


def model(folder: Path, tensors: Arrays | None = None, **config: Any) -> Path:
    make_model(folder, **config)
    save(folder / "model.safetensors", arrays() if tensors is None else tensors, {"format": "pt"})
    return folder


def load(path: Path) -> tuple[Arrays, dict[str, str]]:
    header = read_header(path)
    dtypes = {text: dtype for dtype, text in NUMPY.items()}
    data = path.read_bytes()[header.data_begin :]
    found = {
        t.name: np.frombuffer(data[t.begin : t.end], dtypes[t.dtype]).reshape(t.shape).copy()
        for t in header.tensors
    }
    return found, header.metadata


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("tied", [True, False])
def test_what_is_quantized_and_what_is_not(tmp_path: Path, bits: int, tied: bool) -> None:
    before = arrays(tied=tied)
    source = model(tmp_path / "a", before)
    (source / "README.md").write_text("---\nlicense: mit\n---\n")
    done: list[int] = []
    quantize_folder(source, tmp_path / "b", bits, done.append)
    assert sum(done) == sum(array.nbytes for array in before.values())
    assert (tmp_path / "b" / "README.md").read_bytes() == (source / "README.md").read_bytes()
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    assert config.pop("quantization_config") == {
        "quant_method": "llmos",
        "bits": bits,
        "group_size": 64 if bits == 4 else None,
        "version": 1,
    }
    assert config == json.loads((source / "config.json").read_text())
    after, _ = load(tmp_path / "b" / "model.safetensors")
    head = "model.embed_tokens.weight" if tied else "lm_head.weight"
    wanted = {name: bits for name in before if name.endswith("proj.weight")} | {"lm_head.weight": 8}
    for name, of_bits in wanted.items():
        quantized = qn.quantize(before[name if name in before else head], of_bits)
        assert (after.pop(f"{name}.q") == quantized.q).all()
        assert (after.pop(f"{name}.scale") == quantized.scale).all()
    kept = before.keys() - (wanted.keys() if tied else wanted.keys() | {"lm_head.weight"})
    assert after.keys() == kept
    assert all((after[name] == before[name]).all() for name in kept)
    size = sum(path.stat().st_size for path in (tmp_path / "b").iterdir())
    assert size <= needed_bytes(source, bits)


@pytest.mark.parametrize("bits", [8, 4])
def test_the_reader_gives_back_the_numbers(tmp_path: Path, bits: int) -> None:
    before = arrays()
    quantize_folder(model(tmp_path / "a", before), tmp_path / "b", bits)
    folder = QuantizedFolder(tmp_path / "b")
    assert folder.bits == bits
    assert sorted(folder.plain) == sorted(n for n in before if not n.endswith("proj.weight"))
    for name in folder.stored:
        wanted = before.get(name, before["model.embed_tokens.weight"])
        found = folder.get(name)
        assert found.shape == wanted.shape
        assert found.bits == (8 if name == "lm_head.weight" else bits)
        assert np.abs(qn.dequantize(found) - wanted).max() < np.abs(wanted).max() / found.bits
        assert found.q.ctypes.data % 64 == 0


def test_types_in_the_file(tmp_path: Path) -> None:
    """bfloat16 and float16 are read as such; other tensors keep type and bytes."""
    before = arrays()
    name, other = f"{LAYER}mlp.up_proj.weight", f"{LAYER}self_attn.q_proj.weight"
    before[name] = (before[name].view(np.uint32) >> 16).astype(np.uint16)
    before[other] = before[other].astype(np.float16)
    before["model.embed_tokens.weight"] = before["model.embed_tokens.weight"].astype(np.float16)
    before[f"{LAYER}self_attn.ids"] = np.arange(3)
    quantize_folder(model(tmp_path / "a", before), tmp_path / "b", 4)
    after, _ = load(tmp_path / "b" / "model.safetensors")
    assert (after[f"{name}.q"] == qn.quantize_int4(before[name]).q).all()
    assert (after[f"{other}.q"] == qn.quantize_int4(before[other]).q).all()
    assert (after[f"{LAYER}self_attn.ids"] == np.arange(3)).all()
    assert after["model.embed_tokens.weight"].dtype == np.float16


def test_large_matrices_go_by_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = model(tmp_path / "a")
    quantize_folder(source, tmp_path / "b", 4)
    monkeypatch.setattr(rewriting, "_BLOCK_BYTES", 48)
    quantize_folder(source, tmp_path / "c", 4)
    one, two = (tmp_path / n / "model.safetensors" for n in "bc")
    assert one.read_bytes() == two.read_bytes()


def test_shards(tmp_path: Path) -> None:
    before = arrays()
    source = make_model(tmp_path / "a")
    (source / "model.safetensors").unlink()
    names = list(before)
    shards = {"model-00001-of-00002.safetensors": names[:2], "x-2.safetensors": names[2:]}
    for shard, held in shards.items():
        save(source / shard, {name: before[name] for name in held})
    index = {"weight_map": {name: shard for shard, held in shards.items() for name in held}}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))
    quantize_folder(source, tmp_path / "b", 8)
    quantize_folder(model(tmp_path / "one", before), tmp_path / "c", 8)
    folder, single = QuantizedFolder(tmp_path / "b"), QuantizedFolder(tmp_path / "c")
    assert folder.stored.keys() == single.stored.keys()
    for name in folder.stored:
        assert (folder.get(name).q == single.get(name).q).all()
    assert folder.stored["lm_head.weight"].file == "model-00001-of-00002.safetensors"


def test_gpt2_is_turned_round(tmp_path: Path) -> None:
    draws = np.random.default_rng(1)
    before: Arrays = {
        "wte.weight": draws.standard_normal((8, 4)).astype(np.float32),
        "h.0.attn.c_attn.weight": draws.standard_normal((4, 12)).astype(np.float32),
        "h.0.attn.c_attn.bias": np.zeros(12, np.float32),
    }
    quantize_folder(model(tmp_path / "a", before, model_type="gpt2"), tmp_path / "b", 8)
    found = QuantizedFolder(tmp_path / "b").get("h.0.attn.c_attn.weight")
    assert found.shape == (12, 4)
    assert (found.q == qn.quantize_int8(before["h.0.attn.c_attn.weight"].T).q).all()


def test_a_real_model(tmp_path: Path, test_data: Path) -> None:
    quantize_folder(test_data / "models" / "stories260k", tmp_path / "b", 4)
    folder = QuantizedFolder(tmp_path / "b")
    assert len(folder.stored) == 5 * 7 + 1
    for name in folder.stored:
        folder.get(name)


def _nan(tensors: Arrays) -> None:
    tensors[f"{LAYER}mlp.up_proj.weight"][3, 1] = np.nan


def _expert(tensors: Arrays) -> None:
    tensors[f"{LAYER}mlp.experts.0.up_proj.weight"] = np.zeros((4, 4), np.float32)


def _none(tensors: Arrays) -> None:
    for name in [name for name in tensors if "proj.weight" in name]:
        del tensors[name]


def _integers(tensors: Arrays) -> None:
    tensors[f"{LAYER}mlp.up_proj.weight"] = np.zeros((200, 4), np.int8)


def _no_matrix(tensors: Arrays) -> None:
    tensors[f"{LAYER}mlp.up_proj.weight"] = np.zeros((2, 2, 2), np.float32)


def _no_head(tensors: Arrays) -> None:
    del tensors["model.embed_tokens.weight"]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_nan, r"up_proj\.weight' holds weights that are not finite"),
        (_expert, "mixture of experts"),
        (_none, "nothing to quantize"),
        (_integers, r"up_proj\.weight': I8"),
        (_no_matrix, r"up_proj\.weight': a matrix was expected"),
        (_no_head, "head"),
    ],
)
def test_what_cannot_be_quantized(
    tmp_path: Path, change: Callable[[Arrays], None], what: str
) -> None:
    tensors = arrays()
    change(tensors)
    with pytest.raises(ModelRejected, match=what):
        quantize_folder(model(tmp_path / "a", tensors), tmp_path / "b", 4)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_refusals_leave_nothing(tmp_path: Path) -> None:
    source = model(tmp_path / "a")
    quantize_folder(source, tmp_path / "b", 8)
    with pytest.raises(Conflict, match=r"quantized already \(llmos\)"):
        quantize_folder(tmp_path / "b", tmp_path / "c", 4)
    with pytest.raises(Conflict, match="b is there already"):
        quantize_folder(source, tmp_path / "b", 4)
    with pytest.raises(InvalidRequest, match="8 or 4"):
        quantize_folder(source, tmp_path / "c", 5)
    with (source / "model.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ModelRejected, match="truncated"):
        quantize_folder(source, tmp_path / "c", 4)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_a_file_cut_short_meanwhile(tmp_path: Path) -> None:
    source = model(tmp_path / "a")

    def cut(_: int) -> None:
        os.truncate(source / "model.safetensors", 1500)

    with pytest.raises(ModelRejected, match="cut short"):
        quantize_folder(source, tmp_path / "b", 4, cut)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_full_disk(tmp_path: Path) -> None:
    """Of what is written to a file, only the first bytes find room."""
    source = model(tmp_path / "a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(DiskFull, match="writing b"):
            quantize_folder(source, tmp_path / "b", 4)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_giving_up(tmp_path: Path) -> None:
    class GivenUpError(Exception): ...

    def stop(_: int) -> None:
        raise GivenUpError

    with pytest.raises(GivenUpError):
        quantize_folder(model(tmp_path / "a"), tmp_path / "b", 4, stop)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


UP = f"{LAYER}mlp.up_proj.weight"
DOWN = f"{LAYER}mlp.down_proj.weight"
Change = Callable[[Arrays, dict[str, str]], Any]


def _set(name: str, at: Any, value: Any) -> Change:
    def change(tensors: Arrays, _: dict[str, str]) -> None:
        tensors[name][at] = value

    return change


def _put(name: str, array: Any) -> Change:
    return lambda tensors, _: tensors.update({name: array})


def _pop(name: str) -> Change:
    return lambda tensors, _: tensors.pop(name)


def _say(text: str) -> Change:
    return lambda _, metadata: metadata.update({"llmos.shapes": text})


BROKEN: dict[str, tuple[int, Change, str]] = {
    "no scale": (8, _pop(f"{UP}.scale"), "up_proj.weight' has no scale"),
    "no q": (4, _pop(f"{UP}.q"), "up_proj.weight' has no q"),
    "whole one left": (8, _put(UP, np.zeros((200, 4), np.float32)), "up_proj.weight' is not quant"),
    "half undescribed": (
        8,
        _put(f"{LAYER}mlp.gate_proj.weight.q", np.zeros((1, 64), np.int8)),
        "gate_proj.weight.q' is half of",
    ),
    "wrong dtype": (8, _put(f"{UP}.q", np.zeros((200, 64), np.uint8)), "up_proj.weight.q' is U8"),
    "wrong width": (8, _put(f"{UP}.q", np.zeros((200, 32), np.int8)), r"\[200, 32\], not I8"),
    "wrong scales": (4, _put(f"{UP}.scale", np.ones(200, np.float32)), "weight.scale' is F32"),
    "scale NaN": (4, _set(f"{UP}.scale", (7, 0), np.nan), "up_proj.weight' has a scale"),
    "scale infinite": (8, _set(f"{UP}.scale", 7, np.inf), "up_proj.weight' has a scale"),
    "scale 0": (8, _set(f"{UP}.scale", 7, 0), "up_proj.weight' has a scale"),
    "scale negative": (4, _set(f"{UP}.scale", (7, 1), -1), "up_proj.weight' has a scale"),
    "-128": (8, _set(f"{UP}.q", (7, 0), -128), "up_proj.weight' has a weight of -128"),
    "padding of 8": (8, _set(f"{UP}.q", (7, 4), 1), "up_proj.weight' has weights beyond"),
    "padding of 4, low": (4, _set(f"{UP}.q", (7, 4), 0x89), "up_proj.weight' has weights beyond"),
    "padding of 4, high": (4, _set(f"{UP}.q", (7, 0), 0x08), "up_proj.weight' has weights beyond"),
    "padding, last block": (4, _set(f"{DOWN}.q", (0, 64 + 8), 0x78), "down_proj.weight' has w"),
    "no shapes": (8, lambda _, metadata: metadata.clear(), "weight.q' is half of"),
    "shapes no JSON": (8, _say("{"), "llmos.shapes: not valid JSON"),
    "shape of one": (8, _say(json.dumps({UP: [3]})), "is said to be of shape"),
    "shape of 0": (8, _say(json.dumps({UP: [0, 4]})), "is said to be of shape"),
    "shape true": (8, _say(json.dumps({UP: [True, 4]})), "is said to be of shape"),
    "shape huge": (8, _say(json.dumps({UP: [1 << 40, 4]})), "is said to be of shape"),
    "what is none": (8, _say(json.dumps({f"{LAYER}x.weight": [4, 4]})), "has no q"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_corrupt_file(tmp_path: Path, case: str) -> None:
    bits, change, what = BROKEN[case]
    quantize_folder(model(tmp_path / "a"), tmp_path / "b", bits)
    path = tmp_path / "b" / "model.safetensors"
    tensors, metadata = load(path)
    change(tensors, metadata)
    save(path, tensors, metadata)
    with pytest.raises(ModelRejected, match=what):
        _read_all(tmp_path / "b")


def _read_all(folder: Path) -> None:
    found = QuantizedFolder(folder)
    for name in found.stored:
        qn.dequantize(found.get(name))


SECTIONS: list[dict[str, Any]] = [
    {"bits": 5},
    {"bits": "8"},
    {"bits": None},
    {"version": 2},
    {"group_size": 32},
    {"more": 1},
]


@pytest.mark.parametrize("fields", SECTIONS)
def test_a_section_of_another_release(tmp_path: Path, fields: dict[str, Any]) -> None:
    quantize_folder(model(tmp_path / "a"), tmp_path / "b", 8)
    path = tmp_path / "b" / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= fields
    path.write_text(json.dumps(config))
    with pytest.raises(ModelRejected, match=r"config\.json: quantization_config"):
        _read_all(tmp_path / "b")


def test_bits_that_are_not_those_of_the_files(tmp_path: Path) -> None:
    quantize_folder(model(tmp_path / "a"), tmp_path / "b", 8)
    quantize_folder(model(tmp_path / "c"), tmp_path / "d", 4)
    shutil.copyfile(tmp_path / "b" / "model.safetensors", tmp_path / "d" / "model.safetensors")
    with pytest.raises(ModelRejected, match=r"corrupt quantized file: .* is I8"):
        _read_all(tmp_path / "d")


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data(), bits=st.sampled_from([8, 4]))
def test_any_damage_is_a_typed_error_or_other_weights(
    tmp_path: Path, data: st.DataObject, bits: int
) -> None:
    """Never another exception, never numbers the format does not allow."""
    folder = tmp_path / str(bits)
    if not folder.exists():
        quantize_folder(model(tmp_path / f"of{bits}"), folder, bits)
        shutil.copyfile(folder / "model.safetensors", tmp_path / f"whole{bits}")
    whole = bytearray((tmp_path / f"whole{bits}").read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.sampled_from([len(whole)] * 3 + [len(whole) // 2]))
    (folder / "model.safetensors").write_bytes(whole[:cut])
    try:
        found = QuantizedFolder(folder)
        for name in found.stored:
            assert np.isfinite(found.get(name).scale).all()
    except ModelRejected as error:
        assert error.message


# what an inspection says


def test_facts_of_a_stored_model(tmp_path: Path) -> None:
    source = model(tmp_path / "a")
    before = inspect(source)
    assert before.stored_dtype == "float32"
    assert set(before.loads) == {"float32", "bfloat16", "float16", "int8", "int4"}
    for bits in (8, 4):
        quantize_folder(source, tmp_path / str(bits), bits)
        facts = inspect(tmp_path / str(bits))
        assert facts.quantization == f"llmos-int{bits}"
        assert (facts.stored_dtype, facts.dtype) == (f"int{bits}", "float32")
        assert facts.num_parameters == before.num_parameters
        assert facts.tied and before.tied
        assert facts.kv_bytes_per_token == before.kv_bytes_per_token
        assert list(facts.loads) == [f"int{bits}"]
        assert choose(facts).driver == "native"
    untied = model(tmp_path / "u", arrays(tied=False))
    quantize_folder(untied, tmp_path / "uq", 8)
    assert not inspect(tmp_path / "uq").tied
    assert inspect(tmp_path / "uq").num_parameters == inspect(untied).num_parameters


def test_an_inspection_refuses_halves(tmp_path: Path) -> None:
    quantize_folder(model(tmp_path / "a"), tmp_path / "b", 8)
    tensors, metadata = load(tmp_path / "b" / "model.safetensors")
    del tensors[f"{UP}.scale"]
    save(tmp_path / "b" / "model.safetensors", tensors, metadata)
    with pytest.raises(ModelRejected, match="corrupt quantized file"):
        inspect(tmp_path / "b")


def test_estimates_shrink_with_the_bits(tmp_path: Path) -> None:
    """Of a model large enough that its weights count."""
    draws = np.random.default_rng(0)
    tensors: Arrays = {"model.embed_tokens.weight": np.zeros((4096, 512), np.float32)}
    for layer in range(16):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        tensors[name] = draws.standard_normal((2048, 512)).astype(np.float32)
    source = model(tmp_path / "a", tensors, hidden_size=512, vocab_size=4096)
    loads = inspect(source).loads
    params = 16 * 2048 * 512
    assert loads["float32"].footprint_bytes - loads["int8"].footprint_bytes > 2 * params
    spared = loads["int8"].footprint_bytes - loads["int4"].footprint_bytes
    assert 0.43 * params < spared < 0.5 * params
    for bits in (8, 4):
        quantize_folder(source, tmp_path / str(bits), bits)
        stored = inspect(tmp_path / str(bits))
        at_load = loads[f"int{bits}"].footprint_bytes
        assert at_load >= stored.footprint_bytes >= stored.weights_bytes


def test_a_mixture_is_not_quantized_at_load(tmp_path: Path) -> None:
    tensors = arrays()
    _expert(tensors)
    loads = inspect(model(tmp_path / "a", tensors)).loads
    assert set(loads) == {"float32", "bfloat16", "float16"}
