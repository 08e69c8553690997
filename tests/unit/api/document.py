"""What the edge takes and answers, held against the OpenAPI document it serves."""

from __future__ import annotations

import email
import email.policy
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
_FORM = "multipart/form-data"
_WILD = {"KIND": "kind", "response.*": "type"}
"""Names of events that stand for many, and where the data of one tell its own."""


async def check(response: httpx.Response) -> None:
    """A hook of the client. Raises AssertionError, ValidationError."""
    route = _route_of(response.request)
    if route is None:
        return
    if response.is_success:
        await _check_body(route, response.request)
    await response.aread()
    kind, content = _kind(response.headers), _answer(route, response.status_code)
    assert kind in content, f"{_name(route)} answers {response.status_code} with {kind!r}"
    if kind == EVENTS:
        for name, data in _events(response.text):
            compiled(_event(content[EVENTS]["x-events"], name, data)).validate(data)
    elif kind == JSON:
        compiled(content[JSON].get("schema", {})).validate(response.json())
        if response.is_error and response.status_code not in {416, *route.also}:
            _check_code(route, response.json()["error"]["code"])


def _route_of(request: httpx.Request) -> RouteSpec | None:
    path = request.url.path
    found = (r for r, regex in _PATHS if r.method == request.method and regex.match(path))
    return next(found, None)


def _name(route: RouteSpec) -> str:
    return f"{route.method} {route.path}"


def _operation(route: RouteSpec) -> Any:
    return DOCUMENT["paths"][route.path.replace(":path", "")][route.method.lower()]


def _answer(route: RouteSpec, status: int) -> Any:
    """What is described of this status, by content type."""
    responses = _operation(route)["responses"]
    return responses.get(str(status), responses["default"])["content"]


def _kind(headers: httpx.Headers) -> str:
    return headers.get("content-type", "").partition(";")[0]


async def _check_body(route: RouteSpec, request: httpx.Request) -> None:
    """Of a request that was accepted."""
    try:
        raw = await request.aread()
    except httpx.StreamConsumed:  # a generator's, which the edge has had
        return
    said = _operation(route).get("requestBody")
    if said is None or not (raw or said["required"]):
        return
    kind = _kind(request.headers)
    if kind == _FORM:
        compiled(said["content"][_FORM]["schema"]).validate(_form(request, raw))
    elif kind == JSON:
        compiled(said["content"][JSON]["schema"]).validate(json.loads(raw))


def _form(request: httpx.Request, raw: bytes) -> dict[str, str]:
    """Its fields as texts; of a file nothing is said."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.message_from_bytes(head + raw, policy=email.policy.HTTP)
    return {
        str(part.get_param("name", header="content-disposition")): (
            "" if part.get_filename() else part.get_payload(decode=True).decode()
        )
        for part in message.iter_parts()
    }


def _event(events: dict[str, Any], name: str, data: Any) -> Any:
    """The schema of an event of this name. Raises AssertionError where it is not described."""
    wild = next((w for w, at in _WILD.items() if w in events and data.get(at) == name), name)
    found = events.get(name, events.get(wild))
    assert found is not None, f"an event {name!r} is not described"
    return found


def _check_code(route: RouteSpec, code: str) -> None:
    told = {e.code for errors in refusals(route).values() for e in errors}
    assert code in told | {e.code for e in ANYWHERE}, f"{_name(route)}: {code}"


def compiled(schema: Any) -> Any:
    """A validator of one of the document's schemas."""
    return _compiled(json.dumps(schema))


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
