"""What a request says outside its body, one object each: it reads its value and describes itself.

A route names the same objects to its handler and to the OpenAPI document, so the two cannot
differ.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from llmos.errors import InvalidRequest
from llmos.shapes.fields import parse_int

T_co = TypeVar("T_co", covariant=True)

_YES = frozenset({"true", "1", ""})
_NO = frozenset({"false", "0"})


@dataclass(frozen=True, slots=True)
class Parameter(ABC, Generic[T_co]):
    """A field of a query, a header or a form. `meaning` is for people."""

    name: str
    meaning: str
    required: bool = field(default=False, kw_only=True)

    @abstractmethod
    def read(self, values: list[str]) -> T_co:
        """Of all values given under its name. Raises InvalidRequest naming it."""

    @property
    @abstractmethod
    def schema(self) -> dict[str, Any]:
        """As JSON Schema has it."""

    def one(self, values: list[str]) -> str | None:
        """The only value, or None. Raises InvalidRequest for several."""
        if len(values) > 1:
            raise InvalidRequest(f"{self.name!r} is given {len(values)} times.", param=self.name)
        return values[0] if values else None

    def refused(self, what: str) -> InvalidRequest:
        """The error of a value it cannot have."""
        return InvalidRequest(f"{self.name!r} is {what}.", param=self.name)


@dataclass(frozen=True, slots=True)
class Text(Parameter[str | None]):
    """Given once and not empty, or not at all."""

    def read(self, values: list[str]) -> str | None:
        value = self.one(values)
        if value == "":
            raise self.refused("empty")
        return value

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string"}


@dataclass(frozen=True, slots=True)
class Upload(Parameter[None]):
    """The file of a form, which is streamed and never a value."""

    def read(self, values: list[str]) -> None:
        raise NotImplementedError("a file is streamed")

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "binary"}


@dataclass(frozen=True, slots=True)
class Flag(Parameter[bool]):
    """`true`, `1` or nothing; `false`, `0` or absent."""

    def read(self, values: list[str]) -> bool:
        value = self.one(values)
        if value is None or value in _NO:
            return False
        if value not in _YES:
            raise self.refused("neither true nor false")
        return True

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "boolean", "default": False}


@dataclass(frozen=True, slots=True)
class Number(Parameter[float]):
    """A finite number from `low` to `high`."""

    default: float
    low: float
    high: float

    def read(self, values: list[str]) -> float:
        value = self.one(values)
        if value is None:
            return self.default
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not self.low <= number <= self.high:
            raise self.refused(f"a number from {self.low:g} to {self.high:g}")
        return number

    @property
    def schema(self) -> dict[str, Any]:
        bounds = {"minimum": self.low, "maximum": self.high}
        return {"type": "number", "default": self.default, **bounds}


@dataclass(frozen=True, slots=True)
class Count(Parameter[int]):
    """A whole number from `least` to `most`."""

    default: int
    most: int
    least: int = 1

    def read(self, values: list[str]) -> int:
        value = self.one(values)
        if value is None:
            return self.default
        number = parse_int(value)
        if number is None or not self.least <= number <= self.most:
            raise self.refused(f"an integer from {self.least} to {self.most}")
        return number

    @property
    def schema(self) -> dict[str, Any]:
        bounds = {"minimum": self.least, "maximum": self.most}
        # a default below the least is what nobody can say: as if it had not been asked
        told = {"default": self.default} if self.default >= self.least else {}
        return {"type": "integer", **told, **bounds}


@dataclass(frozen=True, slots=True)
class Word(Parameter[str]):
    """One of a few; the first where none is given."""

    known: tuple[str, ...]

    def read(self, values: list[str]) -> str:
        value = self.one(values)
        if value is not None and value not in self.known:
            raise self.refused(f"{value[:64]!r}, not one of {', '.join(self.known)}")
        return self.known[0] if value is None else value

    @property
    def schema(self) -> dict[str, Any]:
        told = {} if self.required else {"default": self.known[0]}
        return {"type": "string", "enum": list(self.known), **told}


@dataclass(frozen=True, slots=True)
class Words(Parameter[frozenset[str]]):
    """Some of a few, given several times or with commas. Empty: not given."""

    known: tuple[str, ...]

    def read(self, values: list[str]) -> frozenset[str]:
        found = frozenset(word for value in values for word in value.split(","))
        if strange := sorted(found - set(self.known)):
            raise self.refused(f"{strange[0][:64]!r}, not one of {', '.join(self.known)}")
        return found

    @property
    def schema(self) -> dict[str, Any]:
        return {"type": "array", "items": {"type": "string", "enum": list(self.known)}}
