"""Reading JSON files nobody vouches for: bounded, no duplicate keys, typed fields."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from llmos.errors import ModelRejected

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,127}")


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"duplicate key {key[:80]!r}")
            seen.add(key)
    return found


def parse_object(name: str, data: bytes) -> dict[str, Any]:
    """The JSON object in `data`. Raises ModelRejected naming the file `name`."""
    try:
        value = json.loads(data.decode(), object_pairs_hook=_no_duplicates)
    except RecursionError:
        raise ModelRejected(f"{name}: nested too deeply") from None
    except ValueError as error:
        raise ModelRejected(f"{name}: not valid JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise ModelRejected(f"{name}: expected a JSON object, found {type(value).__name__}")
    return value


def read_object(path: Path, max_bytes: int) -> dict[str, Any]:
    """The JSON object in a file of at most `max_bytes`. Raises ModelRejected."""
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise ModelRejected(f"{path.name}: cannot be read: {error.strerror}") from None
    if len(data) > max_bytes:
        raise ModelRejected(f"{path.name}: larger than {max_bytes} bytes")
    return parse_object(path.name, data)


class Fields:
    """Typed look-ups in one JSON object; every complaint names the file and the field."""

    def __init__(self, file: str, values: dict[str, Any]) -> None:
        self.file = file
        self.values = values

    def _reject(self, name: str, wanted: str) -> ModelRejected:
        found = repr(self.values.get(name))[:80]
        return ModelRejected(f"{self.file}: {name} must be {wanted}, found {found}")

    def find_count(self, *names: str, high: int) -> int | None:
        """The first of `names` that is given, an integer in 1..high; None if none is."""
        for name in names:
            value = self.values.get(name)
            if value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= high:
                raise self._reject(name, f"an integer in 1..{high}")
            return value
        return None

    def get_count(self, *names: str, high: int) -> int:
        """As `find_count`, but one of them must be given."""
        value = self.find_count(*names, high=high)
        if value is None:
            raise ModelRejected(f"{self.file}: {names[0]} is missing")
        return value

    def find_number(self, name: str, most: float) -> float | None:
        """A finite number, `most` away from nought at most; None when absent."""
        value = self.values.get(name)
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not abs(value) <= most:  # of NaN that is not so
            raise self._reject(name, f"a number in -{most:g}..{most:g}")
        return float(value)

    def flag(self, name: str) -> bool:
        """A boolean, False when absent."""
        value = self.values.get(name)
        if value is None:
            return False
        if not isinstance(value, bool):
            raise self._reject(name, "true or false")
        return value

    def find_word(self, name: str) -> str:
        """A short name of letters, digits and `_.-`; empty when absent."""
        value = self.values.get(name)
        if value is None:
            return ""
        if not isinstance(value, str) or not _WORD.fullmatch(value):
            raise self._reject(name, "a short name")
        return value

    def words(self, name: str, most: int) -> list[str]:
        """A list of at most `most` short names, empty when absent."""
        value = self.values.get(name)
        if value is None:
            return []
        if not isinstance(value, list) or len(value) > most:
            raise self._reject(name, f"a list of at most {most} names")
        if not all(isinstance(item, str) and _WORD.fullmatch(item) for item in value):
            raise self._reject(name, "a list of names")
        return value

    def find_section(self, name: str) -> Fields | None:
        """A nested object, None when absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._reject(name, "an object")
        return Fields(f"{self.file}: {name}", value)
