"""What kernels owe, however they were compiled."""

from __future__ import annotations

import numpy as np
import torch

from llmos.drivers.native.fused import binding as b
from llmos.weights.quantization import GROUP, Quantized, quantize, unpack_int4
from tests.unit.drivers.fused.products import (
    FLOATS,
    MOST_ROWS,
    open_product,
    quantized_rows,
)

KINDS = [*FLOATS, "int8", "int4"]
SHAPES = [(4, 1), (5, 5), (7, 16), (13, 31), (203, 77), (96, 128), (33, 130), (64, 256), (501, 200)]
"""N and K: whole vectors and parts of them, whole blocks of rows and parts."""

WIDTHS = [1, 2, 3, 4, 5, 6, 7, 8, 13, 17, 32, 47, 48, 49, 60, 97]
"""Rows of a step: every block of the kernels, and what is left over."""


def random_rows(num_rows: int, num_columns: int, seed: int = 1) -> torch.Tensor:
    x = torch.randn(num_rows, num_columns, generator=torch.Generator().manual_seed(seed))
    x[0] = 0.0
    return x * torch.logspace(-3, 3, num_rows)[:, None]


def random_weight(kind: str, num_rows: int, num_columns: int) -> torch.Tensor | Quantized:
    w = torch.randn(num_rows, num_columns, generator=torch.Generator().manual_seed(2))
    return w.to(FLOATS[kind]) if kind in FLOATS else quantize(w.numpy(), int(kind[3:]))


def check_rows_alone_and_together(library: b.Library, kind: str) -> None:
    """A row's product has the same bits in every width, place and number of threads."""
    for num_rows, num_columns in SHAPES:
        x, w = random_rows(97, num_columns), random_weight(kind, num_rows, num_columns)
        for num_threads in (1, 3):
            multiply = open_product(library, x, w, num_threads)
            if num_threads == 1:
                alone = torch.cat([multiply([row]) for row in range(97)])
            for width in WIDTHS:
                rows = [(5 * i + width) % 97 for i in range(width)]
                assert torch.equal(multiply(rows), alone[rows]), (kind, num_rows, num_columns)


def check_float_products(library: b.Library, kind: str) -> None:
    """Sums of K products, each rounded once: as close to the true one as that allows."""
    for num_rows, num_columns in SHAPES:
        x, w = random_rows(60, num_columns), random_weight(kind, num_rows, num_columns)
        assert isinstance(w, torch.Tensor)
        found = open_product(library, x, w)(list(range(60))).double()
        # a bfloat16 product is of rounded activations
        read = x.bfloat16() if kind == "bfloat16" else x
        expected = read.double() @ w.double().T
        bound = (read.double().abs() @ w.double().abs().T) * num_columns * 2.0**-24
        assert ((found - expected).abs() <= bound + 1e-30).all(), (kind, num_rows, num_columns)


def check_int8_products(library: b.Library) -> None:
    """Integers add up exactly; only scales are multiplied in floating point, in this order."""
    for num_rows, num_columns in SHAPES:
        x, w = random_rows(60, num_columns), random_weight("int8", num_rows, num_columns)
        assert isinstance(w, Quantized)
        q, scale = quantized_rows(x)
        sums = q @ w.q[:, :num_columns].astype(np.int64).T
        expected = sums.astype(np.float32) * (w.scale[None] * scale[:, None])
        found = open_product(library, x, w)(list(range(60)))
        assert torch.equal(found, torch.from_numpy(expected)), (num_rows, num_columns)


def check_int4_products(library: b.Library) -> None:
    """The same of groups; with scales that are powers of two, floating point is exact as well."""
    for num_rows, num_columns in SHAPES:
        x, w = random_rows(60, num_columns), random_weight("int4", num_rows, num_columns)
        assert isinstance(w, Quantized)
        for exact in (False, True):
            if exact:
                w.scale[:] = np.exp2(np.round(np.log2(w.scale))).astype(np.float32)
            q, scale = quantized_rows(x)
            weights = unpack_int4(w.q).astype(np.int64)
            padded = np.pad(q, ((0, 0), (0, weights.shape[1] - num_columns)))
            groups = np.einsum(
                "mgk,ngk->mng",
                padded.reshape(60, -1, GROUP),
                weights.reshape(num_rows, -1, GROUP),
            )
            expected = (groups * w.scale.astype(np.float64)[None]).sum(-1)
            found = open_product(library, x, w)(list(range(60))).double().numpy()
            if exact:
                expected32 = expected.astype(np.float32) * scale[:, None]
                assert (found == expected32).all(), (num_rows, num_columns)
            each = np.repeat(w.scale, GROUP, axis=1) * np.abs(weights)
            size = (np.abs(padded) @ each.T) * scale[:, None] + 1e-30
            worst = np.abs(found - expected * scale[:, None]) / size
            assert worst.max() < 1e-6, (num_rows, num_columns)


def check_the_largest_sums(library: b.Library) -> None:
    """As many columns as are read, all of one sign: no 32-bit sum overflows."""
    num_columns = 1 << 16
    for sign in (1, -1):
        x = torch.full((3, num_columns), 1.0)
        w = quantize(np.full((4, num_columns), sign, np.float32), 8)
        found = open_product(library, x, w)([0, 1, 2])
        assert torch.equal(found, torch.full((3, 4), sign * num_columns * 1.0))


def check_broken_rows(library: b.Library, kind: str) -> None:
    """What is not finite stays so, in its own row only."""
    x = torch.randn(9, 77, generator=torch.Generator().manual_seed(3))
    multiply = open_product(library, x, random_weight(kind, 13, 77))
    whole = multiply(list(range(9)))
    for value in (float("nan"), float("inf")):
        for place in (0, 40, 76):
            kept = x[4, place].item()
            x[4, place] = value
            found = multiply(list(range(9)))
            x[4, place] = kept
            assert not found[4].isfinite().any(), (kind, place)
            others = [row for row in range(9) if row != 4]
            assert torch.equal(found[others], whole[others])


def check_all(library: b.Library) -> None:
    assert max(WIDTHS) <= MOST_ROWS
    for kind in KINDS:
        check_rows_alone_and_together(library, kind)
        check_broken_rows(library, kind)
        if kind in FLOATS:
            check_float_products(library, kind)
    check_int8_products(library)
    check_int4_products(library)
    check_the_largest_sums(library)
