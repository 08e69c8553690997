"""Llama's kin: a norm before attention, one before a gated MLP."""

from __future__ import annotations

from typing import Any

from llmos.drivers.native.fused.family import Family, Fused, Windows


def _granite_scale(config: Any, head_dim: int, layer: int) -> float:
    return float(config.attention_multiplier)


def _smollm_turns(config: Any, layer: int) -> bool:
    return bool(config.no_rope_layers[layer])


def _smollm_refuse(config: Any) -> str | None:
    if "sliding_attention" in config.layer_types and not config.use_sliding_window:
        return "layer_types ask for a sliding window that use_sliding_window denies"
    return None


def _ministral3_length(config: Any) -> int | None:
    # from there on queries grow with their position
    return int(config.rope_parameters["original_max_position_embeddings"])


def _ministral3_refuse(config: Any) -> str | None:
    for name in ("original_max_position_embeddings", "llama_4_scaling_beta"):
        if (config.rope_parameters or {}).get(name) is None:
            return f"rope_parameters have no {name}"
    return None


LLAMAS = {
    "LlamaForCausalLM": Family(
        qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias"
    ),
    "MistralForCausalLM": Family(windows=Windows.ALL),
    "MinistralForCausalLM": Family(windows=Windows.TYPED),
    "Ministral3ForCausalLM": Family(
        windows=Windows.ALL, max_length=_ministral3_length, refuse=_ministral3_refuse
    ),
    "Qwen2ForCausalLM": Family(qkv_bias=True, windows=Windows.TYPED),
    "Qwen3ForCausalLM": Family(
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        qk_norm=True,
        windows=Windows.TYPED,
    ),
    "Phi3ForCausalLM": Family(
        qkv="qkv_proj",
        fused=Fused.BLOCKS,
        gate_up="gate_up_proj",
        partial=True,
        windows=Windows.ALL,
    ),
    "SmolLM3ForCausalLM": Family(
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        mlp_bias="mlp_bias",
        turns=_smollm_turns,
        windows=Windows.TYPED,
        refuse=_smollm_refuse,
    ),
    "SeedOssForCausalLM": Family(
        qkv_bias="attention_bias", o_bias="attention_out_bias", mlp_bias="mlp_bias"
    ),
    "ArceeForCausalLM": Family(
        qkv_bias="attention_bias", o_bias="attention_bias", mlp_bias="mlp_bias", gate=None
    ),
    "GraniteForCausalLM": Family(
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        mlp_bias="mlp_bias",
        scale=_granite_scale,
        embed_scale=lambda config: float(config.embedding_multiplier),
        residual_scale=lambda config: float(config.residual_multiplier),
        logit_scale=lambda config: 1.0 / float(config.logits_scaling),
    ),
    "HunYuanDenseV1ForCausalLM": Family(
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        qk_norm=True,
        q_norm="query_layernorm",
        k_norm="key_layernorm",
        norm_after_rope=True,
    ),
    "ApertusForCausalLM": Family(
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        qk_norm=True,
        pre_attn="attention_layernorm",
        pre_mlp="feedforward_layernorm",
        gate=None,
    ),
    "NanoChatForCausalLM": Family(
        norm_weight=False,
        embed_norm=True,
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        qk_norm=True,
        norm_after_rope=True,
        backwards=True,
        gate=None,
        up="fc1",
        down="fc2",
        logit_softcap="final_logit_softcapping",
    ),
}
