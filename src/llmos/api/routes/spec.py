"""What one route is: enough to mount it and to describe it in the OpenAPI document."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pydantic

from llmos.api.call import Handler
from llmos.api.parameters import Parameter, Text
from llmos.errors import LLMOSError

Shape = type[pydantic.BaseModel] | type[msgspec.Struct]


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """`path` as Starlette writes it. `body` is a shape, where there is one; it may be left out
    where it is not needed. `answer` is one where the handler answers by itself; of what it returns
    its annotation tells. `answer_types` are those of its whole answer: a shape is of JSON, others
    are bytes. `also` are further statuses of the same shape, and what each means.

    `query` is what may stand after the `?`; `form` has the fields of a multipart body; `headers`
    are those that change what is done. `events` are those of a stream: their names ("": it has
    none) and the shapes of their data. `raises` is what it is refused with beside what its other
    parts imply (`api.refusals`).
    """

    method: str
    path: str
    handler: Handler
    summary: str
    needs_key: bool = True
    body: type[pydantic.BaseModel] | None = None
    needs_body: bool = True
    answer: Shape | None = None
    answer_types: tuple[str, ...] = ("application/json",)
    also: Mapping[int, str] = field(default_factory=dict)
    query: tuple[Parameter[Any], ...] = ()
    form: tuple[Parameter[Any], ...] = ()
    headers: tuple[Text, ...] = ()
    events: Mapping[str, Any] = field(default_factory=dict)
    raises: tuple[type[LLMOSError], ...] = ()

    @property
    def shape(self) -> Shape | None:
        """Of its whole answer; None: bytes, or events only."""
        return self.answer or _returned(self.handler)


def _returned(handler: Handler) -> Shape | None:
    """By a handler's annotation, which is checked where it is written."""
    hint = typing.get_type_hints(handler)["return"]
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    return next((kind for kind in kinds if kind is not type(None)), None)
