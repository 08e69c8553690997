"""The event stream decoder: the same events however the bytes are cut."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmos.errors import ProtocolViolation
from llmos.sdk.sse import ServerSentEvent, SSEDecoder

BOUND = 1 << 20
texts = st.text(st.characters(exclude_characters="\r\n\0", exclude_categories=("Cs",)), max_size=12)
datas = st.lists(texts, min_size=1, max_size=3)
events = st.lists(st.tuples(st.sampled_from(["", "progress", "done"]), datas), max_size=5)


def feed_all(pieces: list[bytes], bound: int = BOUND) -> list[ServerSentEvent]:
    decoder = SSEDecoder(bound)
    return [event for piece in pieces for event in decoder.feed(piece)]


@settings(max_examples=60, deadline=None)
@given(events, st.sampled_from(["\n", "\r\n", "\r"]), st.booleans(), st.data())
def test_any_cut_gives_the_events_that_were_written(
    written: list[tuple[str, list[str]]], end: str, with_bom: bool, data: st.DataObject
) -> None:
    lines = ["\ufeff: hello"] if with_bom else [": hello"]
    for name, parts in written:
        lines += [f"event: {name}"] if name else []
        lines += [": keep-alive", "id: 7", *(f"data: {part}" for part in parts), ""]
    stream = "".join(line + end for line in lines).encode()
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]

    expected = [ServerSentEvent(name or "message", "\n".join(parts)) for name, parts in written]
    assert feed_all(pieces) == expected
    assert feed_all([stream[i : i + 1] for i in range(len(stream))]) == expected


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        (b"data:x\n\n", [("message", "x")]),
        (b"data:  x\n\n", [("message", " x")]),  # one space belongs to the syntax
        (b"data\n\n", [("message", "")]),
        (b"data: a: b\n\n", [("message", "a: b")]),
        (b"event: e\n\n", []),  # without data there is no event, and its name is forgotten
        (b"event: e\n\ndata: x\n\n", [("message", "x")]),
        (b"data: unfinished\n", []),
        (b"\n\n\n", []),
        (b"nonsense\ndata: x\n\n", [("message", "x")]),
        ("data: 你好 🙂\n\n".encode(), [("message", "你好 🙂")]),
        (b"data: \xff\n\n", [("message", "\ufffd")]),
        ("data: a\u2028b\x85c\n\n".encode(), [("message", "a\u2028b\x85c")]),
    ],
)
def test_the_rules_of_the_specification(stream: bytes, expected: list[tuple[str, str]]) -> None:
    assert feed_all([stream]) == [ServerSentEvent(*event) for event in expected]


@pytest.mark.parametrize("piece", [b"x" * 40, b"data: " + b"x" * 20 + b"\n"])
def test_an_endless_event_is_refused(piece: bytes) -> None:
    with pytest.raises(ProtocolViolation, match="over 100 bytes"):
        feed_all([piece] * 10, bound=100)


def test_the_bound_is_per_event_not_per_stream() -> None:
    assert len(feed_all([b"data: " + b"x" * 50 + b"\n\n"] * 100, bound=100)) == 100
