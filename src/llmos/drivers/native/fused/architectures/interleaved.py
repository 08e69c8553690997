"""Rotary positions that turn neighbouring elements together."""

from __future__ import annotations

from typing import Any

from llmos.drivers.native.fused.family import Family, Windows, is_sliding
from llmos.drivers.native.fused.spec import NormKind, NormOver, RopeStyle

_GLM: dict[str, Any] = {
    "rope": RopeStyle.INTERLEAVED,
    "partial": True,
    "qkv_bias": "attention_bias",
    "gate_up": "gate_up_proj",
}
_COHERE: dict[str, Any] = {
    "rope": RopeStyle.INTERLEAVED,
    "norm": NormKind.LAYER,
    "eps": "layer_norm_eps",
    "pre_mlp": "input_layernorm",
    "parallel": True,
    "qkv_bias": "attention_bias",
    "o_bias": "attention_bias",
    "logit_scale": lambda config: float(config.logit_scale),
}
INTERLEAVED = {
    "GlmForCausalLM": Family(**_GLM),
    "Glm4ForCausalLM": Family(
        post_attn="post_self_attn_layernorm", post_mlp="post_mlp_layernorm", **_GLM
    ),
    "HeliumForCausalLM": Family(
        rope=RopeStyle.INTERLEAVED, qkv_bias="attention_bias", mlp_bias="mlp_bias"
    ),
    "Ernie4_5ForCausalLM": Family(
        rope=RopeStyle.INTERLEAVED, qkv_bias="use_bias", o_bias="use_bias", mlp_bias="use_bias"
    ),
    "CohereForCausalLM": Family(qk_norm="use_qk_norm", norm_over=NormOver.EACH, **_COHERE),
    "Cohere2ForCausalLM": Family(windows=Windows.TYPED, turns=is_sliding, **_COHERE),
}
