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


def test_the_report_says_what_is(tiny: Path) -> None:
    seen: list[tuple[float, str]] = []
    report = NativeDriver().load(
        make_spec(tiny), lambda fraction, what: seen.append((fraction, what))
    )
    assert (report.dtype, report.device, report.num_slots) == ("float32", "cpu", 4)
    assert report.context_length == 128
    assert report.deterministic is determinism.is_default("cpu", torch.float32)
    weights = load_file(tiny / "model.safetensors")
    assert report.memory.weights_bytes >= sum(t.nbytes for t in weights.values())
    assert [fraction for fraction, _ in seen] == sorted(fraction for fraction, _ in seen)
    assert (seen[0][0], seen[-1][0]) == (0.0, 1.0)


def test_the_context_is_at_most_the_models(tiny: Path) -> None:
    assert load(tiny, context_length=100_000, num_slots=1)[1].context_length == 256


def test_angles_that_follow_the_batch_bound_the_context(copy: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 1e4}
    change_config(copy, rope_parameters=rope | {"original_max_position_embeddings": 64})
    assert load(copy)[1].context_length == 64


def test_dtypes(copy: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from llmos.drivers.native import load as module

    assert load(tiny, dtype="bfloat16")[1].dtype == "bfloat16"
    change_config(copy, dtype="bfloat16")
    for has, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(module, "_cpu_has", lambda wanted, has=has: has)
        assert load(copy)[1].dtype == dtype
    refused(tiny, LoadFailed, "int3", dtype="int3")


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


def test_an_unexpected_tensor_is_logged(copy: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = load_file(copy / "model.safetensors")
    save_file(
        weights | {"extra.weight": torch.zeros(3)}, copy / "model.safetensors", {"format": "pt"}
    )
    load(copy)
    assert "extra.weight" in caplog.text


def test_pickles_are_not_read(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    (copy / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'exit 3'\ntR.")
    refused(copy, LoadFailed, "safetensors")


def test_a_cut_file(copy: Path) -> None:
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[: len(data) // 2])
    refused(copy, LoadFailed, "incomplete|size|header|buffer")


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


def test_no_tokenizer_means_tokens_without_text(copy: Path) -> None:
    (copy / "tokenizer.json").unlink()
    events = drive(load(copy)[0], [make_item("a", [5], max_tokens=3, ignore_eos=True)])["a"]
    assert len(token_ids(events)) == 3


def test_options_and_devices_that_do_not_exist(tiny: Path) -> None:
    refused(tiny, LoadFailed, "color", options={"color": "red"})
    refused(tiny, LoadFailed, "nowhere", device="nowhere")


def test_end_tokens_come_from_the_generation_config_first(copy: Path) -> None:
    (copy / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 9]}))
    assert load(copy)[0]._model().eos_ids == {7, 9}
    (copy / "generation_config.json").unlink()
    assert load(copy)[0]._model().eos_ids == {2}


def test_threads(tiny: Path) -> None:
    before = torch.get_num_threads()
    try:
        load(tiny, num_threads=2)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_unload(tiny: Path) -> None:
    driver, _ = load(tiny)
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
