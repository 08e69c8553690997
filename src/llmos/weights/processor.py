"""Which element types the processor computes with. Torch-free, so that an estimate made before a
worker starts and the driver inside it go by the same answer."""

from __future__ import annotations

from functools import cache
from pathlib import Path

_FLAGS = {
    "bfloat16": {"avx512_bf16", "amx_bf16", "bf16"},
    "float16": {"avx512_fp16", "amx_fp16"},
}


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
    return dtype if dtype == "float32" or (dtype in _FLAGS and computes(dtype)) else "float32"
