"""Which element types the processor computes with. Torch-free, so that an estimate made before a
worker starts and the driver inside it go by the same answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from llmos.abi.driver import DtypeChoice
from llmos.errors import InvalidRequest

QUANTIZED = ("int8", "int4")
LOADABLE = ("float32", "bfloat16", "float16", *QUANTIZED)
"""What a model's weights may be asked to have in memory."""

_SMALL_PRODUCTS = {
    *("avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm", "sve2"),
}
_FLAGS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16"},
    "int8": _SMALL_PRODUCTS,
    "int4": _SMALL_PRODUCTS,
}

_SLOWER_BELOW = {"int8": 1_000_000, "int4": 50_000_000}
"""Parameters of a model up to which the type was found slower than bfloat16 where many streams
decode together (`make bench-quality`; int8: 0.95 x at 16 streams of 0.26 million, not of 1.5; int4:
0.97 x at 32 of 17 million, not of 59): its weights stay in the processor's cache, and what a
smaller type saves in reading them it spends on unpacking."""


@cache
def _flags() -> frozenset[str]:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        return frozenset()
    named = [line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))]
    return frozenset(named[0].split()) if named else frozenset()


def computes(dtype: str) -> bool:
    """Whether a type is worth loading a model in on this processor, by its name in a config."""
    return dtype not in _FLAGS or bool(_FLAGS[dtype] & _flags())


def loaded_dtype(dtype: str) -> str:
    """The type that a model of this type is loaded in on this processor."""
    wide = dtype == "float32" or dtype in QUANTIZED
    return dtype if wide or (dtype in _FLAGS and computes(dtype)) else "float32"


def features(dtype: str) -> list[str]:
    """What this processor has for products of this type, by the names of /proc/cpuinfo."""
    return sorted(_FLAGS.get(dtype, set()) & _flags())


def choose_dtype(
    asked: str, stored: str, device: str = "cpu", num_parameters: int = 0
) -> DtypeChoice:
    """The type to load weights in that are `stored` so, and why. `asked` may be `auto`;
    `num_parameters` 0: not known.

    Raises InvalidRequest for a type there is not, and for weights that are quantized already.
    """
    if asked != "auto" and asked not in LOADABLE:
        raise InvalidRequest(
            f"dtype {asked[:40]!r}: not one of auto, {', '.join(LOADABLE)}", param="dtype"
        )
    if stored in QUANTIZED and asked not in ("auto", stored):
        raise InvalidRequest(
            f"dtype {asked!r}: its files are {stored}, from which nothing else is made",
            param="dtype",
        )
    if device != "cpu":
        dtype = stored if asked == "auto" else asked
        return DtypeChoice(dtype, _origin(asked, stored), [])
    dtype = loaded_dtype(stored) if asked == "auto" else asked
    return DtypeChoice(dtype, _reason(asked, stored, dtype), _warnings(dtype, num_parameters))


def _origin(asked: str, stored: str) -> str:
    return f"its files are {stored}" if asked == "auto" else "it was asked for"


def _reason(asked: str, stored: str, dtype: str) -> str:
    origin = _origin(asked, stored)
    if asked == "auto" and dtype != stored:
        wanted = ", ".join(sorted(_FLAGS.get(stored, set())))
        return f"{origin}, which this processor has no arithmetic for (none of {wanted})"
    found = features(dtype)
    return f"{origin}; the processor has {', '.join(found)}" if found else origin


def _warnings(dtype: str, num_parameters: int) -> list[str]:
    """A type of fewer bits is meant to be faster: where it is not, that is said."""
    if not computes(dtype):
        wanted = ", ".join(sorted(_FLAGS[dtype]))
        other = "auto" if dtype in QUANTIZED else "float32"
        return [f"{dtype} may be slower here than {other}: this processor has none of {wanted}"]
    if 0 < num_parameters < _SLOWER_BELOW.get(dtype, 0):
        return [
            f"{dtype} may be slower than bfloat16 when many streams decode together: a model of "
            f"{num_parameters / 1e6:.2g} million parameters stays in the processor's cache"
        ]
    return []
