"""A Transformers config and the stored tensors' names and shapes, made into a `Decoder`.

Nothing is guessed: what the description cannot say is refused with its reason, and the driver's
torch forward serves the model.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from llmos.drivers.native.fused.families import FAMILIES
from llmos.drivers.native.fused.family import Family, Fused, Switch, Windows
from llmos.drivers.native.fused.rope import RopeTables, read_rope
from llmos.drivers.native.fused.spec import (
    Activation,
    Decoder,
    Layer,
    Linear,
    Matrix,
    Norm,
    NormOver,
    Rope,
    Unsupported,
    Xielu,
)
from llmos.drivers.native.fused.stored import Part, Stored

_ACTIVATIONS = {
    "silu": Activation.SILU,
    "swish": Activation.SILU,
    "gelu": Activation.GELU,
    "gelu_python": Activation.GELU,
    "gelu_new": Activation.GELU_TANH,
    "gelu_fast": Activation.GELU_TANH,
    "gelu_accurate": Activation.GELU_TANH,
    "gelu_pytorch_tanh": Activation.GELU_TANH,
    "gelu_python_tanh": Activation.GELU_TANH,
    "quick_gelu": Activation.QUICK_GELU,
    "relu": Activation.RELU,
    "relu2": Activation.RELU2,
    "xielu": Activation.XIELU,
}
"""By Transformers' names."""
_FOREIGN = (
    ("is_heterogeneous", "its layers have configs of their own"),
    ("use_bidirectional_attention", "its tokens see later ones"),
    ("is_encoder_decoder", "it has an encoder"),
    ("add_cross_attention", "it has cross-attention"),
    ("quantization_config", "its weights are quantized"),
)
"""Switches of any config that change the forward."""


def describe(config: Any, tensors: Mapping[str, tuple[int, ...]]) -> Decoder:
    """`config` names its architecture. Raises Unsupported with the reason."""
    architecture = (getattr(config, "architectures", None) or [""])[0]
    family = FAMILIES.get(architecture)
    if family is None:
        raise Unsupported(f"{architecture or 'the model'} has no description")
    for name, reason in _FOREIGN:
        if getattr(config, name, None):
            raise Unsupported(f"{reason} ({name})")
    refusal = family.refuse(config)
    if refusal is not None:
        raise Unsupported(refusal)
    return _Reader(config, family, tensors).decoder()


