"""The format of 8- and 4-bit weights: what kernels rely on, bit by bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from llmos.errors import ModelRejected
from llmos.weights import quantization as qn


def _random(num_rows: int, num_columns: int, seed: int = 0, size: float = 0.02) -> NDArray[Any]:
    draws = np.random.default_rng(seed)
    return (draws.standard_normal((num_rows, num_columns)) * size).astype(np.float32)


def _bfloat16(weight: NDArray[Any]) -> NDArray[Any]:
    return (weight.view(np.uint32) >> 16).astype(np.uint16)


def test_int8_is_what_the_format_says() -> None:
    weight = _random(5, 100)
    weight[3] = 0
    done = qn.quantize_int8(weight)
    assert (done.q.dtype, done.q.shape) == (np.int8, (5, 128))
    assert (done.scale.dtype, done.scale.shape) == (np.float32, (5,))
    largest = np.abs(weight).max(axis=1)
    assert np.allclose(done.scale[[0, 1, 2, 4]], (largest / 127)[[0, 1, 2, 4]], rtol=1e-6)
    wanted = np.rint(weight / done.scale[:, None])
    assert (done.q[:, :100] == wanted).all() and not done.q[:, 100:].any()
    assert np.abs(done.q).max() == 127 and done.scale[3] > 0


def test_int4_lies_as_the_format_says() -> None:
    q = np.zeros((2, 256), np.int8)
    q[0, 0], q[0, 64], q[0, 63], q[0, 127] = -8, 7, 1, -1
    q[1, 128], q[1, 128 + 64 + 5] = 3, -3
    packed = qn.pack_int4(q)
    assert (packed.dtype, packed.shape) == (np.uint8, (2, 128))
    assert packed[0, 0] == (0 | 15 << 4)  # column 0 low, column 64 high, each plus 8
    assert packed[0, 63] == (9 | 7 << 4)
    assert packed[1, 64] == (11 | 8 << 4)
    assert packed[1, 69] == (8 | 5 << 4)
    assert (qn.unpack_int4(packed) == q).all()


def test_int4_scales_are_of_64_columns_and_padding_is_zero() -> None:
    weight = _random(3, 200)
    weight[:, :64] *= 1000
    done = qn.quantize_int4(weight)
    assert (done.q.dtype, done.q.shape) == (np.uint8, (3, 128))
    assert (done.scale.dtype, done.scale.shape) == (np.float32, (3, 4))
    assert (done.scale[:, 0] > 100 * done.scale[:, 1]).all() and (done.scale > 0).all()
    assert not qn.unpack_int4(done.q)[:, 200:].any()


def test_int4_clips_only_where_that_has_less_error() -> None:
    """Never worse than the plain scale, of largest by 7; better over all."""
    weight = _random(64, 512, size=1.0)
    groups = weight.reshape(64, -1, 64)
    plain = np.abs(groups).max(axis=2, keepdims=True) / 7
    plain_error = ((np.rint(groups / plain) * plain - groups) ** 2).sum(axis=2)
    found = qn.dequantize(qn.quantize_int4(weight)).reshape(groups.shape)
    error = ((found - groups) ** 2).sum(axis=2)
    assert (error <= plain_error * 1.0001).all()
    assert error.sum() < 0.9 * plain_error.sum()


@pytest.mark.parametrize(("bits", "worst"), [(8, 0.01), (4, 0.11)])
def test_how_near_it_comes(bits: int, worst: float) -> None:
    weight = _random(40, 300)
    error = qn.dequantize(qn.quantize(weight, bits)) - weight
    assert np.sqrt((error**2).mean() / (weight**2).mean()) < worst


@pytest.mark.parametrize("bits", [8, 4])
def test_all_types_of_a_matrix_give_the_same(bits: int) -> None:
    cut = _bfloat16(_random(9, 70))
    wide = (cut.astype(np.uint32) << 16).view(np.float32)
    for other in (wide, wide.astype(np.float64), np.asfortranarray(wide)):
        one, two = qn.quantize(cut, bits), qn.quantize(other, bits)
        assert (one.q == two.q).all() and (one.scale == two.scale).all()


@pytest.mark.parametrize("bits", [8, 4])
def test_blocks_do_not_show(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = _random(37, 130)
    whole = qn.quantize(weight, bits)
    monkeypatch.setattr(qn, "_BLOCK_ELEMENTS", 300)
    parts = qn.quantize(weight, bits)
    assert (whole.q == parts.q).all() and (whole.scale == parts.scale).all()


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(bits: int, bad: float) -> None:
    weight = _random(4, 64)
    weight[2, 3] = bad
    with pytest.raises(ModelRejected, match="not finite"):
        qn.quantize(weight, bits)
    with pytest.raises(ModelRejected, match="not finite"):
        qn.quantize(np.full((1, 1), 1e300), bits)


@settings(max_examples=200, deadline=None)
@given(
    bits=st.sampled_from([8, 4]),
    num_rows=st.integers(1, 5),
    num_columns=st.integers(1, 300),
    seed=st.integers(0, 1 << 30),
    exponent=st.integers(-44, 38),
)
def test_any_matrix(bits: int, num_rows: int, num_columns: int, seed: int, exponent: int) -> None:
    """Of any size of numbers, down to those that are not normal any more."""
    draws = np.random.default_rng(seed)
    weight = (draws.uniform(-1, 1, (num_rows, num_columns)) * 10.0**exponent).astype(np.float32)
    weight[draws.random(weight.shape) < 0.2] = 0
    done = qn.quantize(weight, bits)
    assert done.q.shape == qn.q_shape(weight.shape, bits)
    assert done.scale.shape == qn.scale_shape(weight.shape, bits)
    assert done.size_bytes == qn.size_bytes(weight.shape, bits)
    assert np.isfinite(done.scale).all() and (done.scale > 0).all()
    found = qn.dequantize(done)
    assert found.shape == weight.shape and np.isfinite(found).all()
    q = done.q if bits == 8 else qn.unpack_int4(done.q)
    assert q.min() >= (-127 if bits == 8 else -8) and not q[:, num_columns:].any()
    step = np.abs(weight).max() / (127 if bits == 8 else 7)
    # half a step, or what is clipped at the tightest scale that is tried
    room = 0.501 if bits == 8 else 7 - 7 * 7 / 10.5 + 0.01
    assert np.abs(found - weight).max() <= step * room + 1.2e-38
