"""Shapes and sizes of quantized matrices: arithmetic, without numpy. What is in them is said in
`llmos.weights.quantization`."""

from __future__ import annotations

GROUP = 64
"""Columns that share a scale of int4."""

_INT8_COLUMNS = 64
_INT4_COLUMNS = 128


def padded(num_columns: int, bits: int) -> int:
    """Kp of K."""
    step = _INT8_COLUMNS if bits == 8 else _INT4_COLUMNS
    return -(-num_columns // step) * step


def q_shape(shape: tuple[int, int], bits: int) -> tuple[int, int]:
    """Of the array `q` of a matrix [N, K]."""
    return shape[0], padded(shape[1], bits) * bits // 8


def scale_shape(shape: tuple[int, int], bits: int) -> tuple[int, ...]:
    """Of the array `scale` of a matrix [N, K]."""
    return (shape[0],) if bits == 8 else (shape[0], padded(shape[1], bits) // GROUP)


def size_bytes(shape: tuple[int, int], bits: int) -> int:
    """Of a matrix [N, K] once it is quantized, scales included."""
    q, scale = q_shape(shape, bits), scale_shape(shape, bits)
    return q[0] * q[1] + 4 * scale[0] * (1 if bits == 8 else scale[1])