class _Reader:
    """Reads one model by its family."""

    def __init__(self, config: Any, family: Family, tensors: Mapping[str, tuple[int, ...]]) -> None:
        self._config = config
        self._family = family
        self._stored = Stored(tensors, family.base.split(".", maxsplit=1)[0])
        self._hidden = int(config.hidden_size)
        self._num_heads = int(config.num_attention_heads)
        self._num_kv = int(config.num_key_value_heads) if family.grouped else self._num_heads
        own = getattr(config, "head_dim", None) if family.own_head_dim else None
        self._head_dim = int(own or self._hidden // self._num_heads)
        if self._num_heads % self._num_kv:
            raise Unsupported(f"{self._num_heads} heads for {self._num_kv} keys and values")
        if not family.own_head_dim and self._head_dim * self._num_heads != self._hidden:
            raise Unsupported(f"{self._num_heads} heads for a width of {self._hidden}")
        self._ropes = self._read_ropes()

    def decoder(self) -> Decoder:
        """The whole model."""
        family, config = self._family, self._config
        embed, head, tied = self._ends()
        positions = self._positions()
        bounds = [self._ropes.max_length if self._ropes else None, family.max_length(config)]
        bounds.append(positions.shape[0] - family.position_offset if positions else None)
        return Decoder(
            architecture=config.architectures[0],
            vocab_size=int(config.vocab_size),
            hidden_size=self._hidden,
            embed=embed,
            layers=tuple(self._layer(i) for i in range(int(config.num_hidden_layers))),
            head=head,
            tied=tied,
            final_norm=self._norm(f"{family.base}.{family.final_norm}", (self._hidden,)),
            embed_scale=family.embed_scale(config),
            embed_norm=self._norm("", (self._hidden,)) if family.embed_norm else None,
            positions=positions,
            position_offset=family.position_offset,
            logit_scale=family.logit_scale(config),
            logit_softcap=self._find_number(family.logit_softcap),
            max_length=min((b for b in bounds if b is not None), default=None),
        )

    def _read_ropes(self) -> RopeTables | None:
        if self._family.rope is None:
            return None
        return read_rope(
            self._config,
            self._head_dim,
            self._family.rope,
            partial=self._family.partial,
            backwards=self._family.backwards,
        )

    def _ends(self) -> tuple[Matrix, Linear, bool]:
        """Embedding, head, and whether they are one. Stored twice, each is what its file says."""
        vocab_size = int(self._config.vocab_size)
        embed_name = f"{self._family.base}.{self._family.embed}.weight"
        heads = [f"{name}.weight" for name in self._family.heads]
        stored = [name for name in heads if self._stored.has(name)]
        if len(stored) > 1:
            raise Unsupported(f"two heads are stored: {' and '.join(stored)}")
        head_name = stored[0] if stored else heads[0]
        if self._is_on("tie_word_embeddings"):
            if not stored:
                head_name = embed_name
            elif not self._stored.has(embed_name):
                embed_name = head_name
        embed = self._stored.matrix(embed_name, vocab_size, self._hidden)
        tied = head_name == embed_name
        matrix = embed if tied else self._stored.matrix(head_name, vocab_size, self._hidden)
        bias = None
        if self._family.head_bias:
            bias = self._stored.vector(f"{self._family.heads[0]}.bias", (vocab_size,))
        return embed, Linear(matrix, bias), tied

    def _positions(self) -> Matrix | None:
        family = self._family
        if family.positions is None:
            return None
        num_rows = int(self._config.max_position_embeddings) + family.position_offset
        return self._stored.matrix(
            f"{family.base}.{family.positions}.weight", num_rows, self._hidden
        )

    def _layer(self, index: int) -> Layer:
        family, config = self._family, self._config
        name = f"{family.base}.{family.layers}.{index}"
        q, k, v = self._qkv(f"{name}.{family.attention}")
        heads_size = self._num_heads * self._head_dim
        q_norm, k_norm = self._qk_norms(f"{name}.{family.attention}")
        up, gate, down = self._mlp(name)
        activation = self._activation()
        pre_attn = self._layer_norm(name, family.pre_attn)
        shared = family.pre_attn is not None and family.pre_attn == family.pre_mlp
        return Layer(
            q=q,
            k=k,
            v=v,
            o=self._linear(
                f"{name}.{family.attention}.{family.o}", self._hidden, heads_size, family.o_bias
            ),
            num_heads=self._num_heads,
            num_kv_heads=self._num_kv,
            head_dim=self._head_dim,
            scale=family.scale(config, self._head_dim, index),
            up=up,
            down=down,
            activation=activation,
            gate=gate,
            xielu=self._xielu(name) if activation is Activation.XIELU else None,
            q_norm=q_norm,
            k_norm=k_norm,
            norm_over=family.norm_over,
            norm_after_rope=family.norm_after_rope,
            clip=self._find_number(family.clip),
            rope=self._rope(index),
            window=self._window(index),
            softcap=self._find_number(family.softcap),
            pre_attn=pre_attn,
            post_attn=self._layer_norm(name, family.post_attn),
            pre_mlp=pre_attn if shared else self._layer_norm(name, family.pre_mlp),
            post_mlp=self._layer_norm(name, family.post_mlp),
            parallel=self._is_on(family.parallel),
            residual_scale=family.residual_scale(config),
        )

    def _qkv(self, name: str) -> tuple[Linear, Linear, Linear]:
        family, head_dim = self._family, self._head_dim
        sizes = [num * head_dim for num in (self._num_heads, self._num_kv, self._num_kv)]
        fused = family.fused(self._config)
        if fused is Fused.APART:
            names = (family.q, family.k, family.v)
            q, k, v = (
                self._linear(f"{name}.{each}", size, self._hidden, family.qkv_bias)
                for each, size in zip(names, sizes, strict=True)
            )
            return q, k, v
        total = sum(sizes)
        if fused is Fused.BLOCKS:
            ends = np.cumsum(sizes).tolist()
            parts: list[Part] = [(end - size, end) for size, end in zip(sizes, ends, strict=True)]
        else:
            heads = np.arange(self._num_heads)[:, None] * 3 * head_dim
            parts = [
                (heads + which * head_dim + np.arange(head_dim)).reshape(-1) for which in range(3)
            ]
        q, k, v = (
            self._linear(f"{name}.{family.qkv}", total, self._hidden, family.qkv_bias, part)
            for part in parts
        )
        return q, k, v

    def _qk_norms(self, name: str) -> tuple[Norm | None, Norm | None]:
        family = self._family
        if not self._is_on(family.qk_norm):
            return None, None

        def shape(num_heads: int) -> tuple[int, ...]:
            if family.norm_over is NormOver.HEAD:
                return (self._head_dim,)
            if family.norm_over is NormOver.EACH:
                return (num_heads, self._head_dim)
            return (num_heads * self._head_dim,)

        return (
            self._norm(f"{name}.{family.q_norm}", shape(self._num_heads)),
            self._norm(f"{name}.{family.k_norm}", shape(self._num_kv)),
        )

    def _mlp(self, layer: str) -> tuple[Linear, Linear | None, Linear]:
        """Up, gate and down."""
        family, hidden = self._family, self._hidden
        name = f"{layer}.{family.mlp}" if family.mlp else layer
        gate = None
        if family.gate_up is not None:
            whole = self._linear(f"{name}.{family.gate_up}", None, hidden, family.mlp_bias)
            width = whole.matrix.shape[0] // 2
            gate, up = (
                self._linear(f"{name}.{family.gate_up}", 2 * width, hidden, family.mlp_bias, part)
                for part in ((0, width), (width, 2 * width))
            )
        else:
            up = self._linear(f"{name}.{family.up}", None, hidden, family.mlp_bias)
            width = up.matrix.shape[0]
            if family.gate is not None:
                gate = self._linear(f"{name}.{family.gate}", width, hidden, family.mlp_bias)
        return up, gate, self._linear(f"{name}.{family.down}", hidden, width, family.mlp_bias)

    def _linear(
        self,
        name: str,
        num_rows: int | None,
        num_columns: int,
        bias: Switch,
        part: Part | None = None,
    ) -> Linear:
        # GPT-2 stores all the weights of a layer transposed
        matrix = self._stored.matrix(
            f"{name}.weight", num_rows, num_columns, part, transposed=self._family.transposed
        )
        if not self._is_on(bias):
            return Linear(matrix)
        total = matrix.shape[0] if num_rows is None else num_rows
        return Linear(matrix, self._stored.vector(f"{name}.bias", (total,), part))

    def _layer_norm(self, layer: str, name: str | None) -> Norm | None:
        return None if name is None else self._norm(f"{layer}.{name}", (self._hidden,))

    def _norm(self, name: str, shape: tuple[int, ...]) -> Norm:
        family = self._family
        eps = self._get(family.eps) if isinstance(family.eps, str) else family.eps
        weighted, biased = self._is_on(family.norm_weight), self._is_on(family.norm_bias)
        return Norm(
            kind=family.norm,
            eps=float(eps),
            weight=self._stored.vector(f"{name}.weight", shape) if weighted else None,
            bias=self._stored.vector(f"{name}.bias", shape) if biased else None,
            plus_one=family.plus_one,
        )

    def _activation(self) -> Activation:
        said = self._get(self._family.activation)
        activation = _ACTIVATIONS.get(said)
        if activation is None:
            raise Unsupported(f"the activation {str(said)[:80]} is not described")
        if activation is Activation.XIELU and self._family.gate is not None:
            raise Unsupported("xielu with a gate is not described")
        return activation

    def _xielu(self, layer: str) -> Xielu:
        name = f"{layer}.{self._family.mlp}.act_fn"
        alphas = [self._stored.vector(f"{name}.{each}", (1,)) for each in ("alpha_p", "alpha_n")]
        numbers = [self._stored.vector(f"{name}.{each}", ()) for each in ("beta", "eps")]
        return Xielu(*alphas, *numbers)

    def _rope(self, index: int) -> Rope | None:
        if self._ropes is None or not self._family.turns(self._config, index):
            return None
        return self._ropes.of(self._layer_type(index))

    def _layer_type(self, index: int) -> str | None:
        types = getattr(self._config, "layer_types", None)
        return None if types is None else str(types[index])

    def _window(self, index: int) -> int | None:
        windows = self._family.windows
        if windows is Windows.NONE:
            return None
        window = getattr(self._config, "sliding_window", None)
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

    def _is_on(self, switch: Switch) -> bool:
        return switch if isinstance(switch, bool) else bool(self._get(switch))

    def _find_number(self, name: str | None) -> float | None:
        value = None if name is None else self._get(name)
        return None if value is None else float(value)

    def _get(self, name: str) -> Any:
        try:
            return getattr(self._config, name)
        except AttributeError as error:
            raise Unsupported(f"the config has no {name}") from error
