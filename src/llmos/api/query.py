"""What a route takes after the `?`: known names, one typed error for anything else."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from llmos.api.call import Call
from llmos.api.parameters import Parameter
from llmos.errors import InvalidRequest, UnknownParameter

T = TypeVar("T")

MAX_FIELDS = 32


class Query:
    """The query string of one request. Raises InvalidRequest naming the field."""

    def __init__(self, call: Call, known: Sequence[Parameter[Any]]) -> None:
        try:
            pairs = parse_qsl(
                call.scope["query_string"].decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=MAX_FIELDS,
            )
        except ValueError:
            raise InvalidRequest("The query string cannot be read.", param="query") from None
        names = [parameter.name for parameter in known]
        self._values: dict[str, list[str]] = {}
        for name, value in pairs:
            if name not in names:
                raise _unknown(name, names)
            if not value.isprintable():
                raise InvalidRequest(f"{name!r} has a character nothing has.", param=name)
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, parameter: Parameter[T]) -> T:
        """Its value, or its default. Raises InvalidRequest."""
        return parameter.read(self._values.get(parameter.name, []))


def _unknown(name: str, names: Sequence[str]) -> InvalidRequest:
    shown = name[:64].encode("ascii", "backslashreplace").decode()
    near = difflib.get_close_matches(shown, list(names), n=2)
    hint = f" Did you mean {' or '.join(repr(n) for n in near)}?" if near else ""
    details: dict[str, Any] = {"near": near} if near else {}
    return UnknownParameter(f"Unknown parameter: {shown!r}.{hint}", param=shown, details=details)
