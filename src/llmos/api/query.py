"""What a route takes after the `?`: known names, one typed error for anything else."""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection
from typing import Any
from urllib.parse import parse_qsl

from llmos.errors import InvalidRequest, UnknownParameter
from llmos.shapes.fields import parse_int

MAX_FIELDS = 32
_YES = frozenset({"true", "1", ""})
_NO = frozenset({"false", "0"})


class Query:
    """The query string of one request. Every method raises InvalidRequest naming the field."""

    def __init__(self, raw: bytes, names: Collection[str]) -> None:
        try:
            pairs = parse_qsl(
                raw.decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=MAX_FIELDS,
            )
        except ValueError:
            raise InvalidRequest("The query string cannot be read.", param="query") from None
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in names:
                raise _unknown(name, names)
            if not value.isprintable():
                raise InvalidRequest(f"{name!r} has a character nothing has.", param=name)
            self._values.setdefault(name, []).append(value)

    def words(self, name: str, known: Collection[str]) -> frozenset[str]:
        """Given several times, or with commas. Empty: not given."""
        found = frozenset(word for value in self._values.get(name, ()) for word in value.split(","))
        if strange := sorted(found - set(known)):
            raise InvalidRequest(
                f"{name!r} is {strange[0][:64]!r}, not one of {', '.join(known)}.", param=name
            )
        return found

    def text(self, name: str) -> str | None:
        """Given once and not empty, or not at all."""
        value = self._one(name)
        if value == "":
            raise InvalidRequest(f"{name!r} is empty.", param=name)
        return value

    def flag(self, name: str) -> bool:
        """`true`, `1` or nothing; `false`, `0` or absent."""
        value = self._one(name)
        if value is None or value in _NO:
            return False
        if value not in _YES:
            raise InvalidRequest(f"{name!r} is neither true nor false.", param=name)
        return True

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A finite number from `low` to `high`."""
        value = self._one(name)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise InvalidRequest(f"{name!r} is a number from {low:g} to {high:g}.", param=name)
        return number

    def word(self, name: str, known: Collection[str]) -> str | None:
        """One of a few, or not given."""
        value = self._one(name)
        if value is not None and value not in known:
            raise InvalidRequest(
                f"{name!r} is {value[:64]!r}, not one of {', '.join(known)}.", param=name
            )
        return value

    def count(self, name: str, default: int, most: int, least: int = 1) -> int:
        """A whole number from `least` to `most`."""
        value = self._one(name)
        if value is None:
            return default
        number = parse_int(value)
        if number is None or not least <= number <= most:
            raise InvalidRequest(f"{name!r} is an integer from {least} to {most}.", param=name)
        return number

    def _one(self, name: str) -> str | None:
        values = self._values.get(name)
        if values is None:
            return None
        if len(values) > 1:
            raise InvalidRequest(f"{name!r} is given {len(values)} times.", param=name)
        return values[0]


def _unknown(name: str, names: Collection[str]) -> InvalidRequest:
    shown = name[:64].encode("ascii", "backslashreplace").decode()
    near = difflib.get_close_matches(shown, list(names), n=2)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    details: dict[str, Any] = {"near": near} if near else {}
    return UnknownParameter(f"Unknown parameter: {shown!r}.{hint}", param=shown, details=details)
