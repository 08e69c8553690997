"""What is not described is refused, with the reason."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmos.drivers.native.fused.describe import describe
from llmos.drivers.native.fused.spec import Unsupported
from tests.contract.fused.models import TYPED, YARN, make, read_config, read_shapes

_NO_BETA = YARN | {"llama_4_scaling_beta": None}


@pytest.mark.parametrize("architectures", [["MixtralForCausalLM"], ["Nothing"], [], None])
def test_architectures_without_a_description(architectures: Any) -> None:
    with pytest.raises(Unsupported, match="has no description"):
        describe(SimpleNamespace(architectures=architectures), {})


@pytest.mark.parametrize(
    ("architecture", "fields", "reason"),
    [
        ("LlamaForCausalLM", {"hidden_act": "tanh"}, "activation tanh"),
        ("LlamaForCausalLM", {"hidden_act": "xielu"}, "xielu with a gate"),
        ("LlamaForCausalLM", {"is_encoder_decoder": True}, "encoder"),
        ("LlamaForCausalLM", {"is_causal": False}, "is_causal is false"),
        ("LlamaForCausalLM", {"quantization_config": {"quant_method": "gptq"}}, "quantized"),
        ("LlamaForCausalLM", {"num_key_value_heads": 4}, "6 heads for 4"),
        ("LlamaForCausalLM", {"head_dim": 8}, r"q_proj.weight has shape \[72, 48\], not 48 by 48"),
        ("LlamaForCausalLM", {"vocab_size": 204}, "embed_tokens.weight has shape"),
        ("LlamaForCausalLM", {"attention_bias": True}, "no tensor is called .*q_proj.bias"),
        ("LlamaForCausalLM", {"num_hidden_layers": 4}, r"no tensor is called model\.layers\.3"),
        ("LlamaForCausalLM", {"rope_parameters": {"rope_type": "no"}}, "rope_parameters: Key"),
        (
            "LlamaForCausalLM",
            {
                "rope_parameters": {
                    "rope_type": "linear",
                    "factor": 2.0,
                    "rope_theta": 1e4,
                    "partial_rotary_factor": 0.5,
                }
            },
            "turn 6 of 12",
        ),
        ("GlmForCausalLM", {"head_dim": 14}, "turn 8 of 7"),
        ("MistralForCausalLM", {"sliding_window": 0}, "sliding_window of 0"),
        ("MinistralForCausalLM", {"sliding_window": None}, "sliding_window that is not given"),
        ("MinistralForCausalLM", {"layer_types": ["chunked_attention"] * 3}, "chunked_attention"),
        ("MinistralForCausalLM", {"layer_types": None}, "layers of type None"),
        ("Olmo3ForCausalLM", {"rope_parameters": {"rope_type": "default"}}, "rope_parameters"),
        ("SmolLM3ForCausalLM", TYPED, "use_sliding_window denies"),
        ("Ministral3ForCausalLM", {"rope_parameters": _NO_BETA}, "no llama_4_scaling_beta"),
        ("Gemma3ForCausalLM", {"use_bidirectional_attention": True}, "see later ones"),
        ("GPT2LMHeadModel", {"add_cross_attention": True}, "cross-attention"),
        ("GPT2LMHeadModel", {"n_head": 5}, "5 heads for a width of 48"),
        ("OPTForCausalLM", {"do_layer_norm_before": False}, "after the residual"),
        ("OPTForCausalLM", {"_remove_final_layer_norm": True}, "final norm"),
        ("OPTForCausalLM", {"word_embed_proj_dim": 20}, "projected"),
    ],
)
def test_configs(architecture: str, fields: dict[str, Any], reason: str, tmp_path: Path) -> None:
    """Of a model that is described without these fields."""
    make(architecture, tmp_path)
    config, shapes = read_config(architecture, tmp_path), read_shapes(tmp_path)
    describe(config, shapes)
    for name, value in fields.items():
        object.__setattr__(config, name, value)
    with pytest.raises(Unsupported, match=reason):
        describe(config, shapes)


def test_layers_with_configs_of_their_own(tmp_path: Path) -> None:
    make("LlamaForCausalLM", tmp_path)
    config = read_config("LlamaForCausalLM", tmp_path)
    config.per_layer_config = {0: {"num_key_value_heads": 1}, 1: {}, 2: {}}
    with pytest.raises(Unsupported, match="configs of their own"):
        describe(config, read_shapes(tmp_path))


def test_a_field_that_the_config_lacks(tmp_path: Path) -> None:
    make("LlamaForCausalLM", tmp_path)
    fields = dict(vars(read_config("LlamaForCausalLM", tmp_path)))
    config = SimpleNamespace(**{k: v for k, v in fields.items() if k != "mlp_bias"})
    config.standardize_rope_params = lambda: None
    with pytest.raises(Unsupported, match="no mlp_bias"):
        describe(config, read_shapes(tmp_path))


def test_names_that_may_mean_two_tensors(tmp_path: Path) -> None:
    make("LlamaForCausalLM", tmp_path)
    config, shapes = read_config("LlamaForCausalLM", tmp_path), read_shapes(tmp_path)
    twice = shapes | {"norm.weight": shapes["model.norm.weight"]}
    with pytest.raises(Unsupported, match=r"two tensors .*norm\.weight"):
        describe(config, twice)


def test_two_heads(tmp_path: Path) -> None:
    make("GPTNeoXForCausalLM", tmp_path)
    config, shapes = read_config("GPTNeoXForCausalLM", tmp_path), read_shapes(tmp_path)
    shape = shapes["embed_out.weight"]
    with pytest.raises(Unsupported, match="two heads"):
        describe(config, shapes | {"lm_head.weight": shape})


def test_an_odd_bias(tmp_path: Path) -> None:
    make("Qwen2ForCausalLM", tmp_path)
    config, shapes = read_config("Qwen2ForCausalLM", tmp_path), read_shapes(tmp_path)
    name = "model.layers.1.self_attn.k_proj.bias"
    with pytest.raises(Unsupported, match=r"k_proj\.bias has shape \[7\], not \[24\]"):
        describe(config, shapes | {name: (7,)})
    with pytest.raises(Unsupported, match="has shape"):
        describe(config, shapes | {"model.layers.1.mlp.up_proj.weight": (7,)})
