"""The one table from error codes to HTTP statuses and OpenAI's error types, and the envelope."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import msgspec

from llmos.errors import LLMOSError


class HttpError(NamedTuple):
    """`type` is OpenAI's `error.type`."""

    status: int
    type: str


INVALID = "invalid_request_error"
SERVER = "server_error"
OVERLOADED = "overloaded_error"

STATUS: dict[str, HttpError] = {
    "internal_error": HttpError(500, SERVER),
    "user_error": HttpError(400, INVALID),
    "invalid_request": HttpError(400, INVALID),
    "unknown_parameter": HttpError(400, INVALID),
    "unsupported_parameter": HttpError(400, INVALID),
    "context_length_exceeded": HttpError(400, INVALID),
    "model_rejected": HttpError(400, INVALID),
    "invalid_api_key": HttpError(401, "authentication_error"),
    "permission_denied": HttpError(403, "permission_error"),
    "not_found": HttpError(404, INVALID),
    "model_not_found": HttpError(404, INVALID),
    "reader_stalled": HttpError(408, INVALID),
    "conflict": HttpError(409, INVALID),
    "idempotency_mismatch": HttpError(409, INVALID),
    "cancelled": HttpError(409, INVALID),
    "offset_lost": HttpError(410, INVALID),
    "payload_too_large": HttpError(413, INVALID),
    "queue_full": HttpError(429, "rate_limit_error"),
    "quota_exceeded": HttpError(429, "insufficient_quota"),
    "capacity_error": HttpError(503, OVERLOADED),
    "model_too_large": HttpError(503, OVERLOADED),
    "shutting_down": HttpError(503, OVERLOADED),
    "deadline_exceeded": HttpError(504, "timeout_error"),
    "worker_error": HttpError(503, SERVER),
    "worker_lost": HttpError(503, SERVER),
    "load_failed": HttpError(503, SERVER),
    "engine_failed": HttpError(502, SERVER),
    "program_failed": HttpError(502, SERVER),
    "protocol_violation": HttpError(502, SERVER),
    "server_unreachable": HttpError(503, SERVER),
    "config_error": HttpError(500, SERVER),
    "plugin_error": HttpError(500, SERVER),
    "storage_error": HttpError(503, SERVER),
    "digest_mismatch": HttpError(503, SERVER),
    "home_locked": HttpError(503, SERVER),
    "disk_full": HttpError(507, SERVER),
}

DEFAULT_RETRY_AFTER_S = 1.0
"""What a retryable refusal says when the kernel gave no estimate."""


def http_error(error: LLMOSError) -> HttpError:
    """Status and type of an error; a code nobody listed is a fault of ours."""
    return STATUS.get(error.code, STATUS["internal_error"])


def envelope(error: LLMOSError) -> dict[str, Any]:
    """OpenAI's error object, with `retry_after_s` and `details` where there are any."""
    body: dict[str, Any] = {
        "message": error.message,
        "type": http_error(error).type,
        "param": error.param,
        "code": error.code,
    }
    if error.retry_after_s is not None:
        body["retry_after_s"] = error.retry_after_s
    if error.details:
        body["details"] = error.details
    return {"error": body}


def encode_envelope(error: LLMOSError) -> bytes:
    """The envelope as JSON; what no JSON can hold (a lone surrogate) is shown escaped."""
    try:
        return msgspec.json.encode(envelope(error))
    except (UnicodeEncodeError, TypeError):
        message = error.message.encode("utf-8", "backslashreplace").decode()
        param = error.param and error.param.encode("utf-8", "backslashreplace").decode()
        return msgspec.json.encode(envelope(type(error)(message, param=param)))


def error_headers(error: LLMOSError) -> list[tuple[bytes, bytes]]:
    """`retry-after` (RFC 9110 10.2.3: whole seconds) and what OpenAI's clients read as well."""
    headers = [(b"x-should-retry", b"true" if error.retryable else b"false")]
    if error.retryable:
        wait_s = DEFAULT_RETRY_AFTER_S if error.retry_after_s is None else error.retry_after_s
        headers.append((b"retry-after", str(max(1, math.ceil(wait_s))).encode()))
    if http_error(error).status == 401:
        headers.append((b"www-authenticate", b'Bearer realm="llmos"'))
    return headers
