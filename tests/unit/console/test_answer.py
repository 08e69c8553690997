"""An answer as it arrives."""

from __future__ import annotations

import pytest

from llmos.abi.inference import Usage
from llmos.sdk.answer import Answer
from llmos.sdk.draw import amounts
from llmos.sdk.results import Chunk, ToolDelta


def test_text_and_speed_grow_with_the_pieces() -> None:
    answer = Answer(10.0)
    assert answer.first_after_s is None
    assert answer.tokens_per_s is None
    for number in range(11):
        answer.feed(Chunk("a"), 10.5 + number * 0.1)
    assert answer.text == "a" * 11
    assert answer.first_after_s == 0.5
    assert answer.tokens_per_s == pytest.approx(10.0)


def test_the_servers_clock_counts_once_it_is_known() -> None:
    """Pieces that waited together were not made in no time."""
    answer = Answer(10.0)
    answer.feed(Chunk("abc"), 12.0)
    timing = {"first_token_ms": 100.0, "total_ms": 1100.0}
    answer.feed(Chunk(finish_reason="stop", llmos={"request_id": "req_1", "timing": timing}), 12.0)
    answer.feed(Chunk(usage=Usage(5, 51)), 12.0)
    assert answer.first_after_s == 0.1
    assert answer.tokens_per_s == pytest.approx(50.0)
    assert (answer.request_id, answer.finish_reason, answer.num_tokens) == ("req_1", "stop", 51)


def test_one_token_has_no_speed() -> None:
    answer = Answer(0.0)
    answer.feed(Chunk("a"), 1.0)
    answer.feed(Chunk(usage=Usage(5, 1)), 1.0)
    assert answer.tokens_per_s is None


def test_calls_of_tools_are_put_together() -> None:
    answer = Answer(0.0)
    answer.feed(Chunk(tool_calls=[ToolDelta(0, "call_1", "weather", '{"ci')]), 1.0)
    assert answer.calls[0].pretty == '{"ci'
    answer.feed(Chunk(tool_calls=[ToolDelta(0, arguments='ty": "北京"}')]), 2.0)
    answer.feed(Chunk(tool_calls=[ToolDelta(1, "call_2", "time", "{}")]), 2.0)
    assert answer.calls[0].pretty == '{\n  "city": "北京"\n}'
    message = answer.message()
    assert [call["id"] for call in message["tool_calls"]] == ["call_1", "call_2"]
    assert message["tool_calls"][0]["function"]["arguments"] == '{"city": "北京"}'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0123, "12 ms"),
        (0.9996, "1.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min"),
        (90, "1 min 30 s"),
        (3600, "1 h"),
        (86_400 * 2 + 3600, "2 d 1 h"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert amounts.span(seconds) == text


@pytest.mark.parametrize(
    ("num", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "0.977 KiB"),
        (390 << 20, "390 MiB"),
        (3 << 60, "3.07e+03 PiB"),
    ],
)
def test_sizes(num: int, text: str) -> None:
    assert amounts.size(num) == text
