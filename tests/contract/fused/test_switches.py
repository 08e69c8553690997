"""Every switch of a config that changes the forward, thrown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.contract.fused.compare import described, worst
from tests.contract.fused.models import LLAMA3, TYPED, WINDOW, YARN, make

_BIASED = {"attention_bias": True}
_ALL_BIASED = _BIASED | {"mlp_bias": True}
_LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0}
_DYNAMIC = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
_LOCAL = {"rope_type": "default", "rope_theta": 300.0}
_FULL = ["full_attention"] * 3


def _long(length: int) -> dict[str, Any]:
    factors = {
        "short_factor": [1.0 + 0.1 * i for i in range(length)],
        "long_factor": [2.0 + 0.1 * i for i in range(length)],
    }
    return {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0} | factors


SWITCHES: list[tuple[str, dict[str, Any]]] = [
    ("LlamaForCausalLM", {"attention_bias": True}),
    ("LlamaForCausalLM", {"mlp_bias": True}),
    ("LlamaForCausalLM", {"tie_word_embeddings": True}),
    ("LlamaForCausalLM", {"num_key_value_heads": 6}),
    ("LlamaForCausalLM", {"num_key_value_heads": 1, "head_dim": 10}),
    ("LlamaForCausalLM", {"rope_parameters": LLAMA3}),
    ("LlamaForCausalLM", {"rope_parameters": YARN}),
    ("LlamaForCausalLM", {"rope_parameters": _LINEAR}),
    ("LlamaForCausalLM", {"rope_parameters": _DYNAMIC}),
    ("LlamaForCausalLM", {"rope_parameters": _long(6) | {"original_max_position_embeddings": 64}}),
    ("LlamaForCausalLM", {"hidden_act": "gelu"}),
    ("LlamaForCausalLM", {"hidden_act": "quick_gelu"}),
    ("LlamaForCausalLM", {"hidden_act": "gelu_fast"}),
    ("ApertusForCausalLM", _BIASED),
    ("ArceeForCausalLM", _ALL_BIASED),
    ("CohereForCausalLM", {"use_qk_norm": False} | _BIASED),
    ("Cohere2ForCausalLM", {"layer_types": _FULL} | _BIASED),
    ("Ernie4_5ForCausalLM", {"use_bias": False}),
    ("Exaone4ForCausalLM", {"sliding_window": None, "layer_types": _FULL}),
    ("GPT2LMHeadModel", {"scale_attn_weights": False}),
    ("GPT2LMHeadModel", {"scale_attn_by_inverse_layer_idx": True}),
    ("GPT2LMHeadModel", {"reorder_and_upcast_attn": True}),
    ("GPT2LMHeadModel", {"n_inner": None, "activation_function": "relu"}),
    ("GPT2LMHeadModel", {"tie_word_embeddings": False}),
    ("GPTBigCodeForCausalLM", {"multi_query": False}),
    ("GPTBigCodeForCausalLM", {"scale_attn_weights": False, "activation_function": "gelu"}),
    ("GPTNeoXForCausalLM", {"use_parallel_residual": False}),
    ("GPTNeoXForCausalLM", {"attention_bias": False, "tie_word_embeddings": True}),
    ("GemmaForCausalLM", {"tie_word_embeddings": False, "hidden_act": "gelu"} | _BIASED),
    ("Gemma2ForCausalLM", {"attn_logit_softcapping": None} | _BIASED),
    ("Gemma3ForCausalLM", {"final_logit_softcapping": None, "layer_types": None} | _BIASED),
    ("Gemma3ForCausalLM", {"attn_logit_softcapping": 2.0}),  # which Transformers leaves out
    (
        "Gemma3ForCausalLM",
        {"rope_parameters": {"full_attention": _LINEAR, "sliding_attention": _LOCAL}},
    ),
    ("GlmForCausalLM", {"attention_bias": False, "partial_rotary_factor": 1.0}),
    ("GraniteForCausalLM", _ALL_BIASED),
    ("HeliumForCausalLM", _ALL_BIASED),
    ("HunYuanDenseV1ForCausalLM", _BIASED),
    ("HunYuanDenseV1ForCausalLM", {"rope_parameters": _DYNAMIC | {"alpha": 1000.0}}),
    ("MinistralForCausalLM", {"layer_types": _FULL}),
    ("MistralForCausalLM", {"sliding_window": None}),
    ("NanoChatForCausalLM", {"final_logit_softcapping": None} | _BIASED),
    ("OPTForCausalLM", {"enable_bias": False, "activation_function": "gelu"}),
    ("OPTForCausalLM", {"layer_norm_elementwise_affine": False}),
    ("OlmoForCausalLM", {"clip_qkv": None} | _BIASED),
    ("Olmo2ForCausalLM", _BIASED),
    (
        "Olmo3ForCausalLM",
        {"rope_parameters": {"full_attention": YARN, "sliding_attention": _LOCAL}},
    ),
    ("PersimmonForCausalLM", {"qk_layernorm": False, "partial_rotary_factor": 0.25}),
    ("Phi3ForCausalLM", {"sliding_window": None, "partial_rotary_factor": 1.0}),
    (
        "Phi3ForCausalLM",
        {
            "rope_parameters": _long(2) | {"partial_rotary_factor": 0.5},
            "original_max_position_embeddings": 64,
        },
    ),
    ("PhiForCausalLM", {"qk_layernorm": True, "num_key_value_heads": 2}),
    ("Qwen2ForCausalLM", {"use_sliding_window": False, "layer_types": _FULL}),
    ("Qwen2ForCausalLM", {"max_window_layers": 1, "layer_types": None}),
    ("Qwen3ForCausalLM", _BIASED | {"tie_word_embeddings": True}),
    ("SeedOssForCausalLM", {"attention_bias": False, "attention_out_bias": True}),
    ("SeedOssForCausalLM", {"mlp_bias": True}),
    ("SmolLM3ForCausalLM", TYPED | {"use_sliding_window": True} | _ALL_BIASED),
    ("Starcoder2ForCausalLM", {"use_bias": False, "sliding_window": None}),
]


@pytest.mark.parametrize(("architecture", "overrides"), SWITCHES)
def test_logits(architecture: str, overrides: dict[str, Any], tmp_path: Path) -> None:
    assert worst(architecture, tmp_path, **overrides) <= 1e-5


@pytest.mark.parametrize("length", [WINDOW, WINDOW + 1, 2 * WINDOW + 1])
def test_texts_about_as_long_as_the_window(length: int, tmp_path: Path) -> None:
    assert worst("MistralForCausalLM", tmp_path, length) <= 1e-5


@pytest.mark.parametrize(
    ("architecture", "overrides", "max_length"),
    [
        ("LlamaForCausalLM", {}, None),
        ("LlamaForCausalLM", {"rope_parameters": LLAMA3}, None),
        ("LlamaForCausalLM", {"rope_parameters": _DYNAMIC}, 128),
        (
            "LlamaForCausalLM",
            {"rope_parameters": _long(6) | {"original_max_position_embeddings": 50}},
            50,
        ),
        ("HunYuanDenseV1ForCausalLM", {"rope_parameters": _DYNAMIC | {"alpha": 1000.0}}, None),
        ("GPT2LMHeadModel", {}, 128),
        ("OPTForCausalLM", {}, 128),
        ("Ministral3ForCausalLM", {}, 64),
    ],
)
def test_how_far_the_description_holds(
    architecture: str, overrides: dict[str, Any], max_length: int | None, tmp_path: Path
) -> None:
    make(architecture, tmp_path, **overrides)
    assert described(architecture, tmp_path).max_length == max_length


@pytest.mark.parametrize(
    ("architecture", "overrides"),
    [
        ("Ministral3ForCausalLM", {}),
        (
            "LlamaForCausalLM",
            {"rope_parameters": _long(6) | {"original_max_position_embeddings": 64}},
        ),
    ],
)
def test_it_holds_up_to_there_and_no_further(
    architecture: str, overrides: dict[str, Any], tmp_path: Path
) -> None:
    assert worst(architecture, tmp_path, 64, **overrides) <= 1e-5
    assert worst(architecture, tmp_path, 65, **overrides) > 1e-5
