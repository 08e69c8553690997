"""Norms that take the mean off, and rotary positions."""

from __future__ import annotations

from typing import Any

from llmos.drivers.native.fused.family import Family, Fused, Windows
from llmos.drivers.native.fused.spec import NormKind

_LAYER: dict[str, Any] = {"norm": NormKind.LAYER, "norm_bias": True, "eps": "layer_norm_eps"}
_PLAIN: dict[str, Any] = {"gate": None, "qkv_bias": True, "o_bias": True, "mlp_bias": True}
_BY_HEAD: dict[str, Any] = {
    "qkv": "query_key_value",
    "fused": Fused.HEADS,
    "o": "dense",
    "own_head_dim": False,
    "grouped": False,
    "partial": True,
    "up": "dense_h_to_4h",
    "down": "dense_4h_to_h",
}
_NORMS: dict[str, Any] = {
    "qk_norm": "qk_layernorm",
    "q_norm": "q_layernorm",
    "k_norm": "k_layernorm",
    "final_norm": "final_layernorm",
}
_NEOX = _PLAIN | {"qkv_bias": "attention_bias", "o_bias": "attention_bias"}
LAYER_NORMED = {
    "OlmoForCausalLM": Family(
        norm=NormKind.LAYER,
        norm_weight=False,
        eps=1e-5,
        qkv_bias="attention_bias",
        o_bias="attention_bias",
        clip="clip_qkv",
    ),
    "Starcoder2ForCausalLM": Family(
        norm=NormKind.LAYER,
        norm_bias=True,
        eps="norm_epsilon",
        qkv_bias="use_bias",
        o_bias="use_bias",
        mlp_bias="use_bias",
        gate=None,
        up="c_fc",
        down="c_proj",
        windows=Windows.ALL,
    ),
    "PhiForCausalLM": Family(
        pre_mlp="input_layernorm",
        parallel=True,
        partial=True,
        o="dense",
        up="fc1",
        down="fc2",
        head_bias=True,
        **_LAYER,
        **_PLAIN,
        **_NORMS,
    ),
    "PersimmonForCausalLM": Family(**_LAYER, **_PLAIN, **_BY_HEAD, **_NORMS),
    "GPTNeoXForCausalLM": Family(
        base="gpt_neox",
        embed="embed_in",
        final_norm="final_layer_norm",
        heads=("lm_head", "embed_out"),
        attention="attention",
        parallel="use_parallel_residual",
        **_LAYER,
        **_NEOX,
        **_BY_HEAD,
    ),
}
