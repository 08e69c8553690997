"""Gemma's: norms of 1 + weight, embeddings times the root of their width."""

from __future__ import annotations

from typing import Any

from llmos.drivers.native.fused.family import Family, Windows


def _query_scale(config: Any, head_dim: int, layer: int) -> float:
    return float(config.query_pre_attn_scalar**-0.5)


def _root_of_width(config: Any) -> float:
    return float(config.hidden_size**0.5)


_BEFORE_AND_AFTER: dict[str, Any] = {
    "post_attn": "post_attention_layernorm",
    "pre_mlp": "pre_feedforward_layernorm",
    "post_mlp": "post_feedforward_layernorm",
}


def _gemma(**fields: Any) -> Family:
    biases = {"qkv_bias": "attention_bias", "o_bias": "attention_bias"}
    return Family(plus_one=True, embed_scale=_root_of_width, **(biases | fields))


def _later(**fields: Any) -> Family:
    return _gemma(
        windows=Windows.TYPED,
        scale=_query_scale,
        activation="hidden_activation",
        logit_softcap="final_logit_softcapping",
        **fields,
    )


GEMMAS = {
    "GemmaForCausalLM": _gemma(),
    "Gemma2ForCausalLM": _later(softcap="attn_logit_softcapping", **_BEFORE_AND_AFTER),
    "Gemma3ForCausalLM": _later(qk_norm=True, **_BEFORE_AND_AFTER),
    "VaultGemmaForCausalLM": _later(
        softcap="attn_logit_softcapping", pre_mlp="pre_feedforward_layernorm"
    ),
}
