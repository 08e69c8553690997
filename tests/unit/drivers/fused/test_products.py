"""The kernels' products, as compiled for this machine."""

from __future__ import annotations

from functools import cache

import pytest

from llmos.drivers.native.fused import binding, build
from tests.unit.drivers.fused import kernel_checks as checks


@cache
def library() -> binding.Library:
    return binding.Library(build.library())


@pytest.mark.parametrize("kind", checks.KINDS)
def test_a_row_has_its_bits_alone_and_among_others(kind: str) -> None:
    checks.check_rows_alone_and_together(library(), kind)


@pytest.mark.parametrize("kind", checks.KINDS)
def test_what_is_not_finite_stays_in_its_row(kind: str) -> None:
    checks.check_broken_rows(library(), kind)


@pytest.mark.parametrize("kind", checks.FLOATS)
def test_floats(kind: str) -> None:
    checks.check_float_products(library(), kind)


def test_int8_is_exact() -> None:
    checks.check_int8_products(library())


def test_int4_is_exact() -> None:
    checks.check_int4_products(library())


def test_the_widest_matrix_does_not_overflow() -> None:
    checks.check_the_largest_sums(library())
