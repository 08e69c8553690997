"""Who serves what, and who is told why not."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llmos.drivers.catalog import DRIVERS, NATIVE_ARCHITECTURES, choose
from llmos.errors import ModelRejected
from llmos.weights import ModelFacts

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
        ({"architecture": "BlipForConditionalGeneration"}, "encoder"),
        ({"architecture": "ConvBertForMaskedLM"}, "gaps"),
        ({"architecture": "ConvBertModel"}, "no head"),
        ({"architecture": "BertModel", "quantization": "gptq"}, "gptq"),
        ({"architecture": "LlamaForCausalLm"}, "near: LlamaForCausalLM"),
        ({"architecture": "EvilForCausalLM" + "x" * 5000}, "not an architecture"),
        ({"architecture": ""}, "no architecture"),
        ({"is_encoder_decoder": True}, "encoder"),
        ({"quantization": "gptq"}, "gptq"),
        ({"format": "gguf"}, "gguf"),
        ({"layer_types": ["full_attention", "linear_attention"]}, "linear_attention"),
    ],
)
def test_refusals_name_the_architecture_and_why(facts: dict[str, Any], reason: str) -> None:
    with pytest.raises(ModelRejected, match=reason) as caught:
        choose(msgspec.structs.replace(LLAMA, **facts))
    assert facts.get("architecture", "LlamaForCausalLM")[:20] in caught.value.message
    assert len(caught.value.message) < 400


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
