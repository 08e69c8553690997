"""What a decoder computes, precise enough for one generic forward to compute it.

`describe` (describe.py) makes a `Decoder` from a Transformers config and the names and shapes of
the stored tensors. Nothing here knows an architecture, reads a file or imports torch. The forward,
in float32, of tokens at positions p (reference.py of the tests is the same in code):

    x = embed[token] * embed_scale; x += positions[p + position_offset]; x = embed_norm(x)
    for each layer:
        a = post_attn(attention(pre_attn(x)))
        sequential: x += residual_scale * a; x += residual_scale * post_mlp(mlp(pre_mlp(x)))
        parallel:   x += residual_scale * (a + post_mlp(mlp(pre_mlp(x))))      (x: the same one)
    logits = head(final_norm(x)) * logit_scale; then logit_softcap * tanh(logits / logit_softcap)

    attention: q, k, v are clamped to ±clip, split into heads, normalised and rotated (in this order
    unless `norm_after_rope`); scores = scale * q·k, then softcap * tanh(scores / softcap); token t
    sees keys j with t - window < j <= t; softmax; o.
    mlp: down(activation(gate(x)) * up(x)), without a gate down(activation(up(x))).

A norm, bias, clip, cap, window, rope or gate that is None is left out. Objects compare by identity:
layers of one rope share one `Rope`, and a parallel layer with one norm has it as both `pre_attn`
and `pre_mlp`.

Legend: N out features, K in features, D head size, R rotated part of the head.
"""

from __future__ import annotations

import dataclasses
import enum

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]


class Unsupported(Exception):
    """Not covered by the description; the text says why. The torch forward serves such a model."""


class NormKind(enum.StrEnum):
    """`RMS`: x / sqrt(mean(x²) + eps). `LAYER`: (x - mean) / sqrt(var + eps)."""

    RMS = "rms"
    LAYER = "layer"


class NormOver(enum.StrEnum):
    """What a norm of queries or keys normalises.

    `HEAD`: each head, with one weight [D] for all. `EACH`: each head, with its own slice of a
    weight [heads * D]. `ALL`: the whole projection [heads * D].
    """

    HEAD = "head"
    EACH = "each"
    ALL = "all"


class RopeStyle(enum.StrEnum):
    """Which elements turn together: `HALF` i and i + R/2; `INTERLEAVED` 2i and 2i + 1."""

    HALF = "half"
    INTERLEAVED = "interleaved"


class Activation(enum.StrEnum):
    """`GELU` is by erf, `GELU_TANH` its tanh form, `QUICK_GELU` x * sigmoid(1.702 x).

    `RELU2` is relu(x)². `XIELU` (arXiv:2411.13010) has numbers of its own: see `Xielu`.
    """

    SILU = "silu"
    GELU = "gelu"
    GELU_TANH = "gelu_tanh"
    QUICK_GELU = "quick_gelu"
    RELU = "relu"
    RELU2 = "relu2"
    XIELU = "xielu"


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Matrix:
    """A weight [N, K]: rows `start` to `stop` of the stored tensor, or its `rows` if given.

    `transposed`: the tensor is stored [K, N], so that start, stop and `rows` count its columns.
    """

    name: str
    start: int
    stop: int
    num_columns: int
    transposed: bool = False
    rows: Rows | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """N and K."""
        num_rows = self.stop - self.start if self.rows is None else len(self.rows)
        return num_rows, self.num_columns


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Vector:
    """Elements `start` to `stop` of the stored tensor, flattened, or its `rows` if given."""

    name: str
    start: int
    stop: int
    rows: Rows | None = None

    @property
    def size(self) -> int:
        """How many elements it has."""
        return self.stop - self.start if self.rows is None else len(self.rows)


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Linear:
    """x @ matrix.T + bias."""

    matrix: Matrix
    bias: Vector | None = None


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """Normalised x, times weight (1 + weight with `plus_one`), plus bias."""

    kind: NormKind
    eps: float
    weight: Vector | None = None
    bias: Vector | None = None
    plus_one: bool = False


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Rope:
    """Turns the first `rotary_dim` elements of a head by position * inv_freq, float32 [R/2].

    cos and sin are multiplied by `attention_factor`. A pair (a, b) becomes
    (a cos - b sin, b cos + a sin).
    """

    inv_freq: npt.NDArray[np.float32]
    rotary_dim: int
    style: RopeStyle = RopeStyle.HALF
    attention_factor: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Xielu:
    """Stored numbers of an activation, one element each. softplus(z) = log(1 + exp(z)).

    p = softplus(alpha_p), n = beta + softplus(alpha_n); x > 0: p x² + beta x; else:
    n (expm1(min(x, eps)) - x) + beta x.
    """

    alpha_p: Vector
    alpha_n: Vector
    beta: Vector
    eps: Vector


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One block. Query head h reads key/value head h // (num_heads // num_kv_heads)."""

    q: Linear
    k: Linear
    v: Linear
    o: Linear
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    up: Linear
    down: Linear
    activation: Activation
    gate: Linear | None = None
    xielu: Xielu | None = None
    q_norm: Norm | None = None
    k_norm: Norm | None = None
    norm_over: NormOver = NormOver.HEAD
    norm_after_rope: bool = False
    clip: float | None = None
    rope: Rope | None = None
    window: int | None = None
    softcap: float | None = None
    pre_attn: Norm | None = None
    post_attn: Norm | None = None
    pre_mlp: Norm | None = None
    post_mlp: Norm | None = None
    parallel: bool = False
    residual_scale: float = 1.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Decoder:
    """A whole model. `tied`: the head's matrix is the embedding's.

    `max_length`: the description holds for positions below it only (a table of positions ends, or
    the angles change with the length from there on); None: for all.
    """

    architecture: str
    vocab_size: int
    hidden_size: int
    embed: Matrix
    layers: tuple[Layer, ...]
    head: Linear
    tied: bool
    final_norm: Norm | None = None
    embed_scale: float = 1.0
    embed_norm: Norm | None = None
    positions: Matrix | None = None
    position_offset: int = 0
    logit_scale: float = 1.0
    logit_softcap: float | None = None
    max_length: int | None = None
