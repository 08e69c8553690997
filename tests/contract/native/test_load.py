"""Folders that load, and folders that must not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from llmos.abi.driver import LoadReport
from llmos.drivers.native import determinism
from llmos.drivers.native.driver import NativeDriver
from llmos.errors import EngineFailed, LLMOSError, LoadFailed, ModelRejected
from tests.unit.drivers.tiny import drive, make_item, make_spec, token_ids


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(tiny, folder)
    return folder


TORCH = {"engine": "torch"}
FUSED = {"engine": "fused"}
both = pytest.mark.parametrize("options", [TORCH, FUSED], ids=["torch", "fused"])


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def load(folder: Path, **fields: Any) -> tuple[NativeDriver, LoadReport]:
    driver = NativeDriver()
    return driver, driver.load(make_spec(folder, **fields), lambda fraction, what: None)


def refused(folder: Path, error: type[LLMOSError], match: str, **fields: Any) -> None:
    with pytest.raises(error, match=match) as caught:
        load(folder, **fields)
    assert len(caught.value.message) < 700


@both
def test_the_report_says_what_is(tiny: Path, options: dict[str, Any]) -> None:
    seen: list[tuple[float, str]] = []
    report = NativeDriver().load(
        make_spec(tiny, options=options), lambda fraction, what: seen.append((fraction, what))
    )
    assert (report.dtype, report.device, report.num_slots) == ("float32", "cpu", 4)
    assert report.context_length == 128
    by_table = determinism.is_default("cpu", torch.float32)
    assert report.deterministic is (options is FUSED or by_table)
    weights = load_file(tiny / "model.safetensors")
    assert report.memory.weights_bytes >= sum(t.nbytes for t in weights.values())
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)
    assert (seen[0][0], seen[-1][0]) == (0.0, 1.0)


@both
def test_the_context_is_at_most_the_models(tiny: Path, options: dict[str, Any]) -> None:
    report = load(tiny, context_length=100_000, num_slots=1, options=options)[1]
    assert report.context_length == 256


@both
def test_angles_that_follow_the_batch_bound_the_context(
    copy: Path, options: dict[str, Any]
) -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    change_config(copy, rope_parameters=rope | {"original_max_position_embeddings": 64})
    assert load(copy, options=options)[1].context_length == 64


def test_dtypes(copy: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmos.drivers.native import load as module

    for options in (TORCH, FUSED):
        assert load(tiny, dtype="bfloat16", options=options)[1].dtype == "bfloat16"
        refused(tiny, LoadFailed, "int3", dtype="int3", options=options)
    change_config(copy, dtype="bfloat16")
    for has, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(module, "_cpu_has", lambda wanted, has=has: has)
        assert load(copy, options=TORCH)[1].dtype == dtype
        # its kernels read 16 bits on any processor
        assert load(copy, options=FUSED)[1].dtype == "bfloat16"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int8", "int4"])
def test_dtypes_of_the_fused_engine(tiny: Path, dtype: str) -> None:
    driver, report = load(tiny, dtype=dtype)
    assert report.dtype == dtype
    assert driver._model().info.engine == "fused"


def test_a_missing_tensor_is_never_made_up(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    refused(copy, ModelRejected, r"missing.*layers\.1\.mlp\.up_proj")


def test_a_wrong_shape(copy: Path) -> None:
    weights = load_file(copy / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
    save_file(weights, copy / "model.safetensors", {"format": "pt"})
    refused(copy, ModelRejected, r"wrong shape.*up_proj")


@both
def test_an_unexpected_tensor_is_logged(
    copy: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    load(copy, options=options)
    assert not caplog.text
    weights = load_file(copy / "model.safetensors")
    save_file(
        weights | {"extra.weight": torch.zeros(3)}, copy / "model.safetensors", {"format": "pt"}
    )
    load(copy, options=options)
    assert "extra.weight" in caplog.text


@both
def test_pickles_are_not_read(copy: Path, options: dict[str, Any]) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 3'\ntR.")
    error = ModelRejected if options is FUSED else LoadFailed
    refused(copy, error, "safetensors", options=options)


@both
def test_a_cut_file(copy: Path, options: dict[str, Any]) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    error = ModelRejected if options is FUSED else LoadFailed
    refused(copy, error, "incomplete|size|header|buffer|truncated", options=options)


def test_remote_code_is_not_run(copy: Path) -> None:
    (copy / "evil.py").write_text("raise SystemExit(3)")
    change_config(copy, auto_map={"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"})
    load(copy)
    change_config(copy, architectures=["Evil"])
    refused(copy, ModelRejected, "Evil")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "linear attention"),
        ({"architectures": []}, "no architecture"),
        ({"architectures": "LlamaForCausalLM"}, "config"),
        ({"model_type": "qwen2"}, "qwen2"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantized"),
        ({"num_attention_heads": "many"}, "config"),
    ],
)
def test_configurations_that_are_refused(copy: Path, fields: dict[str, Any], match: str) -> None:
    change_config(copy, **fields)
    refused(copy, ModelRejected, match)


@pytest.mark.parametrize("content", ["{", "[]", "\x00", "null"])
def test_a_broken_config(copy: Path, content: str) -> None:
    (copy / "config.json").write_text(content)
    refused(copy, ModelRejected, r"config\.json")


def test_a_broken_tokenizer(copy: Path) -> None:
    (copy / "tokenizer.json").write_text("{}")
    refused(copy, LoadFailed, r"tokenizer\.json")


@both
def test_no_tokenizer_means_tokens_without_text(copy: Path, options: dict[str, Any]) -> None:
    (copy / "tokenizer.json").unlink()
    driver = load(copy, options=options)[0]
    events = drive(driver, [make_item("a", [5], max_tokens=3, ignore_eos=True)])["a"]
    assert len(token_ids(events)) == 3


def test_options_and_devices_that_do_not_exist(tiny: Path) -> None:
    refused(tiny, LoadFailed, "color", options={"color": "red"})
    refused(tiny, LoadFailed, "guesses=3", options={"guesses": 3})
    refused(tiny, LoadFailed, "engine: auto, fused, torch", options={"engine": "vllm"})
    refused(tiny, LoadFailed, "nowhere", device="nowhere")
    refused(tiny, LoadFailed, "not for meta", device="meta", options=FUSED)


@both
def test_end_tokens_come_from_the_generation_config_first(
    copy: Path, options: dict[str, Any]
) -> None:
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert load(copy, options=options)[0]._model().info.eos_ids == {7, 9}
    (copy / "generation_config.json").unlink()
    assert load(copy, options=options)[0]._model().info.eos_ids == {2}


def test_threads(tiny: Path) -> None:
    """Torch's are of the whole process; those of our kernels are their own."""
    before = torch.get_num_threads()
    try:
        load(tiny, num_threads=2, options=TORCH)
        assert torch.get_num_threads() == 2
        torch.set_num_threads(1)
        driver, _ = load(tiny, num_threads=2, options=FUSED)
        assert "2 threads" in driver._model().info.why
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


@both
def test_unload(tiny: Path, options: dict[str, Any]) -> None:
    driver, _ = load(tiny, options=options)
    driver.submit(make_item("a", [5]))
    driver.unload()
    driver.unload()
    assert not driver.health().ok
    assert driver.memory().weights_bytes == 0
    with pytest.raises(EngineFailed):
        driver.step()


def test_what_it_does_not_offer(tiny: Path) -> None:
    driver, _ = load(tiny)
    assert not driver.capabilities.attach
    with pytest.raises(EngineFailed, match="unsupported"):
        driver.attach("x", {})
