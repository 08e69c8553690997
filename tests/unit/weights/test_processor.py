"""Which type weights get on which processor, and what is said about it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from llmos.errors import InvalidRequest
from llmos.weights import processor
from llmos.weights.processor import choose_dtype

MODERN = frozenset({"amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx2"})
OLD = frozenset({"sse4_2", "avx2"})


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Callable[[frozenset[str]], None]:
    def has(found: frozenset[str]) -> None:
        monkeypatch.setattr(processor, "_flags", lambda: found)

    return has


def test_on_a_processor_with_everything(flags: Callable[[frozenset[str]], None]) -> None:
    flags(MODERN)
    found = choose_dtype("auto", "bfloat16")
    assert found.dtype == "bfloat16" and not found.warnings
    assert found.reason == "its files are bfloat16; the processor has amx_bf16, avx512_bf16"
    found = choose_dtype("int4", "bfloat16")
    assert found.dtype == "int4" and not found.warnings
    assert found.reason == "it was asked for; the processor has amx_int8, avx512_vnni"
    found = choose_dtype("auto", "int8")
    assert found.dtype == "int8" and "its files are int8" in found.reason


def test_on_an_old_one(flags: Callable[[frozenset[str]], None]) -> None:
    flags(OLD)
    found = choose_dtype("auto", "bfloat16")
    assert found.dtype == "float32" and not found.warnings
    assert "no arithmetic for (none of amx_bf16, avx512_bf16, bf16)" in found.reason
    for asked, stored in [("int8", "float32"), ("int4", "bfloat16"), ("auto", "int4")]:
        found = choose_dtype(asked, stored)
        assert found.dtype == (stored if asked == "auto" else asked)
        assert len(found.warnings) == 1 and "may be slower here than auto" in found.warnings[0]
    assert "slower here than float32" in choose_dtype("bfloat16", "float32").warnings[0]
    assert not choose_dtype("float32", "bfloat16").warnings


def test_an_accelerator_is_not_asked_about_the_processor(
    flags: Callable[[frozenset[str]], None],
) -> None:
    flags(OLD)
    assert choose_dtype("auto", "bfloat16", "cuda:0").dtype == "bfloat16"
    assert not choose_dtype("float16", "bfloat16", "cuda:0").warnings


@pytest.mark.parametrize(
    ("dtype", "small", "large"), [("int8", 260_032, 2_500_000), ("int4", 17_301_504, 58_720_256)]
)
def test_small_models_gain_nothing_by_fewer_bits(
    flags: Callable[[frozenset[str]], None], dtype: str, small: int, large: int
) -> None:
    flags(MODERN)
    (warning,) = choose_dtype(dtype, "bfloat16", "cpu", small).warnings
    assert f"{dtype} may be slower than bfloat16 when many streams decode together" in warning
    assert choose_dtype("auto", dtype, "cpu", small).warnings == [warning]
    assert not choose_dtype(dtype, "bfloat16", "cpu", large).warnings
    assert not choose_dtype(dtype, "bfloat16", "cuda", small).warnings
    assert not choose_dtype("auto", "bfloat16", "cpu", small).warnings
    flags(OLD)  # one reason is enough
    (warning,) = choose_dtype(dtype, "bfloat16", "cpu", small).warnings
    assert "none of" in warning


def test_what_cannot_be() -> None:
    with pytest.raises(InvalidRequest, match="'int3': not one of auto, float32"):
        choose_dtype("int3", "float32")
    for asked in ("float32", "int4"):
        with pytest.raises(InvalidRequest, match="its files are int8"):
            choose_dtype(asked, "int8")
