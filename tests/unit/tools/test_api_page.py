from __future__ import annotations

import re

import pytest

from llmos.api.app import ROUTES
from tools import api_page

PAGE = api_page.page()


def _section(heading: str) -> str:
    return PAGE.partition(f"\n### {heading}\n")[2].partition("\n### ")[0]


def test_every_route_is_listed_and_has_a_section() -> None:
    routes = {f"{r.method} {r.path.replace(':path}', '}')}" for r in ROUTES}
    assert set(re.findall(r"\[`([A-Z]+ /[^`]*)`\]", PAGE)) == routes
    assert set(re.findall(r"^### ([A-Z]+ /.*)$", PAGE, re.MULTILINE)) == routes


def test_every_link_inside_it_leads_somewhere() -> None:
    headings = {api_page.anchor(h) for h in re.findall(r"^##+ (.*)$", PAGE, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings


def test_a_body_has_its_fields_with_type_default_and_meaning() -> None:
    chat = _section("POST /v1/chat/completions")
    assert "| **`messages`** | list of [Message](#message) |  | The conversation" in chat
    assert "| `temperature` | number, 0 to 2 | `1.0` | 0: always the likeliest token |" in chat
    assert "`text/event-stream`" in chat
    assert "`context_length_exceeded`" in chat


def test_what_is_ignored_is_told_and_null_only_where_it_says_something() -> None:
    chat = _section("POST /v1/chat/completions")
    assert "| `user` | any JSON |  | Changes no answer |" in chat
    assert '| `modalities` | `["text"]` |' in chat
    assert "| `llmos` | [LlmosOptions](#llmosoptions) |" in chat
    assert "| `keep_alive` | number, 0 to 2,592,000 |" in _section("LlmosOptions")
    assert "| **`logprobs`** | [LogprobsAnswer](#logprobsanswer) or none |" in _section(
        "ChatChoice"
    )


def test_further_statuses_and_types_are_told() -> None:
    assert "With status 503: It would not" in _section("GET /readyz")
    assert "With status" not in _section("GET /v1/files/{file_id}/content")
    assert "`audio/wav`; or `audio/pcm`" in _section("POST /v1/audio/speech")


def test_queries_forms_and_answers_are_told() -> None:
    jobs = _section("GET /os/v1/jobs")
    assert "| `limit` | integer, 1 to 1,000 | `100` | At most so many |" in jobs
    assert "[JobList](#joblist)" in jobs
    assert "| **`file`** | text |" in _section("POST /v1/files")
    assert "`cached_tokens`" in _section("ProcessInfo")


@pytest.mark.parametrize(
    ("schema", "shown"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 2**31 - 1}, "integer, from 1"),
        ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, "integer"),
        (
            {"anyOf": [{"type": "string", "maxLength": 8}, {"type": "null"}]},
            "text, at most 8 or none",
        ),
        ({"type": "array", "items": {"$ref": "#/components/schemas/Key"}}, "list of [Key](#key)"),
        ({"type": "number", "exclusiveMinimum": 0}, "number, over 0"),
        ({"const": "list"}, "`list`"),
        ({}, "any JSON"),
    ],
)
def test_a_type_reads_as_words(schema: dict[str, object], shown: str) -> None:
    assert api_page._type(schema) == shown
