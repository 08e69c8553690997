"""A described decoder and its files, made into the structs that kernels read.

Where a matrix is wanted in the type it is stored in, the struct points into the mapping of the
file: nothing is copied, and a replica that is parked only drops pages. Everything else (other
types, gathered or turned rows, vectors, tables of angles) is an array of our own.
"""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import torch

from llmos.drivers.native.fused import binding as b
from llmos.drivers.native.fused import spec
from llmos.drivers.native.fused.tensors import MappedTensors
from llmos.weights.quantization import Quantized, quantize

TORCH_DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
_NAMES = {dtype: name for name, dtype in TORCH_DTYPES.items()}
BITS = {"int8": 8, "int4": 4}
_FEWEST_ROWS = 4
"""Rows of a block of the kernels: a matrix of fewer has none."""

MAX_COLUMNS = 1 << 16
"""Columns whose products, as bytes, still add up in 32 bits."""


class Weights:
    """Of one decoder in one type, up to a context length. `model` is for `llmos_open`."""

    def __init__(
        self, decoder: spec.Decoder, tensors: MappedTensors, dtype: str, context_length: int
    ) -> None:
        self._tensors = tensors
        self._dtype = dtype
        self._context_length = context_length
        self._own: list[Any] = []
        self._made: dict[Any, b.Matrix] = {}
        self._ropes: dict[int, b.Rope] = {}
        self._pointed: set[int] = set()
        self.own_bytes = self.mapped_bytes = 0
        self.layers = (b.Layer * len(decoder.layers))(*map(self._layer, decoder.layers))
        self.model = self._model(decoder)

    @property
    def size_bytes(self) -> int:
        """Of all weights, each once."""
        return self.own_bytes + self.mapped_bytes

    def _model(self, d: spec.Decoder) -> b.Model:
        return b.Model(
            embed=self._lookup(d.embed),
            positions=self._lookup(d.positions),
            embed_norm=self._norm(d.embed_norm),
            final_norm=self._norm(d.final_norm),
            head=self._head(d),
            layers=self.layers,
            num_layers=len(d.layers),
            hidden=d.hidden_size,
            vocab=d.vocab_size,
            position_offset=d.position_offset,
            embed_scale=d.embed_scale,
            logit_scale=d.logit_scale,
            logit_softcap=d.logit_softcap or 0.0,
        )

    def _layer(self, layer: spec.Layer) -> b.Layer:
        if not isinstance(layer.activation, spec.Activation):
            raise spec.Unsupported(f"the activation {type(layer.activation).__name__}")
        if layer.activation.value not in b.ACTIVATIONS:
            raise spec.Unsupported(f"the activation {layer.activation.value}")
        return b.Layer(
            q=self._linear(layer.q),
            k=self._linear(layer.k),
            v=self._linear(layer.v),
            o=self._linear(layer.o),
            gate=self._linear(layer.gate),
            up=self._linear(layer.up),
            down=self._linear(layer.down),
            q_norm=self._norm(layer.q_norm),
            k_norm=self._norm(layer.k_norm),
            pre_attn=self._norm(layer.pre_attn),
            post_attn=self._norm(layer.post_attn),
            pre_mlp=self._norm(layer.pre_mlp),
            post_mlp=self._norm(layer.post_mlp),
            rope=self._rope(layer.rope),
            heads=b.Heads(
                num_heads=layer.num_heads,
                num_kv_heads=layer.num_kv_heads,
                size=layer.head_dim,
                padded=padded(layer.head_dim),
                window=layer.window or 0,
                scale=layer.scale,
                softcap=layer.softcap or 0.0,
            ),
            norm_over=b.NORM_OVER[layer.norm_over.value],
            activation=b.ACTIVATIONS[layer.activation.value],
            norm_after_rope=layer.norm_after_rope,
            parallel=layer.parallel,
            clip=layer.clip or 0.0,
            residual_scale=layer.residual_scale,
        )

    def _head(self, d: spec.Decoder) -> b.Linear:
        """A tied head that is quantized is a matrix of its own, under the name it would have."""
        bits = 8 if self._dtype in BITS else None
        stored = self._tensors.find_quantized("lm_head.weight") if d.tied else None
        if stored is not None:
            return b.Linear(self._quantized(stored, 0, d.vocab_size), None)
        return b.Linear(self._matrix(d.head.matrix, bits), self._vector(d.head.bias))

    def _linear(self, linear: spec.Linear | None) -> b.Linear:
        if linear is None:
            return b.Linear()
        bits = BITS.get(self._dtype)
        return b.Linear(self._matrix(linear.matrix, bits), self._vector(linear.bias))

    def _lookup(self, matrix: spec.Matrix | None) -> b.Matrix:
        """Rows of it are read one by one: in whatever type they are stored."""
        if matrix is None:
            return b.Matrix()
        rows = self._rows(matrix)
        return self._pointing(rows if rows.dtype in _NAMES else rows.float())

    def _matrix(self, matrix: spec.Matrix, bits: int | None) -> b.Matrix:
        num_rows, num_columns = matrix.shape
        if num_rows < _FEWEST_ROWS or num_columns > MAX_COLUMNS:
            raise spec.Unsupported(f"{matrix.name}: a matrix of {num_rows} by {num_columns}")
        stored = self._tensors.find_quantized(matrix.name)
        if stored is not None:
            return self._part_of(stored, matrix)
        key = (matrix.name, matrix.start, matrix.stop, matrix.rows is None, bits)
        if matrix.rows is None and key in self._made:
            return self._made[key]
        rows = self._rows(matrix)
        if bits is None:
            made = self._pointing(rows.to(TORCH_DTYPES[self._dtype]).contiguous())
        else:
            made = self._quantized(_quantize(rows, bits), 0, num_rows)
        self._made[key] = made
        return made

    def _part_of(self, stored: Quantized, matrix: spec.Matrix) -> b.Matrix:
        """Stored matrices are [N, K], also those that were turned for it."""
        if matrix.rows is None:
            return self._quantized(stored, matrix.start, matrix.stop)
        q: Any = np.ascontiguousarray(stored.q[matrix.rows])
        part = Quantized(
            q,
            np.ascontiguousarray(stored.scale[matrix.rows]),
            stored.bits,
            matrix.shape,
        )
        return self._quantized(part, 0, len(matrix.rows))

    def _rows(self, matrix: spec.Matrix) -> torch.Tensor:
        """[N, K], a view of the file where that can be."""
        stored = self._tensors.get(matrix.name)
        if matrix.transposed:
            stored = stored.T
        if matrix.rows is not None:
            return stored[torch.from_numpy(matrix.rows)].contiguous()
        return stored[matrix.start : matrix.stop].contiguous()

    def _pointing(self, rows: torch.Tensor) -> b.Matrix:
        counted = rows.data_ptr() in self._pointed  # a tied head's are the embedding's
        self._keep(rows, 0 if counted else rows.nbytes)
        self._pointed.add(rows.data_ptr())
        return b.Matrix(
            data=rows.data_ptr(),
            stride=rows.shape[1] * rows.itemsize,
            rows=rows.shape[0],
            cols=rows.shape[1],
            kind=b.KINDS[_NAMES[rows.dtype]],
        )

    def _quantized(self, q: Quantized, start: int, stop: int) -> b.Matrix:
        self._keep(q, (stop - start) * q.size_bytes // max(1, q.shape[0]), q.q)
        per_row = 1 if q.bits == 8 else q.scale.shape[1]
        return b.Matrix(
            data=q.q.ctypes.data + start * q.q.strides[0],
            scale=q.scale.ctypes.data + start * per_row * 4,
            stride=q.q.strides[0],
            rows=stop - start,
            cols=q.shape[1],
            kind=b.KINDS["int8" if q.bits == 8 else "int4"],
        )

    def _keep(self, found: Any, size_bytes: int, array: Any = None) -> None:
        """Alive as long as this; counted as memory of files or our own."""
        self._own.append(found)
        mapped = isinstance(array, np.memmap) or (
            isinstance(found, torch.Tensor) and self._tensors.holds(found.data_ptr())
        )
        if mapped:
            self.mapped_bytes += size_bytes
        else:
            self.own_bytes += size_bytes

    def _vector(self, vector: spec.Vector | None, add: float = 0.0) -> int | None:
        if vector is None:
            return None
        stored = self._tensors.get(vector.name).flatten()
        part = stored[vector.start : vector.stop]
        if vector.rows is not None:
            part = stored[torch.from_numpy(vector.rows)]
        made = part.to(torch.float32, copy=True) + add
        self._keep(made, made.nbytes)
        return made.data_ptr()

    def _norm(self, norm: spec.Norm | None) -> b.Norm:
        if norm is None:
            return b.Norm()
        weight = self._vector(norm.weight, 1.0 if norm.plus_one else 0.0)
        return b.Norm(weight, self._vector(norm.bias), b.NORMS[norm.kind.value], norm.eps)

    def _rope(self, rope: spec.Rope | None) -> b.Rope:
        """Angles in float32, as Transformers computes them. One table for layers that share it."""
        if rope is None:
            return b.Rope()
        made = self._ropes.get(id(rope))
        if made is None:
            positions = torch.arange(self._context_length, dtype=torch.float32)
            angles = positions[:, None] * torch.from_numpy(rope.inv_freq)[None]
            cos = (angles.cos() * rope.attention_factor).contiguous()
            sin = (angles.sin() * rope.attention_factor).contiguous()
            self._keep((rope, cos, sin), cos.nbytes + sin.nbytes)
            interleaved = rope.style is spec.RopeStyle.INTERLEAVED
            made = b.Rope(cos.data_ptr(), sin.data_ptr(), rope.rotary_dim, interleaved)
            self._ropes[id(rope)] = made
        return made


def padded(size: int) -> int:
    """A head's elements as pages hold them: whole vectors."""
    return -(-size // 16) * 16


def _quantize(rows: torch.Tensor, bits: int) -> Quantized:
    rows = rows.contiguous()
    if rows.dtype is torch.bfloat16:
        return quantize(rows.view(torch.uint16).numpy(), bits)
    return quantize(rows.numpy(), bits)


def kv_bytes_per_token(decoder: spec.Decoder, item_bytes: int) -> int:
    """Keys and values of all layers, padding included."""
    return sum(
        layer.num_kv_heads * 2 * padded(layer.head_dim) * item_bytes for layer in decoder.layers
    )


def address(array: ctypes.Array[Any]) -> int:
    """Where a ctypes array begins."""
    return ctypes.addressof(array)


def num_pages(num_tokens: int) -> int:
    """Pages that so many tokens take."""
    return math.ceil(num_tokens / b.PAGE_TOKENS)
