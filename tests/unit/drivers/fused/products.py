"""Products of the kernels alone: a model that is nothing but rows to look up and a head."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from llmos.drivers.native.fused import binding as b
from llmos.drivers.native.fused.engine import Engine, Piece
from llmos.drivers.native.fused.spec import Decoder, Linear, Matrix
from llmos.weights.quantization import Quantized

MOST_ROWS = 256
FLOATS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
Multiply = Callable[[list[int]], torch.Tensor]


class _Weights:
    """As much of `Weights` as an engine asks for."""

    def __init__(self, model: b.Model, alive: Any) -> None:
        self.layers: tuple[b.Layer, ...] = ()
        self.model = model
        self._alive = alive


def open_product(
    library: b.Library, x_MK: torch.Tensor, weight: torch.Tensor | Quantized, num_threads: int = 1
) -> Multiply:
    """Gives, for numbers of rows of `x_MK`, these rows times the matrix [N, K], float32."""
    engine = open_head(library, x_MK, weight, num_threads)
    table = array("i", [0])

    def multiply(rows: list[int]) -> torch.Tensor:
        return engine.forward([Piece(table, 0, rows, len(rows))]).clone()

    return multiply


def open_head(
    library: b.Library, x_MK: torch.Tensor, weight: torch.Tensor | Quantized, num_threads: int = 1
) -> Engine:
    """A model whose embedding is `x_MK` and whose head is the matrix [N, K]."""
    num_rows, num_columns = weight.shape
    model = b.Model(
        embed=_floats(x_MK),
        head=b.Linear(_quantized(weight) if isinstance(weight, Quantized) else _floats(weight)),
        hidden=num_columns,
        vocab=num_rows,
        embed_scale=1.0,
        logit_scale=1.0,
    )
    matrix = Matrix("", 0, num_rows, num_columns)
    decoder = Decoder("", num_rows, num_columns, matrix, (), Linear(matrix), False)
    return Engine(
        library,
        decoder,
        _Weights(model, (x_MK, weight)),  # type: ignore[arg-type]
        kv_dtype="float32",
        num_pages=1,
        max_rows=MOST_ROWS,
        max_wanted=MOST_ROWS,
        num_threads=num_threads,
    )


def _floats(matrix: torch.Tensor) -> b.Matrix:
    assert matrix.is_contiguous()
    names = {dtype: name for name, dtype in FLOATS.items()}
    return b.Matrix(
        data=matrix.data_ptr(),
        stride=matrix.shape[1] * matrix.itemsize,
        rows=matrix.shape[0],
        cols=matrix.shape[1],
        kind=b.KINDS[names[matrix.dtype]],
    )


def _quantized(matrix: Quantized) -> b.Matrix:
    q: NDArray[Any] = matrix.q
    return b.Matrix(
        data=q.ctypes.data,
        scale=matrix.scale.ctypes.data,
        stride=q.strides[0],
        rows=matrix.shape[0],
        cols=matrix.shape[1],
        kind=b.KINDS[f"int{matrix.bits}"],
    )


def quantized_rows(x_MK: torch.Tensor) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of activations as the integer kernels read them, and the scale of each."""
    x = x_MK.numpy()
    peak = np.abs(x).max(axis=1)
    with np.errstate(divide="ignore"):
        inverse = np.where(peak > 0, np.float32(127) / peak, np.float32(0)).astype(np.float32)
    return np.rint(x * inverse[:, None]).astype(np.int64), (peak / np.float32(127))
