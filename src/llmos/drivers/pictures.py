"""What a preparer hands to its driver of the images of a chat. Torch-free."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from llmos.errors import InvalidRequest


class Picture(msgspec.Struct, frozen=True, array_like=True):
    """One image: tokens `begin` to `end` of the prompt stand for it, its pixels are `shape` floats
    from `start` on in the spilled file. `grid`: rows and columns of its tokens, where they have
    places of two dimensions; else empty."""

    begin: int
    end: int
    start: int
    shape: list[int]
    grid: list[int] = []


class Pixels(NamedTuple):
    """Of one image: what the vision tower reads, its number of tokens, and their `grid`."""

    values: Any
    num_tokens: int
    grid: list[int]


def encode_pictures(pictures: Sequence[Picture]) -> bytes:
    """As a payload."""
    return msgspec.msgpack.encode(pictures)


def decode_pictures(payload: bytes, num_tokens: int) -> list[Picture]:
    """In their order. Raises InvalidRequest for what no preparer has made of so many tokens."""
    if not payload:
        return []
    try:
        found = msgspec.msgpack.decode(payload, type=list[Picture])
    except msgspec.DecodeError:
        raise InvalidRequest("the request is not what `prepare` makes", param="messages") from None
    last = 0
    for picture in found:
        if not last <= picture.begin < picture.end <= num_tokens:
            raise InvalidRequest("an image is not where `prepare` puts it", param="messages")
        last = picture.end
    return found


def places_of(num_tokens: int, pictures: Sequence[Picture]) -> tuple[list[list[int]], int]:
    """Three places of every token (time, row, column; M-RoPE, Wang et al. 2024), and how much less
    than its number the place of a token after them is.

    A text goes on in all three. An image stands still in time, and what follows it begins after the
    longer of its sides.
    """
    times: list[int] = []
    rows: list[int] = []
    columns: list[int] = []
    at = 0
    for picture in pictures:
        text = range(at, at + picture.begin - len(times))
        for axis in (times, rows, columns):
            axis.extend(text)
        at = text.stop
        height, width = picture.grid
        times += [at] * (height * width)
        rows += [at + row for row in range(height) for _ in range(width)]
        columns += [at + column for _ in range(height) for column in range(width)]
        at += max(height, width)
    text = range(at, at + num_tokens - len(times))
    return [[*axis, *text] for axis in (times, rows, columns)], num_tokens - text.stop
