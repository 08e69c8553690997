"""What one route is: enough to mount it and to describe it in the OpenAPI document."""

from __future__ import annotations

from dataclasses import dataclass

import pydantic

from llmos.api.call import Handler


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """`path` as Starlette writes it. `body` and `answer` are shapes, where there is one; a body may
    be left out where it is not needed.

    `query` names what may stand after the `?`; `form` has the fields of a multipart body and the
    format of each; `headers` are those that change what is done.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    needs_key: bool = True
    body: type[pydantic.BaseModel] | None = None
    needs_body: bool = True
    answer: type[pydantic.BaseModel] | None = None
    answer_type: str = "application/json"
    query: tuple[str, ...] = ()
    form: dict[str, str] | None = None
    headers: tuple[str, ...] = ()
