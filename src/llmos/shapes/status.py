"""The one table from error codes to HTTP statuses and OpenAI's error types, and the envelope."""

from __future__ import annotations

from typing import Any, NamedTuple

from llmos.errors import ErrorInfo


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
    "out_of_memory": HttpError(503, OVERLOADED),
    "shutting_down": HttpError(503, OVERLOADED),
    "deadline_exceeded": HttpError(504, "timeout_error"),
    "worker_error": HttpError(503, SERVER),
    "worker_lost": HttpError(503, SERVER),
    "load_failed": HttpError(503, SERVER),
    "engine_failed": HttpError(502, SERVER),
    "remote_failed": HttpError(502, SERVER),
    "answer_rejected": HttpError(502, SERVER),
    "program_failed": HttpError(502, SERVER),
    "snapshot_rejected": HttpError(502, SERVER),
    "protocol_violation": HttpError(502, SERVER),
    "server_unreachable": HttpError(503, SERVER),
    "config_error": HttpError(500, SERVER),
    "plugin_error": HttpError(500, SERVER),
    "storage_error": HttpError(503, SERVER),
    "digest_mismatch": HttpError(503, SERVER),
    "home_locked": HttpError(503, SERVER),
    "disk_full": HttpError(507, SERVER),
}


def http_error(code: str) -> HttpError:
    """Status and type of an error; a code nobody listed is a fault of ours."""
    return STATUS.get(code, STATUS["internal_error"])


def error_object(error: ErrorInfo) -> dict[str, Any]:
    """OpenAI's error object, with `retry_after_s` and `details` where there are any."""
    made: dict[str, Any] = {
        "message": error.message,
        "type": http_error(error.code).type,
        "param": error.param,
        "code": error.code,
    }
    if error.retry_after_s is not None:
        made["retry_after_s"] = error.retry_after_s
    if error.details:
        made["details"] = error.details
    return made


def error_body(error: ErrorInfo) -> tuple[int, dict[str, Any]]:
    """The HTTP status of an error, and the envelope of every error."""
    return http_error(error.code).status, {"error": error_object(error)}
