"""What tells one architecture's decoder from another's: names, switches and numbers."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable
from typing import Any

from llmos.drivers.native.fused.spec import NormKind, NormOver, RopeStyle

Switch = bool | str
"""On, off, or the name of the config's field that says which."""
Number = Callable[[Any], float]
"""A number made from the config."""


class Fused(enum.Enum):
    """How queries, keys and values are stored.

    `APART`: three tensors. `BLOCKS`: one, all queries, all keys, all values. `HEADS`: one, each
    head's query, key and value together.
    """

    APART = enum.auto()
    BLOCKS = enum.auto()
    HEADS = enum.auto()


class Windows(enum.Enum):
    """Which layers the config's `sliding_window` is for; `TYPED`: those that `layer_types` says."""

    NONE = enum.auto()
    ALL = enum.auto()
    TYPED = enum.auto()


def head_scale(config: Any, head_dim: int, layer: int) -> float:
    """1 / sqrt(head size)."""
    return float(head_dim**-0.5)


def is_sliding(config: Any, layer: int) -> bool:
    """Whether `layer_types` gives a layer a window."""
    return bool(config.layer_types[layer] == "sliding_attention")


def _one(config: Any) -> float:
    return 1.0


def _all_layers(config: Any, layer: int) -> bool:
    return True


def _no_length(config: Any) -> int | None:
    return None


def _no_reason(config: Any) -> str | None:
    return None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """The defaults are Llama's without its switches.

    Names are of modules: `base` holds the embedding, the layers and the final norm; `attention` and
    `mlp` lie in a layer (`mlp` may be empty: its parts lie in the layer itself). A norm whose name
    is None does not exist. `refuse` says why a config is not described.
    """

    base: str = "model"
    embed: str = "embed_tokens"
    layers: str = "layers"
    final_norm: str = "norm"
    embed_norm: bool = False
    positions: str | None = None
    position_offset: int = 0
    heads: tuple[str, ...] = ("lm_head",)
    head_bias: bool = False

    norm: NormKind = NormKind.RMS
    eps: str | float = "rms_norm_eps"
    norm_weight: Switch = True
    norm_bias: Switch = False
    plus_one: bool = False
    pre_attn: str | None = "input_layernorm"
    post_attn: str | None = None
    pre_mlp: str | None = "post_attention_layernorm"
    post_mlp: str | None = None
    parallel: Switch = False

    attention: str = "self_attn"
    q: str = "q_proj"
    k: str = "k_proj"
    v: str = "v_proj"
    o: str = "o_proj"
    qkv: str = ""
    fused: Fused | Callable[[Any], Fused] = Fused.APART
    transposed: bool = False
    own_head_dim: bool = True
    grouped: bool = True
    qkv_bias: Switch = False
    o_bias: Switch = False
    qk_norm: Switch = False
    q_norm: str = "q_norm"
    k_norm: str = "k_norm"
    norm_over: NormOver = NormOver.HEAD
    norm_after_rope: bool = False

    rope: RopeStyle | None = RopeStyle.HALF
    partial: bool = False
    backwards: bool = False
    turns: Callable[[Any, int], bool] = _all_layers
    windows: Windows = Windows.NONE
    scale: Callable[[Any, int, int], float] = head_scale
    softcap: str | None = None
    clip: str | None = None

    mlp: str = "mlp"
    gate: str | None = "gate_proj"
    up: str = "up_proj"
    gate_up: str | None = None
    down: str = "down_proj"
    mlp_bias: Switch = False
    activation: str = "hidden_act"

    embed_scale: Number = _one
    residual_scale: Number = _one
    logit_scale: Number = _one
    logit_softcap: str | None = None
    max_length: Callable[[Any], int | None] = _no_length
    refuse: Callable[[Any], str | None] = _no_reason
