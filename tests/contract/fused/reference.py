"""The generic forward of a described decoder, in plain torch: what the kernels must agree with.

Legend: T tokens, H query heads, K key/value heads, D head size, E hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F

from llmos.drivers.native.fused.spec import (
    Activation,
    Decoder,
    Layer,
    Linear,
    Matrix,
    Norm,
    NormKind,
    NormOver,
    Rope,
    RopeStyle,
    Vector,
    Xielu,
)


class Reference:
    """Computes logits TV in float32 (or `dtype`) for one sequence from position 0 on."""

    def __init__(
        self,
        decoder: Decoder,
        tensors: Mapping[str, torch.Tensor],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._decoder = decoder
        self._tensors = tensors
        self._dtype = dtype

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        decoder = self._decoder
        x_TE = self._matrix(decoder.embed)[torch.tensor(tokens)] * decoder.embed_scale
        if decoder.positions is not None:
            at = torch.arange(len(tokens)) + decoder.position_offset
            x_TE = x_TE + self._matrix(decoder.positions)[at]
        x_TE = self._norm(decoder.embed_norm, x_TE)
        for layer in decoder.layers:
            x_TE = self._layer(layer, x_TE)
        x_TE = self._norm(decoder.final_norm, x_TE)
        logits_TV = self._linear(decoder.head, x_TE) * decoder.logit_scale
        return _cap(logits_TV, decoder.logit_softcap)

    def _layer(self, layer: Layer, x_TE: torch.Tensor) -> torch.Tensor:
        attended = self._attend(layer, self._norm(layer.pre_attn, x_TE))
        attended = self._norm(layer.post_attn, attended) * layer.residual_scale
        if layer.parallel:
            return x_TE + attended + self._mlp(layer, x_TE)
        x_TE = x_TE + attended
        return x_TE + self._mlp(layer, x_TE)

    def _mlp(self, layer: Layer, x_TE: torch.Tensor) -> torch.Tensor:
        x_TE = self._norm(layer.pre_mlp, x_TE)
        up = self._linear(layer.up, x_TE)
        if layer.gate is None:
            inner = self._activate(layer, up)
        else:
            inner = self._activate(layer, self._linear(layer.gate, x_TE)) * up
        return self._norm(layer.post_mlp, self._linear(layer.down, inner)) * layer.residual_scale

    def _attend(self, layer: Layer, x_TE: torch.Tensor) -> torch.Tensor:
        num_tokens = len(x_TE)
        q_THD = self._project(layer, layer.q, layer.q_norm, x_TE, layer.num_heads)
        k_TKD = self._project(layer, layer.k, layer.k_norm, x_TE, layer.num_kv_heads)
        v_TKD = _clamp(self._linear(layer.v, x_TE), layer.clip)
        v_TKD = v_TKD.view(num_tokens, layer.num_kv_heads, layer.head_dim)
        groups = layer.num_heads // layer.num_kv_heads
        k_THD = k_TKD.repeat_interleave(groups, dim=1)
        v_THD = v_TKD.repeat_interleave(groups, dim=1)
        scores_HTT = torch.einsum("thd,shd->hts", q_THD, k_THD) * layer.scale
        scores_HTT = _cap(scores_HTT, layer.softcap)
        scores_HTT = scores_HTT.masked_fill(_hidden(num_tokens, layer.window), float("-inf"))
        out_THD = torch.einsum("hts,shd->thd", scores_HTT.softmax(-1), v_THD)
        return self._linear(layer.o, out_THD.reshape(num_tokens, -1))

    def _project(
        self, layer: Layer, linear: Linear, norm: Norm | None, x_TE: torch.Tensor, num_heads: int
    ) -> torch.Tensor:
        """Queries or keys, normalised and rotated."""
        flat = _clamp(self._linear(linear, x_TE), layer.clip)
        if norm is not None and layer.norm_over is NormOver.ALL:
            flat = self._norm(norm, flat)
        heads_THD = flat.view(len(flat), num_heads, layer.head_dim)
        if layer.norm_after_rope:
            heads_THD = _rotate(layer.rope, heads_THD)
        if norm is not None and layer.norm_over is not NormOver.ALL:
            heads_THD = self._norm(norm, heads_THD)
        return heads_THD if layer.norm_after_rope else _rotate(layer.rope, heads_THD)

    def _activate(self, layer: Layer, x: torch.Tensor) -> torch.Tensor:
        if layer.xielu is not None:
            return self._xielu(layer.xielu, x)
        return {
            Activation.SILU: F.silu,
            Activation.GELU: F.gelu,
            Activation.GELU_TANH: lambda t: F.gelu(t, approximate="tanh"),
            Activation.QUICK_GELU: lambda t: t * torch.sigmoid(1.702 * t),
            Activation.RELU: F.relu,
            Activation.RELU2: lambda t: F.relu(t) ** 2,
        }[layer.activation](x)

    def _xielu(self, numbers: Xielu, x: torch.Tensor) -> torch.Tensor:
        beta, eps = self._vector(numbers.beta), self._vector(numbers.eps)
        positive = F.softplus(self._vector(numbers.alpha_p))
        negative = beta + F.softplus(self._vector(numbers.alpha_n))
        below = (torch.expm1(torch.minimum(x, eps)) - x) * negative
        return torch.where(x > 0, positive * x * x, below) + beta * x

    def _norm(self, norm: Norm | None, x: torch.Tensor) -> torch.Tensor:
        if norm is None:
            return x
        if norm.kind is NormKind.LAYER:
            x = x - x.mean(-1, keepdim=True)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.eps)
        if norm.weight is not None:
            weight = self._vector(norm.weight).view(-1, x.shape[-1]).squeeze(0)
            x = x * (1 + weight if norm.plus_one else weight)
        return x if norm.bias is None else x + self._vector(norm.bias)

    def _linear(self, linear: Linear, x: torch.Tensor) -> torch.Tensor:
        bias = None if linear.bias is None else self._vector(linear.bias)
        return F.linear(x, self._matrix(linear.matrix), bias)

    def _matrix(self, matrix: Matrix) -> torch.Tensor:
        stored = self._tensors[matrix.name].to(self._dtype)
        rows = stored.T if matrix.transposed else stored
        taken = rows[matrix.start : matrix.stop] if matrix.rows is None else rows[matrix.rows]
        assert tuple(taken.shape) == matrix.shape
        return taken

    def _vector(self, vector: Vector) -> torch.Tensor:
        flat = self._tensors[vector.name].to(self._dtype).reshape(-1)
        taken = flat[vector.start : vector.stop] if vector.rows is None else flat[vector.rows]
        assert len(taken) == vector.size
        return taken


def _rotate(rope: Rope | None, heads_THD: torch.Tensor) -> torch.Tensor:
    """Positions count from 0."""
    if rope is None:
        return heads_THD
    angles = torch.arange(len(heads_THD))[:, None].float() * torch.from_numpy(rope.inv_freq)
    cos = (angles.cos() * rope.attention_factor).to(heads_THD.dtype)[:, None]
    sin = (angles.sin() * rope.attention_factor).to(heads_THD.dtype)[:, None]
    turned = heads_THD[..., : rope.rotary_dim]
    if rope.style is RopeStyle.HALF:
        a, b = turned.chunk(2, dim=-1)
        turned = torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
    else:
        a, b = turned[..., ::2], turned[..., 1::2]
        turned = torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
    return torch.cat([turned, heads_THD[..., rope.rotary_dim :]], dim=-1)


def _hidden(num_tokens: int, window: int | None) -> torch.Tensor:
    """What token t (row) does not see."""
    query, key = torch.arange(num_tokens)[:, None], torch.arange(num_tokens)[None]
    hidden = key > query
    return hidden if window is None else hidden | (key <= query - window)


def _clamp(x: torch.Tensor, clip: float | None) -> torch.Tensor:
    return x if clip is None else x.clamp(-clip, clip)


def _cap(x: torch.Tensor, cap: float | None) -> torch.Tensor:
    return x if cap is None else torch.tanh(x / cap) * cap
