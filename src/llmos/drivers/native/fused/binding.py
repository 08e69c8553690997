"""The kernels' library through ctypes: its structs, field by field, and its functions.

The interpreter's lock is released during every call. What a struct points to must outlive it: see
`model.py`, which keeps both.
"""

from __future__ import annotations

import ctypes as c
from pathlib import Path
from typing import Any, Final

PAGE_TOKENS: Final = 16
"""Tokens of a page of keys and values."""

GROUP: Final = 64
"""Elements that share a scale in int4."""

KINDS: Final = {"float32": 0, "bfloat16": 1, "float16": 2, "int8": 3, "int4": 4}
NORMS: Final = {"rms": 1, "layer": 2}
NORM_OVER: Final = {"head": 0, "each": 1, "all": 2}
ACTIVATIONS: Final = {
    "silu": 0,
    "gelu": 1,
    "gelu_tanh": 2,
    "relu": 3,
    "relu2": 4,
    "quick_gelu": 5,
}


class Matrix(c.Structure):
    _fields_ = [
        ("data", c.c_void_p),
        ("scale", c.c_void_p),
        ("stride", c.c_int64),
        ("rows", c.c_int32),
        ("cols", c.c_int32),
        ("kind", c.c_int32),
    ]


class Linear(c.Structure):
    _fields_ = [("w", Matrix), ("bias", c.c_void_p)]


class Norm(c.Structure):
    _fields_ = [
        ("weight", c.c_void_p),
        ("bias", c.c_void_p),
        ("kind", c.c_int32),
        ("eps", c.c_float),
    ]


class Rope(c.Structure):
    _fields_ = [
        ("cos", c.c_void_p),
        ("sin", c.c_void_p),
        ("dim", c.c_int32),
        ("interleaved", c.c_int32),
    ]


class Heads(c.Structure):
    _fields_ = [
        ("num_heads", c.c_int32),
        ("num_kv_heads", c.c_int32),
        ("size", c.c_int32),
        ("padded", c.c_int32),
        ("window", c.c_int32),
        ("scale", c.c_float),
        ("softcap", c.c_float),
    ]


class Layer(c.Structure):
    _fields_ = [
        *((name, Linear) for name in ("q", "k", "v", "o", "gate", "up", "down")),
        *(
            (name, Norm)
            for name in ("q_norm", "k_norm", "pre_attn", "post_attn", "pre_mlp", "post_mlp")
        ),
        ("rope", Rope),
        ("heads", Heads),
        ("norm_over", c.c_int32),
        ("activation", c.c_int32),
        ("norm_after_rope", c.c_int32),
        ("parallel", c.c_int32),
        ("clip", c.c_float),
        ("residual_scale", c.c_float),
        ("kv", c.c_void_p),
    ]


class Model(c.Structure):
    _fields_ = [
        ("embed", Matrix),
        ("positions", Matrix),
        ("embed_norm", Norm),
        ("final_norm", Norm),
        ("head", Linear),
        ("layers", c.POINTER(Layer)),
        ("num_layers", c.c_int32),
        ("hidden", c.c_int32),
        ("vocab", c.c_int32),
        ("position_offset", c.c_int32),
        ("embed_scale", c.c_float),
        ("logit_scale", c.c_float),
        ("logit_softcap", c.c_float),
        ("kv_kind", c.c_int32),
        ("max_rows", c.c_int32),
    ]


class Segment(c.Structure):
    _fields_ = [
        ("pages", c.c_void_p),
        ("start", c.c_int32),
        ("row", c.c_int32),
        ("num_rows", c.c_int32),
    ]


class Step(c.Structure):
    _fields_ = [
        ("tokens", c.c_void_p),
        ("segments", c.POINTER(Segment)),
        ("wanted", c.c_void_p),
        ("logits", c.c_void_p),
        ("num_rows", c.c_int32),
        ("num_segments", c.c_int32),
        ("num_wanted", c.c_int32),
    ]


class Draw(c.Structure):
    _fields_ = [
        ("uniform", c.c_double),
        ("temperature", c.c_float),
        ("top_p", c.c_float),
        ("min_p", c.c_float),
        ("top_k", c.c_int32),
        ("greedy", c.c_int32),
    ]


class Library:
    """The functions. Raises OSError (not a library) or ValueError (one of other structs)."""

    def __init__(self, path: Path) -> None:
        lib = c.CDLL(str(path))
        lib.llmos_features.restype = c.c_char_p
        lib.llmos_sizes.restype = c.c_int64
        lib.llmos_close.argtypes = [c.c_void_p]
        lib.llmos_close.restype = None
        self.open = self._function(
            lib.llmos_open, c.POINTER(Model), c.c_int, c.c_int, c.POINTER(c.c_void_p)
        )
        self.forward = self._function(lib.llmos_forward, c.c_void_p, c.POINTER(Step))
        self.draw = self._function(
            lib.llmos_draw,
            c.c_void_p,
            c.c_void_p,
            c.c_int64,
            c.c_int,
            c.POINTER(Draw),
            c.c_void_p,
        )
        self.close = lib.llmos_close
        self.features: list[str] = lib.llmos_features().decode().split()
        ours = [c.sizeof(s) for s in (Model, Layer, Segment, Step, Draw)] + [PAGE_TOKENS]
        theirs = [lib.llmos_sizes(which) for which in range(len(ours))]
        if ours != theirs:
            raise ValueError(f"structs of {theirs} bytes, not {ours}")

    @staticmethod
    def _function(function: Any, *arguments: Any) -> Any:
        function.argtypes = arguments
        function.restype = c.c_char_p
        return function
