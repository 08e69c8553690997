"""The OpenAPI 3.1 document, from the route table and the pydantic shapes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pydantic

from llmos import __version__
from llmos.api.call import Call
from llmos.api.routes.spec import RouteSpec
from llmos.shapes.answers import ErrorAnswer

_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")
_SCHEMAS = "#/components/schemas/{model}"


def document(routes: Sequence[RouteSpec]) -> dict[str, Any]:
    """The whole document as JSON-able data."""
    schemas: dict[str, Any] = {}
    error = {"application/json": {"schema": _schema(ErrorAnswer, schemas, "serialization")}}
    paths: dict[str, Any] = {}
    for route in routes:
        path = _PARAMETER.sub(r"{\1}", route.path)
        operation = _operation(route, schemas)
        operation["responses"]["default"] = {"description": "An error.", "content": error}
        paths.setdefault(path, {})[route.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "LLMOS", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: RouteSpec, schemas: dict[str, Any]) -> dict[str, Any]:
    answer = {} if route.answer is None else _schema(route.answer, schemas, "serialization")
    made: dict[str, Any] = {
        "summary": route.summary,
        "operationId": route.handler.__name__,
        "security": [{"key": []}] if route.needs_key else [],
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
            for name in _PARAMETER.findall(route.path)
        ]
        + [
            {"name": name, "in": "query", "required": False, "schema": {"type": "string"}}
            for name in route.query
        ]
        + [
            {"name": name, "in": "header", "required": False, "schema": {"type": "string"}}
            for name in route.headers
        ],
        "responses": {
            "200": {"description": "Done.", "content": {route.answer_type: {"schema": answer}}}
        },
    }
    if route.body is not None:
        body = _schema(route.body, schemas, "validation")
        content = {"application/json": {"schema": body}}
        made["requestBody"] = {"required": route.needs_body, "content": content}
    elif route.form is not None:
        made["requestBody"] = {
            "required": True,
            "content": {"multipart/form-data": _form(route.form)},
        }
    elif route.method == "PUT":
        made["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    return made


def _form(fields: dict[str, str]) -> dict[str, Any]:
    properties = {
        name: {"type": "string", **({"format": form} if form else {})}
        for name, form in fields.items()
    }
    return {"schema": {"type": "object", "properties": properties}}


def _schema(
    model: type[pydantic.BaseModel],
    schemas: dict[str, Any],
    mode: pydantic.json_schema.JsonSchemaMode,
) -> dict[str, str]:
    """A reference to the model's schema, which is put among `schemas` with those it needs."""
    made = model.model_json_schema(ref_template=_SCHEMAS, mode=mode)
    schemas.update(made.pop("$defs", {}))
    schemas[model.__name__] = made
    return {"$ref": _SCHEMAS.format(model=model.__name__)}


def openapi_route(routes: Sequence[RouteSpec]) -> RouteSpec:
    """GET /openapi.json; the document is made at the first request."""
    made: list[dict[str, Any]] = []

    async def openapi(call: Call) -> None:
        if not made:
            made.append(document(routes))
        await call.send_json(made[0])

    return RouteSpec("GET", "/openapi.json", openapi, "This document.")
