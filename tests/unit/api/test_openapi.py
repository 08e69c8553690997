"""The document: whole, and made of what the handlers themselves use."""

from __future__ import annotations

import asyncio
import inspect
import json
import typing

import httpx
import jsonschema
import pytest

from llmos.abi.syscall import StatusInfo
from llmos.api.app import ROUTES
from llmos.api.parameters import Count, Flag, Number, Text, Word, Words
from llmos.api.refusals import refusals
from llmos.api.routes.audio import FORM
from llmos.api.routes.spec import RouteSpec
from llmos.api.schemas import Schemas
from llmos.errors import InvalidRequest, UnknownParameter
from llmos.shapes.check import Shape, names_of
from llmos.shapes.transcriptions import IGNORED, TranscriptionsBody
from tests.unit.api import document as held
from tests.unit.api.fake_gate import edge

DOCUMENT = held.DOCUMENT
OPERATIONS = [
    (f"{method.upper()} {path}", operation)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
]


@pytest.mark.parametrize(("name", "operation"), OPERATIONS, ids=[name for name, _ in OPERATIONS])
def test_each_route_says_what_it_answers(name: str, operation: dict[str, typing.Any]) -> None:
    (content,) = [c["content"] for s, c in operation["responses"].items() if s == "200"]
    for kind, media in content.items():
        assert media.get("schema") or kind not in ("application/json", "text/event-stream")
    for parameter in operation["parameters"]:
        assert parameter["in"] == "path" or parameter["description"]
    assert operation["description"]
    assert ("401" in operation["responses"]) == bool(operation["security"])


@pytest.mark.parametrize("route", [r for r in ROUTES if r.body], ids=lambda r: r.handler.__name__)
def test_the_body_it_names_is_the_one_it_reads(route: RouteSpec) -> None:
    names = route.handler.__code__.co_names  # type: ignore[attr-defined]
    here = {name: vars(inspect.getmodule(route.handler)).get(name) for name in names}
    shapes = {one for one in here.values() if isinstance(one, type) and issubclass(one, Shape)}
    for name, one in here.items():
        if name.startswith("read_") and inspect.isfunction(one):
            hint = typing.get_type_hints(one)["return"]
            shapes |= {hint} if isinstance(hint, type) and issubclass(hint, Shape) else set()
    assert shapes == {route.body}


def test_a_form_has_the_fields_that_are_read() -> None:
    read = (names_of(TranscriptionsBody) - {"llmos"}) | {"file"}
    assert {f.name for f in FORM} == read | {name for name, may in IGNORED.items() if may}


def test_streams_have_their_events() -> None:
    chat = DOCUMENT["paths"]["/v1/chat/completions"]["post"]["responses"]["200"]["content"]
    assert chat["application/json"]["schema"] == {"$ref": "#/components/schemas/ChatAnswer"}
    event = {"anyOf": [{"$ref": f"#/components/schemas/{n}"} for n in ("ChatChunk", "ErrorAnswer")]}
    assert chat["text/event-stream"] == {"schema": event, "x-events": {"": event}}
    pull = DOCUMENT["paths"]["/os/v1/models"]["post"]["responses"]["200"]["content"]
    assert list(pull) == ["text/event-stream"]
    assert set(pull["text/event-stream"]["x-events"]) == {"progress", "done", "error"}


def test_errors_are_told_by_status() -> None:
    responses = DOCUMENT["paths"]["/os/v1/models/{ref}"]["delete"]["responses"]
    assert "`model_not_found`" in responses["404"]["description"]
    assert "`conflict`" in responses["409"]["description"]
    route = next(r for r in ROUTES if r.handler.__name__ == "list_jobs")
    assert {InvalidRequest, UnknownParameter} <= set(refusals(route)[400])


def test_classes_have_their_names_and_results_no_tag() -> None:
    schemas = Schemas()
    assert schemas.answer(StatusInfo) == {"$ref": "#/components/schemas/StatusInfo"}
    assert "type" not in schemas.made["StatusInfo"]["properties"]
    assert DOCUMENT["components"]["schemas"]["ServiceClass"]["enum"][-1] == "interactive"


def test_two_shapes_of_one_name_are_refused() -> None:
    schemas = Schemas()
    schemas.made["StatusInfo"] = {"type": "string"}
    with pytest.raises(ValueError, match="two shapes are called StatusInfo"):
        schemas.answer(StatusInfo)


def test_every_field_of_a_body_says_what_it_means() -> None:
    for route in ROUTES:
        fields = route.body.model_fields if route.body else {}
        assert not [name for name, field in fields.items() if not field.description], route.body


