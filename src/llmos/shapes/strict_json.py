"""JSON as we accept it: RFC 8259 without duplicate keys, NaN, null bytes or lone surrogates.

Each of these is read differently by different parsers, so two programs would see two requests.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from llmos.errors import InvalidRequest

MAX_DEPTH = 32
"""Nested objects and arrays; deeper ones are refused before they reach a validator."""

_SUSPECT = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_BRACKET = re.compile(r"[\[{]")


class _DuplicateKey(Exception):
    """Raised inside the parser, found again with its path by a slower second pass."""


class _Pairs:
    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def parse(raw: bytes) -> Any:
    """The value of a JSON text. Raises InvalidRequest whose `param` is the path of the fault."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as e:
        raise InvalidRequest(f"The body is not UTF-8 (byte {e.start}).", param="body") from None
    try:
        value = _decode(text)
    except _DuplicateKey:
        path = next(_duplicates(json.loads(text, object_pairs_hook=_Pairs), ""), "body")
        raise InvalidRequest(f"Duplicate key {path!r}.", param=path) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.", param="body") from None
    except json.JSONDecodeError as e:
        raise InvalidRequest(f"The body is not JSON: {e}.", param="body") from None
    except ValueError as e:
        raise InvalidRequest(f"The body has a number out of range: {e}.", param="body") from None
    _check(value, text)
    return value


def parse_object(raw: bytes) -> dict[str, Any]:
    """As `parse`; what is not an object is refused."""
    value = parse(raw)
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.", param="body")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _DuplicateKey
    return made


def _no_constant(name: str) -> NoReturn:
    raise InvalidRequest(f"{name} is not a JSON number.", param="body")


_decode = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant).decode


def _check(value: Any, text: str) -> None:
    """The slow walk, only for texts in which something can be wrong."""
    suspect = "\0" in text or _SUSPECT.search(text) is not None
    brackets = itertools.islice(_BRACKET.finditer(text), MAX_DEPTH + 1)
    if not suspect and sum(1 for _ in brackets) <= MAX_DEPTH:
        return
    rest: list[tuple[Any, str, int]] = [(value, "", 0)]
    while rest:
        item, path, depth = rest.pop()
        if isinstance(item, str):
            if suspect:
                _check_text(item, path)
            continue
        if depth > MAX_DEPTH:
            raise InvalidRequest("The body is nested too deeply.", param=path or "body")
        if isinstance(item, dict):
            for key, inner in item.items():
                _check_text(key, path or "body")
                if isinstance(inner, str | dict | list):
                    rest.append((inner, join(path, key), depth + 1))
        elif isinstance(item, list):
            rest.extend(
                (inner, join(path, i), depth + 1)
                for i, inner in enumerate(item)
                if isinstance(inner, str | dict | list)
            )


def _check_text(text: str, path: str) -> None:
    if "\0" in text:
        raise InvalidRequest("A text has a null character.", param=path or "body")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidRequest(
            "A text has half of a surrogate pair, which is no character.", param=path or "body"
        ) from None


def _duplicates(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, inner in value.pairs:
            if key in seen:
                yield join(path, key)
            seen.add(key)
            yield from _duplicates(inner, join(path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from _duplicates(inner, join(path, i))


def join(path: str, part: str | int) -> str:
    """`messages` and `0` make `messages.0`."""
    return f"{path}.{part}" if path else str(part)
