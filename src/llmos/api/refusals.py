"""Which errors a route may answer with: what its parts imply, and what it says of itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from llmos.api.routes.spec import RouteSpec
from llmos.errors import (
    AuthenticationFailed,
    Cancelled,
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    IdempotencyMismatch,
    InvalidRequest,
    LLMOSError,
    LoadFailed,
    ModelNotFound,
    ModelTooLarge,
    NotFound,
    OutOfMemory,
    PayloadTooLarge,
    PermissionDenied,
    PluginError,
    ProtocolViolation,
    QueueFull,
    QuotaExceeded,
    ReaderStalled,
    RemoteFailed,
    ShuttingDown,
    StorageError,
    UnknownParameter,
    UnsupportedParameter,
    WorkerLost,
)
from llmos.shapes.status import http_error

ANYWHERE: tuple[type[LLMOSError], ...] = (
    *(LLMOSError, ProtocolViolation, WorkerLost, ShuttingDown, StorageError),
)
"""A fault of the server, or its end: no route is safe from them."""

LOADING: tuple[type[LLMOSError], ...] = (
    *(ModelNotFound, ModelTooLarge, OutOfMemory, LoadFailed, PluginError),
)
"""A model has to be made resident."""

INFERENCE: tuple[type[LLMOSError], ...] = (
    *LOADING,
    *(UnsupportedParameter, ContextLengthExceeded, Cancelled, ReaderStalled),
    *(QueueFull, QuotaExceeded, DeadlineExceeded, EngineFailed, RemoteFailed),
)
"""A model is asked."""


def refusals(route: RouteSpec) -> dict[int, list[type[LLMOSError]]]:
    """By HTTP status, in order; what may happen anywhere is left out."""
    found: dict[int, list[type[LLMOSError]]] = {}
    for error in _each(route):
        same = found.setdefault(http_error(error.code).status, [])
        if error not in same:
            same.append(error)
    return dict(sorted(found.items()))


def _each(route: RouteSpec) -> Iterator[type[LLMOSError]]:
    takes_bytes = bool(route.form) or route.method == "PUT"
    if route.body or route.query or route.headers or takes_bytes:
        yield InvalidRequest
    if route.body or route.query or route.form:
        yield UnknownParameter
    if route.needs_key:
        yield from (AuthenticationFailed, PermissionDenied)
    if "{" in route.path:
        yield NotFound
    if "{ref" in route.path:
        yield ModelNotFound
    if route.body or takes_bytes:
        yield PayloadTooLarge
    if "Idempotency-Key" in _names(route):
        yield IdempotencyMismatch
    if _asks_a_model(route):
        yield from INFERENCE
    yield from (error for error in route.raises)


def _names(route: RouteSpec) -> Iterable[str]:
    return (header.name for header in route.headers)


def _asks_a_model(route: RouteSpec) -> bool:
    """What has `model` in its body is answered by it; but a task, which is answered by a job."""
    named = route.body.model_fields if route.body else {field.name for field in route.form}
    return "model" in named and not route.path.startswith("/os/v1/tasks")
