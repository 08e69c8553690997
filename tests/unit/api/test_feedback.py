"""What people think of answers, and settings: over HTTP, as clients see them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from llmos.abi.feedback import (
    AddFeedback,
    Feedback,
    FeedbackList,
    FeedbackReply,
    ListFeedback,
    Rating,
)
from llmos.abi.settings import SettingInfo
from llmos.abi.syscall import Syscall
from llmos.sdk.inference import ChunkParser
from llmos.sdk.results import ToolDelta
from llmos.settings import load, tell
from tests.unit.api.fake_gate import CREATED_NS, USER_SECRET, FakeGate, edge

WORD = Feedback("req_1", "ten_1", "ann", "m:1", Rating.UP, "good", CREATED_NS)


def test_a_word_is_handed_to_the_gate_and_comes_back() -> None:
    async def keep(gate: FakeGate, call: Syscall) -> None:
        assert call.body == AddFeedback("req_1", Rating.UP, "good")
        gate.reply(call, FeedbackReply(WORD))

    async def show(gate: FakeGate, call: Syscall) -> None:
        assert call.body == ListFeedback(5)
        gate.reply(call, FeedbackList([WORD]))

    async def scene() -> None:
        async with edge({AddFeedback: keep, ListFeedback: show}) as e:
            body = {"request_id": "req_1", "rating": "up", "comment": "good"}
            made = await e.client.post("/os/v1/feedback", json=body)
            assert made.status_code == 200
            assert msgspec.convert(made.json(), Feedback) == WORD
            listed = await e.client.get("/os/v1/feedback?limit=5")
            assert listed.json() == {"feedback": [made.json()]}

    asyncio.run(scene())


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"request_id": "req_1"},
        {"request_id": "req_1", "rating": "sideways"},
        {"request_id": "", "rating": "up"},
        {"request_id": "req_1", "rating": "up", "comment": "x" * 5000},
        {"request_id": "req_1", "rating": "up", "stars": 5},
    ],
)
def test_a_word_that_says_nothing_is_refused(body: dict[str, Any]) -> None:
    async def scene() -> None:
        async with edge() as e:
            assert (await e.client.post("/os/v1/feedback", json=body)).status_code == 400

    asyncio.run(scene())


def test_settings_are_for_those_who_may_read_the_system() -> None:
    async def scene() -> None:
        async with edge() as e:
            told = await e.client.get("/os/v1/settings")
            assert (told.status_code, told.json()) == (200, {"settings": []})
            user = {"authorization": f"Bearer {USER_SECRET}"}
            assert (await e.client.get("/os/v1/settings", headers=user)).status_code == 403

    asyncio.run(scene())


def test_settings_are_told_with_their_origin_and_without_passwords() -> None:
    flags = {"storage.jobs_url": "postgresql://ann:secret@db/jobs", "preload": ["echo"]}
    environ = {"LLMOS_API__PORT": "9"}
    told = {s.key: s for s in tell(load(flags, environ, ()), flags, environ, ())}
    assert told["storage.jobs_url"].value == "postgresql://ann:…@db/jobs"
    assert told["storage.jobs_url"].origin == "flag"
    assert (told["api.port"].value, told["api.port"].origin) == (9, "environment")
    assert told["api.host"] == SettingInfo(
        "api.host", "127.0.0.1", "default", told["api.host"].description
    )
    assert isinstance(told["home"].value, str)
    assert "secret" not in str(told)


def test_calls_of_tools_come_through_the_sdk() -> None:
    first = '{"index":0,"id":"call_1","function":{"name":"f","arguments":"{"}}'
    data = (
        '{"choices":[{"index":0,"delta":{"tool_calls":[' + first + "]}}]}",
        '{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"}"}}]}}]}',
        "[DONE]",
    )
    stream = "".join(f"data: {line}\n\n" for line in data).encode()
    deltas = [delta for chunk in ChunkParser(10_000).feed(stream) for delta in chunk.tool_calls]
    assert deltas == [ToolDelta(0, "call_1", "f", "{"), ToolDelta(0, arguments="}")]
