"""Every answer of the edge held against the OpenAPI document it serves."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
from starlette.routing import compile_path

from llmos.api.app import ROUTES
from llmos.api.openapi import EVENTS, JSON, document
from llmos.api.refusals import ANYWHERE, refusals
from llmos.api.routes.spec import RouteSpec

DOCUMENT = document(ROUTES)
_PATHS = [(route, compile_path(route.path)[0]) for route in ROUTES]


async def check(response: httpx.Response) -> None:
    """A hook of the client. Raises AssertionError."""
    route = _route_of(response.request)
    if route is None:
        return
    await response.aread()
    kind = response.headers.get("content-type", "").partition(";")[0]
    if response.status_code >= 400 and kind == JSON and "error" in response.json():
        _check_error(route, response)
    elif kind == JSON:
        validator(route, JSON).validate(response.json())
    elif kind == EVENTS:
        for name, data in _events(response.text):
            known = route.events
            assert name in known or "KIND" in known or "response.*" in known, (route.path, name)
            if name != "error" and "error" not in data:
                validator(route, EVENTS).validate(data)


def _route_of(request: httpx.Request) -> RouteSpec | None:
    path = request.url.path
    found = (r for r, regex in _PATHS if r.method == request.method and regex.match(path))
    return next(found, None)


def _check_error(route: RouteSpec, response: httpx.Response) -> None:
    error(response.json())
    if response.status_code == 416:
        return
    told = {e.code for errors in refusals(route).values() for e in errors}
    code = response.json()["error"]["code"]
    assert code in told | {e.code for e in ANYWHERE}, f"{route.method} {route.path}: {code}"


def error(body: Any) -> None:
    _compiled(json.dumps({"$ref": "#/components/schemas/ErrorAnswer"})).validate(body)


def validator(route: RouteSpec, kind: str) -> Any:
    """Of an answer of this kind. Raises AssertionError where none is described."""
    path = route.path.replace(":path", "")
    content = DOCUMENT["paths"][path][route.method.lower()]["responses"]["200"]["content"]
    assert kind in content, f"{route.method} {path} answers with {kind}"
    return _compiled(json.dumps(content[kind]["schema"]))


@functools.cache
def _compiled(schema: str) -> Any:
    whole = {**json.loads(schema), "components": DOCUMENT["components"]}
    return jsonschema.Draft202012Validator(whole)


def _events(text: str) -> Iterator[tuple[str, Any]]:
    for block in text.split("\n\n"):
        lines = [line.partition(": ")[::2] for line in block.splitlines()]
        fields = {name: value for name, value in lines if name}
        if "data" in fields and fields["data"] != "[DONE]":
            yield fields.get("event", ""), json.loads(fields["data"])
