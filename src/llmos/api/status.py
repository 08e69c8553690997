"""Errors on their way out: the envelope as bytes, and the headers that go with it."""

from __future__ import annotations

import math

import msgspec

from llmos.errors import LLMOSError
from llmos.shapes.status import error_body, http_error

DEFAULT_RETRY_AFTER_S = 1.0
"""What a retryable refusal says when the kernel gave no estimate."""


def encode_envelope(error: LLMOSError) -> bytes:
    """The envelope as JSON; what no JSON can hold (a lone surrogate) is shown escaped."""
    try:
        return msgspec.json.encode(error_body(error.to_info())[1])
    except (UnicodeEncodeError, TypeError):
        message = error.message.encode("utf-8", "backslashreplace").decode()
        param = error.param and error.param.encode("utf-8", "backslashreplace").decode()
        return msgspec.json.encode(error_body(type(error)(message, param=param).to_info())[1])


def error_headers(error: LLMOSError) -> list[tuple[bytes, bytes]]:
    """`retry-after` (RFC 9110 10.2.3: whole seconds) and what OpenAI's clients read as well."""
    headers = [(b"x-should-retry", b"true" if error.retryable else b"false")]
    if error.retryable:
        wait_s = DEFAULT_RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        headers.append((b"retry-after", str(max(1, math.ceil(wait_s))).encode()))
    if http_error(error.code).status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="llmos"'))
    return headers
