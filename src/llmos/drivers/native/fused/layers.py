"""One layer's description: its attention, MLP, norms, angles and window."""

from __future__ import annotations

import numpy as np

from llmos.drivers.native.fused.family import Fused, Windows
from llmos.drivers.native.fused.parts import Parts
from llmos.drivers.native.fused.rope import RopeTables
from llmos.drivers.native.fused.spec import (
    Activation,
    Layer,
    Linear,
    Norm,
    NormOver,
    Rope,
    Unsupported,
    Xielu,
)
from llmos.drivers.native.fused.stored import Part


class Layers:
    """Describes layers by their number. `ropes`: None where positions do not turn."""

    def __init__(self, parts: Parts, ropes: RopeTables | None) -> None:
        self._parts = parts
        self._ropes = ropes

    def layer(self, index: int) -> Layer:
        """Layer `index`."""
        family, config = self._parts.family, self._parts.config
        name = f"{family.base}.{family.layers}.{index}"
        q, k, v = self._qkv(f"{name}.{family.attention}")
        heads_size = self._parts.num_heads * self._parts.head_dim
        q_norm, k_norm = self._qk_norms(f"{name}.{family.attention}")
        up, gate, down = self._mlp(name)
        activation = self._parts.activation()
        pre_attn = self._layer_norm(name, family.pre_attn)
        shared = family.pre_attn is not None and family.pre_attn == family.pre_mlp
        return Layer(
            q=q,
            k=k,
            v=v,
            o=self._parts.linear(
                f"{name}.{family.attention}.{family.o}",
                self._parts.hidden_size,
                heads_size,
                family.o_bias,
            ),
            num_heads=self._parts.num_heads,
            num_kv_heads=self._parts.num_kv_heads,
            head_dim=self._parts.head_dim,
            scale=family.scale(config, self._parts.head_dim, index),
            up=up,
            down=down,
            activation=activation,
            gate=gate,
            xielu=self._xielu(name) if activation is Activation.XIELU else None,
            q_norm=q_norm,
            k_norm=k_norm,
            norm_over=family.norm_over,
            norm_after_rope=family.norm_after_rope,
            clip=self._parts.find_number(family.clip),
            rope=self._rope(index),
            window=self._window(index),
            softcap=self._parts.find_number(family.softcap),
            pre_attn=pre_attn,
            post_attn=self._layer_norm(name, family.post_attn),
            pre_mlp=pre_attn if shared else self._layer_norm(name, family.pre_mlp),
            post_mlp=self._layer_norm(name, family.post_mlp),
            parallel=self._parts.is_on(family.parallel),
            residual_scale=family.residual_scale(config),
        )

    def _qkv(self, name: str) -> tuple[Linear, Linear, Linear]:
        family, head_dim = self._parts.family, self._parts.head_dim
        sizes = [
            num * head_dim
            for num in (self._parts.num_heads, self._parts.num_kv_heads, self._parts.num_kv_heads)
        ]
        fused = family.fused
        if not isinstance(fused, Fused):
            fused = fused(self._parts.config)
        if fused is Fused.APART:
            names = (family.q, family.k, family.v)
            q, k, v = (
                self._parts.linear(f"{name}.{each}", size, self._parts.hidden_size, family.qkv_bias)
                for each, size in zip(names, sizes, strict=True)
            )
            return q, k, v
        total = sum(sizes)
        if fused is Fused.BLOCKS:
            ends = np.cumsum(sizes).tolist()
            parts: list[Part] = [(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        else:
            heads = np.arange(self._parts.num_heads)[:, None] * 3 * head_dim
            parts = [
                (heads + which * head_dim + np.arange(head_dim)).reshape(-1) for which in range(3)
            ]
        q, k, v = (
            self._parts.linear(
                f"{name}.{family.qkv}", total, self._parts.hidden_size, family.qkv_bias, part
            )
            for part in parts
        )
        return q, k, v

    def _qk_norms(self, name: str) -> tuple[Norm | None, Norm | None]:
        family = self._parts.family
        if not self._parts.is_on(family.qk_norm):
            return None, None

        def shape(num_heads: int) -> tuple[int, ...]:
            if family.norm_over is NormOver.HEAD:
                return (self._parts.head_dim,)
            if family.norm_over is NormOver.EACH:
                return (num_heads, self._parts.head_dim)
            return (num_heads * self._parts.head_dim,)

        return (
            self._parts.norm(f"{name}.{family.q_norm}", shape(self._parts.num_heads)),
            self._parts.norm(f"{name}.{family.k_norm}", shape(self._parts.num_kv_heads)),
        )

    def _mlp(self, layer: str) -> tuple[Linear, Linear | None, Linear]:
        """Up, gate and down."""
        family, hidden = self._parts.family, self._parts.hidden_size
        name = f"{layer}.{family.mlp}" if family.mlp else layer
        gate = None
        if family.gate_up is not None:
            whole = self._parts.linear(f"{name}.{family.gate_up}", None, hidden, family.mlp_bias)
            width = whole.matrix.shape[0] // 2
            gate, up = (
                self._parts.linear(
                    f"{name}.{family.gate_up}", 2 * width, hidden, family.mlp_bias, part
                )
                for part in ((0, width), (width, 2 * width))
            )
        else:
            up = self._parts.linear(f"{name}.{family.up}", None, hidden, family.mlp_bias)
            width = up.matrix.shape[0]
            if family.gate is not None:
                gate = self._parts.linear(f"{name}.{family.gate}", width, hidden, family.mlp_bias)
        return up, gate, self._parts.linear(f"{name}.{family.down}", hidden, width, family.mlp_bias)

    def _xielu(self, layer: str) -> Xielu:
        name = f"{layer}.{self._parts.family.mlp}.act_fn"
        alphas = [
            self._parts.stored.vector(f"{name}.{each}", (1,)) for each in ("alpha_p", "alpha_n")
        ]
        numbers = [self._parts.stored.vector(f"{name}.{each}", ()) for each in ("beta", "eps")]
        return Xielu(*alphas, *numbers)

    def _layer_norm(self, layer: str, name: str | None) -> Norm | None:
        return (
            None
            if name is None
            else self._parts.norm(f"{layer}.{name}", (self._parts.hidden_size,))
        )

    def _rope(self, index: int) -> Rope | None:
        if self._ropes is None or not self._parts.family.turns(self._parts.config, index):
            return None
        return self._ropes.of(self._layer_type(index))

    def _layer_type(self, index: int) -> str | None:
        types = getattr(self._parts.config, "layer_types", None)
        return None if types is None else str(types[index])

    def _window(self, index: int) -> int | None:
        windows = self._parts.family.windows
        if windows is Windows.NONE:
            return None
        window = getattr(self._parts.config, "sliding_window", None)
        if windows is Windows.TYPED:
            kind = self._layer_type(index)
            if kind == "full_attention":
                return None
            if kind != "sliding_attention":
                raise Unsupported(f"layers of type {kind} are not described")
            if window is None:
                raise Unsupported("layer_types ask for a sliding_window that is not given")
        if window is not None and int(window) < 1:
            raise Unsupported(f"a sliding_window of {window} tokens")
        return None if window is None else int(window)
