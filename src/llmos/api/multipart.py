"""multipart/form-data (RFC 7578) as it arrives: one part after the other, nothing kept.

What is held in memory is one chunk of the body at most, whatever a part's size.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterator
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from llmos.api.call import Call
from llmos.errors import InvalidRequest

MAX_HEADERS = 8
MAX_HEADER_BYTES = 4096
"""Of one part, and of one line of it."""

MAX_NAME_BYTES = 128
"""A field's name."""

_BEGIN, _DATA, _END = range(3)
_BOUNDARY = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
"""RFC 2046, section 5.1.1."""


class Part(NamedTuple):
    """The head of a part. `filename` None: a plain field."""

    name: str
    filename: str | None


def boundary_of(call: Call) -> bytes:
    """What separates the parts. Raises InvalidRequest when the content-type does not say."""
    kind, options = parse_options_header(call.headers.get(b"content-type", b""))
    if kind != b"multipart/form-data":
        raise InvalidRequest("The content-type must be multipart/form-data.", param="content-type")
    boundary = options.get(b"boundary", b"")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidRequest("The content-type names no boundary.", param="content-type")
    return boundary


class Form:
    """Ask for a part, read its data to the end, ask for the next. Raises InvalidRequest for a body
    that is not what it says it is, and whatever `chunks` raises.
    """

    def __init__(self, boundary: bytes, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._happened: deque[tuple[int, bytes]] = deque()
        self._name = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._heads: deque[Part] = deque()
        self._is_over = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._headers.clear,
                "on_header_field": self._on_field,
                "on_header_value": self._on_value,
                "on_header_end": self._on_header,
                "on_headers_finished": self._on_headers,
                "on_part_data": self._on_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )

    async def next_part(self) -> Part | None:
        """The head of the next part, None after the last. The one before must have been read."""
        happened = await self._next()
        return self._heads.popleft() if happened is not None else None

    async def data(self) -> AsyncIterator[bytes]:
        """What is left of the part, as it arrives."""
        while (happened := await self._next()) is not None:
            kind, piece = happened
            if kind == _END:
                return
            yield piece

    async def text(self, name: str, max_bytes: int) -> str:
        """A whole part as text. Raises InvalidRequest when it is longer, or no text."""
        whole = bytearray()
        async for piece in self.data():
            whole += piece
            if len(whole) > max_bytes:
                raise InvalidRequest(f"{name!r} is over {max_bytes} bytes.", param=name)
        try:
            return whole.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidRequest(f"{name!r} is not UTF-8.", param=name) from None

    async def finish(self) -> None:
        """Read what may follow the last part."""
        async for _ in self._chunks:
            pass

    async def _next(self) -> tuple[int, bytes] | None:
        while not self._happened:
            if self._is_over:
                return None
            try:
                chunk = await anext(self._chunks)
            except StopAsyncIteration:
                raise InvalidRequest(
                    "The body ends before its last boundary.", param="body"
                ) from None
            try:
                self._parser.write(chunk)
            except FormParserError as e:
                raise InvalidRequest(
                    f"The body is not multipart/form-data: {e}.", param="body"
                ) from None
        return self._happened.popleft()

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name.clear()
        self._value.clear()

    def _on_headers(self) -> None:
        self._heads.append(_head(self._headers))
        self._happened.append((_BEGIN, b""))

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._happened.append((_DATA, data[start:end]))

    def _on_part_end(self) -> None:
        self._happened.append((_END, b""))

    def _on_end(self) -> None:
        self._is_over = True


def _head(headers: dict[bytes, bytes]) -> Part:
    if headers.get(b"content-transfer-encoding", b"binary").lower() not in (b"binary", b"8bit"):
        raise InvalidRequest("A part has a transfer encoding.", param="content-transfer-encoding")
    kind, options = parse_options_header(headers.get(b"content-disposition", b""))
    name = options.get(b"name", b"")
    if kind != b"form-data" or not name:
        raise InvalidRequest("A part of the form has no name.", param="content-disposition")
    if len(name) > MAX_NAME_BYTES:
        raise InvalidRequest(f"A field's name is over {MAX_NAME_BYTES} bytes.", param="body")
    filename = options.get(b"filename")
    return Part(_text(name), None if filename is None else _text(filename))


def _text(raw: bytes) -> str:
    """A name out of a header; the quote as HTML's forms escape it (WHATWG HTML, 4.10.21.8)."""
    try:
        text = raw.decode("utf-8").replace("%22", '"')
    except UnicodeDecodeError:
        raise InvalidRequest("A name of the form is not UTF-8.", param="body") from None
    if not text.isprintable():
        raise InvalidRequest("A name of the form has a character nothing has.", param="body")
    return text
