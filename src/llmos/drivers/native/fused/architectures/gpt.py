"""Learned positions, no rotation."""

from __future__ import annotations

from typing import Any

from llmos.drivers.native.fused.family import Family, Fused
from llmos.drivers.native.fused.spec import NormKind


def _gpt2_scale(config: Any, head_dim: int, layer: int) -> float:
    scale = head_dim**-0.5 if config.scale_attn_weights else 1.0
    return float(scale / (layer + 1) if config.scale_attn_by_inverse_layer_idx else scale)


def _bigcode_scale(config: Any, head_dim: int, layer: int) -> float:
    return float(head_dim**-0.5 if config.scale_attn_weights else 1.0)


def _bigcode_fused(config: Any) -> Fused:
    return Fused.BLOCKS if config.multi_query else Fused.HEADS


def _opt_refuse(config: Any) -> str | None:
    if not config.do_layer_norm_before:
        return "it normalises after the residual (do_layer_norm_before is false)"
    if config._remove_final_layer_norm:
        return "its final norm is removed"
    if config.word_embed_proj_dim != config.hidden_size:
        return "its embedding is projected (word_embed_proj_dim)"
    return None


_LEARNED: dict[str, Any] = {
    "rope": None,
    "norm": NormKind.LAYER,
    "norm_bias": True,
    "own_head_dim": False,
    "activation": "activation_function",
    "gate": None,
}
_GPT: dict[str, Any] = _LEARNED | {
    "base": "transformer",
    "embed": "wte",
    "positions": "wpe",
    "layers": "h",
    "final_norm": "ln_f",
    "eps": "layer_norm_epsilon",
    "pre_attn": "ln_1",
    "pre_mlp": "ln_2",
    "attention": "attn",
    "qkv": "c_attn",
    "o": "c_proj",
    "qkv_bias": True,
    "o_bias": True,
    "mlp_bias": True,
    "up": "c_fc",
    "down": "c_proj",
}
_OPT = _LEARNED | {
    "norm_weight": "layer_norm_elementwise_affine",
    "norm_bias": "layer_norm_elementwise_affine",
    "qkv_bias": "enable_bias",
    "o_bias": "enable_bias",
    "mlp_bias": "enable_bias",
}
GPTS = {
    "GPT2LMHeadModel": Family(
        fused=Fused.BLOCKS, transposed=True, grouped=False, scale=_gpt2_scale, **_GPT
    ),
    "GPTBigCodeForCausalLM": Family(fused=_bigcode_fused, scale=_bigcode_scale, **_GPT),
    "OPTForCausalLM": Family(
        base="model.decoder",
        final_norm="final_layer_norm",
        positions="embed_positions",
        position_offset=2,
        eps=1e-5,
        pre_attn="self_attn_layer_norm",
        pre_mlp="final_layer_norm",
        grouped=False,
        o="out_proj",
        mlp="",
        up="fc1",
        down="fc2",
        refuse=_opt_refuse,
        **_OPT,
    ),
}
