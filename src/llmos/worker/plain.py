"""What a program hands out, made plain: any JSON reader takes it, or one error says why not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from llmos.errors import InvalidRequest

MAX_DEPTH = 64
MAX_INT = 2**63 - 1
MAX_KEY_CHARS = 1000
_PATH_CHARS = 200


def plain(value: Any, where: str, max_bytes: int) -> Any:
    """A JSON-able copy of at most `max_bytes` of JSON.

    JSON knows no NaN and no infinity: they become the texts "NaN", "Infinity", "-Infinity". Half a
    surrogate pair is written as its escape. Raises InvalidRequest naming the place (`where.a.0`).
    """
    copy = _plain(value, where, 0)
    size = len(msgspec.json.encode(copy))
    if size > max_bytes:
        raise InvalidRequest(f"{where} takes {size} bytes as JSON, over {max_bytes}", param=where)
    return copy


def clean(text: str) -> str:
    """The text with half surrogates escaped, so that it can be encoded."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()
    return text


def _plain(value: Any, where: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return clean(str(value))
    if isinstance(value, int):
        return _integer(int(value), where)
    if isinstance(value, float):
        return _number(float(value))
    if depth >= MAX_DEPTH:
        raise _fault(where, f"is nested deeper than {MAX_DEPTH}")
    if isinstance(value, Mapping):
        return {_key(k, where): _plain(v, f"{where}.{k}", depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, f"{where}.{i}", depth + 1) for i, v in enumerate(value)]
    raise _fault(where, f"is a {type(value).__name__}, which JSON cannot hold")


def _integer(value: int, where: str) -> int:
    if not -MAX_INT - 1 <= value <= MAX_INT:
        raise _fault(where, "is an integer over 64 bits")
    return value


def _number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _key(key: Any, where: str) -> str:
    if not isinstance(key, str):
        raise _fault(where, f"has a key that is a {type(key).__name__}, not a text")
    if len(key) > MAX_KEY_CHARS:
        raise _fault(where, f"has a key of {len(key)} characters, over {MAX_KEY_CHARS}")
    return clean(key)


def _fault(where: str, what: str) -> InvalidRequest:
    place = clean(where[:_PATH_CHARS])
    return InvalidRequest(f"{place} {what}", param=place)
