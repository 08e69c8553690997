from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.drivers.openai import sse
from llmos.drivers.openai.sse import DataDecoder, TooLong

LINES = st.sampled_from([b"", b"data: a", b"data:b", b"data", b": comment", b"event: x", b"id: 1"])
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


def decode(data: bytes, cuts: list[int]) -> list[bytes]:
    decoder, found = DataDecoder(1000), []
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    for begin, end in itertools.pairwise(edges):
        found += decoder.feed(data[begin:end])
    return found


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"data: a\n\n", [b"a"]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [b"a", b"b"]),
        (b"data: a\ndata: b\n\n", [b"a\nb"]),
        (b": alive\n\n\n\ndata:  a\n\n", [b" a"]),
        (b"\xef\xbb\xbfdata: a\n\n", [b"a"]),
        (b"data: a\n", []),
        (b"data\n\n", [b""]),
        (b"event: ping\n\n", []),
        (b"<html>\n\n", []),
    ],
)
def test_events(data: bytes, found: list[bytes]) -> None:
    assert decode(data, []) == found


@given(st.lists(st.tuples(LINES, ENDS), max_size=20), st.lists(st.integers(0, 200), max_size=12))
def test_cuts_change_nothing(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    data = b"".join(line + end for line, end in lines) + b"."  # no line end is left open
    assert decode(data, cuts) == decode(data, [])


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=12))
def test_any_bytes(data: bytes, cuts: list[int]) -> None:
    assert decode(data + b".", cuts) == decode(data + b".", [])


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 60 + b"\n", b"x" * 60])
def test_what_never_ends_is_not_kept(piece: bytes) -> None:
    decoder = DataDecoder(1000)
    with pytest.raises(TooLong):
        for _ in range(100):
            decoder.feed(piece)


def test_a_line_in_many_pieces_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    class Counted:
        def split(self, text: bytes) -> list[bytes]:
            looked.append(len(text))
            return re.split(rb"\r\n|\n|\r", text)

    monkeypatch.setattr(sse, "_LINE_END", Counted())
    decoder = DataDecoder(1 << 20)
    pieces = [b"data: ", *[b"x" * 50] * 1000, b"\r", b"\n", b"\n"]
    found = [event for piece in pieces for event in decoder.feed(piece)]
    assert found == [b"x" * 50_000]
    assert sum(looked) < 3 * 50_000