@pytest.mark.parametrize(
    ("parameter", "good", "bad"),
    [
        (Text("a", "?"), ["x"], [[""], ["x", "y"]]),
        (Flag("a", "?"), ["true"], [["perhaps"], ["1", "1"]]),
        (Number("a", "?", 1.0, 0, 2), ["0.5"], [["3"], ["nan"], ["x"]]),
        (Count("a", "?", 1, 9), ["9"], [["0"], ["10"], ["1.5"], ["-1"]]),
        (Word("a", "?", ("x", "y")), ["y"], [["z"], [""]]),
        (Words("a", "?", ("x", "y")), ["x,y"], [["x,z"]]),
    ],
)
def test_a_parameter_reads_what_its_schema_allows(
    parameter: typing.Any, good: list[str], bad: list[list[str]]
) -> None:
    read = parameter.read(good)
    as_json = sorted(read) if isinstance(read, frozenset) else read
    jsonschema.validate(as_json, parameter.schema)
    jsonschema.validate(parameter.schema.get("default", as_json), parameter.schema)
    for values in bad:
        with pytest.raises(InvalidRequest) as caught:
            parameter.read(values)
        assert caught.value.param == "a"


def _answer(path: str, status: int, body: typing.Any) -> httpx.Response:
    return httpx.Response(status, json=body, request=httpx.Request("GET", f"http://edge{path}"))


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("/os/v1/status", 200, {"ready": "yes"}),
        ("/v1/models", 200, {"object": "list", "data": [], "more": 1}),
        (
            "/os/v1/status",
            429,
            {"error": {"message": "m", "type": "t", "param": None, "code": "x"}},
        ),
        ("/os/v1/status", 500, {"error": {"message": "m"}}),
        ("/os/v1/status", 503, {"ready": False}),
        ("/readyz", 503, {"error": {"message": "m", "type": "t", "param": None, "code": "x"}}),
    ],
)
def test_an_answer_that_differs_from_the_document_is_noticed(
    path: str, status: int, body: typing.Any
) -> None:
    with pytest.raises((jsonschema.ValidationError, AssertionError)):
        asyncio.run(held.check(_answer(path, status, body)))


ERROR = {"message": "m", "type": "t", "param": None, "code": "internal_error"}


@pytest.mark.parametrize(
    ("path", "kind", "text"),
    [
        ("/metrics", "text/html", "<p>"),
        ("/v1/files/file-1/content", "application/pdf", "%PDF"),
        ("/os/v1/jobs/job_1/events", "text/event-stream", "event: log\ndata: {}\n\n"),
        ("/os/v1/jobs/job_1/events", "text/event-stream", 'event: log\ndata: {"kind": "x"}\n\n'),
        ("/os/v1/jobs/job_1/events", "text/event-stream", 'event: error\ndata: {"error": {}}\n\n'),
        (
            "/v1/responses/resp_1",
            "text/event-stream",
            'event: response.a\ndata: {"type": "response.b", "sequence_number": 0}\n\n',
        ),
        ("/os/v1/logs", "text/event-stream", f"event: end\ndata: {json.dumps(ERROR)}\n\n"),
    ],
)
def test_a_type_or_an_event_that_is_not_described_is_noticed(
    path: str, kind: str, text: str
) -> None:
    request = httpx.Request("GET", f"http://edge{path}")
    answer = httpx.Response(200, text=text, headers={"content-type": kind}, request=request)
    with pytest.raises((jsonschema.ValidationError, AssertionError)):
        asyncio.run(held.check(answer))


def test_every_answer_of_health_is_described() -> None:
    for path in ("/healthz", "/readyz"):
        responses = DOCUMENT["paths"][path]["get"]["responses"]
        assert responses["503"]["content"] == responses["200"]["content"]


def test_sound_and_text_are_described_as_they_are_sent() -> None:
    paths = DOCUMENT["paths"]
    heard = paths["/v1/audio/transcriptions"]["post"]["responses"]["200"]["content"]
    assert set(heard) == {"application/json", "text/plain"}
    said = paths["/v1/audio/speech"]["post"]["responses"]["200"]["content"]
    assert set(said) == {"audio/wav", "audio/pcm"}


def test_what_is_served_is_the_document() -> None:
    async def scene() -> typing.Any:
        async with edge() as e:
            return (await e.client.get("/openapi.json")).json()

    assert asyncio.run(scene()) == DOCUMENT
