"""Results of system calls as the JSON of our own API: abi's fields, classes by their names."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.abi.principal import ServiceClass

_CLASS_FIELDS = frozenset({"service_class", "max_class"})
_OPAQUE = frozenset({"counts", "inputs", "outputs", "value", "metadata", "details", "driver"})
"""Other people's JSON, left as it is."""


class DoneAnswer(msgspec.Struct, frozen=True):
    """It was done; `done` says to what."""

    done: str


def to_wire(result: msgspec.Struct) -> dict[str, Any]:
    """JSON-able; the message's own tag means nothing outside the channel and is left out."""
    made: dict[str, Any] = msgspec.to_builtins(result)
    made.pop("type", None)
    _name_classes(made)
    return made


def _name_classes(value: Any) -> None:
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in _CLASS_FIELDS and isinstance(inner, int):
                value[key] = ServiceClass(inner).name.lower()
            elif key not in _OPAQUE:
                _name_classes(inner)
    elif isinstance(value, list):
        for inner in value:
            _name_classes(inner)
