"""The OpenAPI 3.1 document, from the route table and the shapes it names.

Of an event stream the schema is that of one event's data, as OpenAI's own document has it, and
`x-events` has those of each name.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import sys
from collections.abc import Sequence
from typing import Any

from llmos import __version__
from llmos.api.call import Call
from llmos.api.parameters import Parameter
from llmos.api.refusals import refusals
from llmos.api.routes.spec import RouteSpec
from llmos.api.schemas import Schemas
from llmos.errors import LLMOSError
from llmos.shapes.answers import ErrorAnswer

JSON, EVENTS = "application/json", "text/event-stream"
_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_HEADERS = {"x-request-id": {"$ref": "#/components/headers/RequestId"}}

KEY = {
    "type": "http",
    "scheme": "bearer",
    "description": "A key: `llmos key add` makes one.",
}
REQUEST_ID = {
    "description": "What `why` and the log know it by.",
    "schema": {"type": "string"},
}


def document(routes: Sequence[RouteSpec]) -> dict[str, Any]:
    """The whole document as JSON-able data."""
    schemas = Schemas()
    paths: dict[str, Any] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "LLMOS", "version": __version__, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "tags": _tags(routes),
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.made.items())),
            "headers": {"RequestId": REQUEST_ID},
            "securitySchemes": {"key": KEY},
        },
    }


def _tags(routes: Sequence[RouteSpec]) -> list[dict[str, str]]:
    modules = dict.fromkeys(route.handler.__module__ for route in routes)
    return [
        {"name": _tag(name), "description": inspect.getdoc(sys.modules[name]) or ""}
        for name in modules
    ]


def _tag(module: str) -> str:
    return module.rpartition(".")[2]


def _operation(route: RouteSpec, schemas: Schemas) -> dict[str, Any]:
    made: dict[str, Any] = {
        "summary": route.summary,
        "description": inspect.getdoc(route.handler) or "",
        "operationId": route.handler.__name__,
        "tags": [_tag(route.handler.__module__)],
        "security": [{"key": []}] if route.needs_key else [],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(route.path)
        ]
        + [_parameter(parameter, "query") for parameter in route.query]
        + [_parameter(parameter, "header") for parameter in route.headers],
        "responses": _responses(route, schemas),
    }
    if (body := _body(route, schemas)) is not None:
        made["requestBody"] = body
    return made


def _parameter(parameter: Parameter[Any], place: str) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": place,
        "description": parameter.meaning,
        "required": parameter.required,
        "schema": parameter.schema,
    }


def _body(route: RouteSpec, schemas: Schemas) -> dict[str, Any] | None:
    if route.body is not None:
        content = {JSON: {"schema": schemas.body(route.body)}}
        return {"required": route.needs_body, "content": content}
    if route.form:
        return {"required": True, "content": {"multipart/form-data": {"schema": _form(route)}}}
    if route.method == "PUT":
        return {"required": True, "content": {"application/octet-stream": {}}}
    return None


def _form(route: RouteSpec) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {f.name: {**f.schema, "description": f.meaning} for f in route.form},
        "required": [field.name for field in route.form if field.required],
        "additionalProperties": False,
    }


def _responses(route: RouteSpec, schemas: Schemas) -> dict[str, Any]:
    error = {JSON: {"schema": schemas.answer(ErrorAnswer)}}
    done = {"description": "Done.", "headers": _HEADERS, "content": _content(route, schemas)}
    made: dict[str, Any] = {"200": done}
    for status, means in route.also.items():
        made[str(status)] = done | {"description": means}
    if "Range" in {header.name for header in route.headers}:
        made["206"] = done | {"description": "The part that was asked for."}
        made["416"] = {"description": "There is no such part.", "content": error}
    for status, errors in refusals(route).items():
        made[str(status)] = {
            "description": "\n".join(f"- `{e.code}`: {meaning(e)}" for e in errors),
            "headers": _HEADERS,
            "content": error,
        }
    made["default"] = {"description": "A fault of the server, or its end.", "content": error}
    return made


def meaning(error: type[LLMOSError]) -> str:
    """What an error means: the first paragraph of its docstring, on one line."""
    return " ".join((inspect.getdoc(error) or "").partition("\n\n")[0].split())


def _content(route: RouteSpec, schemas: Schemas) -> dict[str, Any]:
    shape, content = route.shape, dict[str, Any]()
    for kind in route.answer_types:
        if kind != JSON:
            content[kind] = {}
        elif shape is not None:
            content[kind] = {"schema": schemas.answer(shape)}
    if route.events:
        events = {name: schemas.answer(kind) for name, kind in route.events.items()}
        kinds = list({str(kind): kind for kind in events.values()}.values())
        schema = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
        content[EVENTS] = {"schema": schema, "x-events": events}
    return content or {JSON: {}}


def openapi_route(routes: Sequence[RouteSpec]) -> RouteSpec:
    """GET /openapi.json; the document is made at the first request."""
    made: list[dict[str, Any]] = []

    async def openapi(call: Call) -> None:
        """What every route takes and answers."""
        if not made:
            made.append(await asyncio.to_thread(document, routes))
        await call.send_json(made[0])

    return RouteSpec("GET", "/openapi.json", openapi, "This document.")
