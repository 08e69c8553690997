"""Types that fields of several shapes share, and their bounds."""

from __future__ import annotations

import math
from typing import Annotated, Any

import msgspec
from pydantic import BeforeValidator, Field
from pydantic_core import PydanticCustomError

MAX_INT32 = 2**31 - 1
MAX_DIGITS = 18
MAX_STOPS = 16
MAX_STOP_CHARS = 1024
MAX_STOP_TOKENS = 256


def fault(message: str, at: str = "", kind: str = "invalid") -> PydanticCustomError:
    """A validator's refusal; `at` is the path inside the field, `kind` may be `unsupported`."""
    return PydanticCustomError(kind, "{message}", {"message": message, "at": at})


def _one_or_many(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def parse_int(value: str | int | None) -> int | None:
    """A number as a form or a query writes it; None for what is none."""
    if isinstance(value, str):
        plain = value.isascii() and value.isdigit() and len(value) <= MAX_DIGITS
        return int(value) if plain else None
    return value


ModelName = Annotated[str, Field(min_length=1, max_length=256)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Probability = Annotated[float, Field(ge=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
TopK = Annotated[int, Field(ge=-1, le=MAX_INT32, description="vLLM's; 0 and -1 are off")]
RepetitionPenalty = Annotated[float, Field(gt=0, le=10)]
Seed = Annotated[int, Field(ge=-(2**63), le=2**63 - 1)]
TopLogprobs = Annotated[int, Field(ge=0, le=20)]
TokenCount = Annotated[int, Field(ge=1, le=MAX_INT32)]
TokenId = Annotated[int, Field(ge=0, le=MAX_INT32)]
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
Stops = Annotated[
    list[StopText],
    BeforeValidator(_one_or_many, json_schema_input_type=str | list[str]),
    Field(max_length=MAX_STOPS),
]
StopTokens = Annotated[list[TokenId], Field(max_length=MAX_STOP_TOKENS)]


def wire_sized(value: Any, at: str = "") -> Any:
    """Numbers as they can travel: integers of 64 bits, doubles. `at` is the path inside a field."""
    try:
        packed = msgspec.msgpack.encode(value)
    except OverflowError:
        raise fault("an integer of it is out of range (64 bits)", at) from None
    may_be = any(infinity in packed for infinity in _INFINITIES)
    if may_be and _has_infinity(value):  # it would be kept as null
        raise fault("a number of it is beyond a double", at)
    return value


_INFINITIES = tuple(msgspec.msgpack.encode(sign * math.inf) for sign in (1, -1))
"""As they are packed: a large value without these bytes need not be walked through."""


def _has_infinity(value: Any) -> bool:
    """In JSON as it was read: `1e999` is a number in it."""
    if isinstance(value, float):
        return not math.isfinite(value)
    if isinstance(value, dict):
        return any(map(_has_infinity, value.values()))
    return isinstance(value, list) and any(map(_has_infinity, value))


JsonObject = Annotated[dict[str, Any], BeforeValidator(wire_sized)]
JsonList = Annotated[list[Any], BeforeValidator(wire_sized)]
Metadata = Annotated[
    dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
    Field(max_length=16, description="OpenAI's bounds: 16 pairs, keys of 64, values of 512"),
]
