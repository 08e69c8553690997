"""Lines of the output and of the error file, in OpenAI's shape."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.errors import ErrorInfo
from llmos.shapes.calls import error_body

OUTPUT = "output"
ERROR = "error"

EXPIRED = {
    "code": "batch_expired",
    "message": "This request could not be executed before the completion window expired.",
}

_encoder = msgspec.json.Encoder()

# legal inside JSON, but many readers split a file's lines at these as well
_LINE_ENDS = (
    (b"\xe2\x80\xa8", b"\\u2028"),
    (b"\xe2\x80\xa9", b"\\u2029"),
    (b"\xc2\x85", b"\\u0085"),
)


def row_id(job_id: str, number: int) -> str:
    """The same in every attempt."""
    return f"batch_req_{job_id.removeprefix('job_')}_{number}"


def answered(row: str, custom_id: str, request_id: str, body: dict[str, Any]) -> bytes:
    """A line of the output file."""
    return _line(row, custom_id, {"status_code": 200, "request_id": request_id, "body": body})


def refused(row: str, custom_id: str, request_id: str, error: ErrorInfo) -> bytes:
    """A line of the error file: what the same request would have been answered over HTTP."""
    status, body = error_body(error)
    response = {"status_code": status, "request_id": request_id, "body": body}
    return _line(row, custom_id, response)


def expired(row: str, custom_id: str) -> bytes:
    """A line of the error file: there was no time for it."""
    return _line(row, custom_id, None, EXPIRED)


def _line(
    row: str,
    custom_id: str,
    response: dict[str, Any] | None,
    error: dict[str, str] | None = None,
) -> bytes:
    made = {"id": row, "custom_id": custom_id, "response": response, "error": error}
    encoded = _encoder.encode(made)
    if not encoded.isascii():
        for char, escaped in _LINE_ENDS:
            if char in encoded:
                encoded = encoded.replace(char, escaped)
    return encoded
