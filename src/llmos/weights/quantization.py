"""Weights in 8 and 4 bits, row by row: the numbers' format, and how they are chosen.

    int8   W[N, K] = q[N, :K] * scale[N]           q int8 [N, Kp], Kp = K to the next 64, -127..127
    int4   W[N, K] = q[N, :K] * scale[N, K // 64]  Kp = K to the next 128, -8..7, stored plus 8

Of int4 each block of 128 columns takes 64 bytes: byte j holds column j in its low and column 64 + j
in its high half. Columns from K on hold q = 0. Kernels read these arrays as they are.

A matrix comes as float16, float32, float64, or as bfloat16 in the form of uint16. What a tensor is
called, and how it lies in files, is not known here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmos.errors import ModelRejected
from llmos.weights.quantlayout import GROUP, padded, q_shape, scale_shape, size_bytes

_BLOCK_ELEMENTS = 1 << 17
"""Worked on at once, so that what passes over it find it in the cache."""

_DIVISORS = (7.0, 7.5, 8.0, 8.75, 9.5, 10.5)
"""Scales tried for a group are its largest magnitude by these: beyond 7 a largest positive weight
is clipped, beyond 8 a negative one too, and all others have finer steps."""

__all__ = [
    "GROUP",
    "Quantized",
    "dequantize",
    "pack_int4",
    "padded",
    "q_shape",
    "quantize",
    "quantize_int4",
    "quantize_int8",
    "scale_shape",
    "size_bytes",
    "unpack_int4",
]

_TINY = float(np.finfo(np.float32).tiny)

Floats = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Quantized:
    """A matrix of `shape` [N, K] in `bits` 8 or 4; `q` and `scale` as this module says."""

    q: NDArray[np.int8] | NDArray[np.uint8]
    scale: Floats
    bits: int
    shape: tuple[int, int]

    @property
    def size_bytes(self) -> int:
        return self.q.nbytes + self.scale.nbytes


def quantize(weight: NDArray[Any], bits: int) -> Quantized:
    """Raises ModelRejected where a weight is no finite number."""
    return quantize_int8(weight) if bits == 8 else quantize_int4(weight)


def quantize_int8(weight: NDArray[Any]) -> Quantized:
    """One symmetric scale a row, of its largest magnitude. Raises ModelRejected."""
    return _quantize(weight, 8, np.int8, _int8_block)


def quantize_int4(weight: NDArray[Any]) -> Quantized:
    """A scale for 64 columns, the one of a few with the least squared error. Raises
    ModelRejected."""
    return _quantize(weight, 4, np.uint8, _int4_block)


def dequantize(quantized: Quantized) -> Floats:
    """The matrix [N, K] that these numbers stand for."""
    num_rows, num_columns = quantized.shape
    if quantized.bits == 8:
        rows = quantized.q.astype(np.float32) * quantized.scale[:, None]
        return np.ascontiguousarray(rows[:, :num_columns])
    groups = unpack_int4(quantized.q).reshape(num_rows, -1, GROUP).astype(np.float32)
    groups *= quantized.scale[:, :, None]
    return np.ascontiguousarray(groups.reshape(num_rows, -1)[:, :num_columns])


def pack_int4(q: NDArray[Any]) -> NDArray[np.uint8]:
    """From numbers in -8..7 [N, Kp] to bytes [N, Kp / 2]."""
    halves = (q + 8).astype(np.uint8).reshape(q.shape[0], -1, 2, GROUP)
    packed: NDArray[Any] = halves[:, :, 0] | (halves[:, :, 1] << 4)
    return packed.reshape(q.shape[0], -1)


def unpack_int4(packed: NDArray[Any]) -> NDArray[np.int8]:
    """The inverse of `pack_int4`."""
    blocks = packed.reshape(packed.shape[0], -1, GROUP)
    halves: NDArray[np.int8] = np.stack([blocks & 15, blocks >> 4], axis=2).astype(np.int8)
    halves -= np.int8(8)
    return halves.reshape(packed.shape[0], -1)


_Block = Callable[[Floats], tuple[NDArray[Any], Floats]]


def _quantize(weight: NDArray[Any], bits: int, dtype: Any, of_block: _Block) -> Quantized:
    shape = (weight.shape[0], weight.shape[1])
    q = np.empty(q_shape(shape, bits), dtype)
    scale = np.empty(scale_shape(shape, bits), np.float32)
    for rows, block in _blocks(weight, padded(shape[1], bits)):
        q[rows], scale[rows] = of_block(block)
    return Quantized(q, scale, bits, shape)


def _blocks(weight: NDArray[Any], num_columns: int) -> Iterator[tuple[slice, Floats]]:
    """Some rows after others as float32, with zeros up to `num_columns`."""
    step = max(1, _BLOCK_ELEMENTS // num_columns)
    for begin in range(0, weight.shape[0], step):
        rows = slice(begin, min(begin + step, weight.shape[0]))
        block = np.zeros((rows.stop - begin, num_columns), np.float32)
        block[:, : weight.shape[1]] = to_float32(weight[rows])
        yield rows, block


def to_float32(weight: NDArray[Any]) -> Floats:
    """The same numbers, of uint16 those of bfloat16. Raises ModelRejected unless all are finite."""
    if weight.dtype == np.uint16:
        wide = (weight.astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(over="ignore"):
            wide = weight.astype(np.float32)
    if not np.isfinite(wide).all():
        raise ModelRejected("holds weights that are not finite numbers")
    return wide


def _int8_block(block: Floats) -> tuple[NDArray[Any], Floats]:
    scale = np.maximum(np.abs(block).max(axis=1) / np.float32(127), np.float32(_TINY))
    q = np.rint(block / scale[:, None])
    return np.clip(q, -127, 127).astype(np.int8), scale


def _int4_block(block: Floats) -> tuple[NDArray[Any], Floats]:
    groups = block.reshape(block.shape[0], -1, GROUP)
    largest = np.abs(groups).max(axis=2)
    best = np.maximum(largest / np.float32(_DIVISORS[0]), np.float32(_TINY))
    least, work = np.full(largest.shape, np.inf, np.float32), np.empty_like(groups)
    # errors are counted in units of the largest magnitude, so that squares of tiny ones are not 0
    unit = np.float32(1) / np.maximum(largest, np.float32(_TINY))
    for divisor in _DIVISORS:
        scale = np.maximum(largest / np.float32(divisor), np.float32(_TINY))
        _round_int4(groups, scale, work)
        work *= scale[:, :, None]
        work -= groups
        work *= unit[:, :, None]
        error = np.einsum("ngk,ngk->ng", work, work)
        is_better = error < least
        best, least = np.where(is_better, scale, best), np.where(is_better, error, least)
    _round_int4(groups, best, work)
    return pack_int4(work.reshape(block.shape)), best


def _round_int4(groups: Floats, scale: Floats, out: Floats) -> None:
    np.divide(groups, scale[:, :, None], out=out)
    np.rint(out, out=out)
    np.maximum(out, np.float32(-8), out=out)
    np.minimum(out, np.float32(7), out=out)
