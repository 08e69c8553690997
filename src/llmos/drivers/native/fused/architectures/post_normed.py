"""Norms after attention and after the MLP, none before."""

from __future__ import annotations

from typing import Any

from llmos.drivers.native.fused.family import Family, Windows, is_sliding
from llmos.drivers.native.fused.spec import NormOver


def _exaone_turns(config: Any, layer: int) -> bool:
    return config.sliding_window is None or is_sliding(config, layer)


_AFTER: dict[str, Any] = {
    "pre_attn": None,
    "post_attn": "post_attention_layernorm",
    "pre_mlp": None,
    "post_mlp": "post_feedforward_layernorm",
    "qk_norm": True,
}
_OLMO = _AFTER | {
    "qkv_bias": "attention_bias",
    "o_bias": "attention_bias",
    "norm_over": NormOver.ALL,
}
POST_NORMED = {
    "Olmo2ForCausalLM": Family(**_OLMO),
    "Olmo3ForCausalLM": Family(windows=Windows.TYPED, **_OLMO),
    "Exaone4ForCausalLM": Family(windows=Windows.TYPED, turns=_exaone_turns, **_AFTER),
}
