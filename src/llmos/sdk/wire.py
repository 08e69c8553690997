"""Requests, and how bytes become values and errors. Pure: nothing here does I/O."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import msgspec

from llmos.abi.modelfiles import is_of_subfolder
from llmos.abi.principal import ServiceClass
from llmos.errors import ERRORS, ErrorInfo, InvalidRequest, LLMOSError, ProtocolViolation, from_info

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_CLASS_FIELDS = ("service_class", "max_class")
_OPAQUE = frozenset({"counts", "inputs", "outputs", "value", "metadata", "details", "driver"})
"""Other people's JSON: never changed on its way."""
_BY_STATUS = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "permission_denied",
    404: "not_found",
    409: "conflict",
    413: "payload_too_large",
    429: "queue_full",
    504: "deadline_exceeded",
    507: "disk_full",
}


class Patience(enum.Enum):
    """How long silence is borne; the seconds are in `ClientConfig`."""

    SHORT = "short"
    LONG = "long"
    STREAM = "stream"


@dataclasses.dataclass(frozen=True, slots=True)
class FileBody:
    """A file to send as a body, between `head` and `tail`.

    `sent(n)` is called after every piece of n bytes.
    """

    path: Path
    size_bytes: int
    sent: Callable[[int], None]
    head: bytes = b""
    tail: bytes = b""
    content_type: str = "application/octet-stream"


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request. `path` is percent-encoded already."""

    method: str
    path: str
    body: bytes | FileBody | None = None
    patience: Patience = Patience.SHORT
    headers: tuple[tuple[str, str], ...] = ()


class Reader(Protocol[T_co]):
    """Takes a successful answer's bytes as they come, then gives its value."""

    def feed(self, data: bytes) -> None: ...

    def finish(self) -> T_co: ...


@dataclasses.dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A request with one value as its answer. `accepts`: error statuses that are answers too."""

    request: Request
    reader: Callable[[], Reader[T]]
    accepts: frozenset[int] = frozenset()


class Parser(Protocol[T_co]):
    """Takes a stream's bytes, gives its items; `finish` raises when the stream ended too early."""

    def feed(self, data: bytes) -> Iterable[T_co]: ...

    def finish(self) -> None: ...


@dataclasses.dataclass(frozen=True, slots=True)
class StreamCall(Generic[T]):
    """A request with a stream of items as its answer."""

    request: Request
    parser: Callable[[], Parser[T]]


class WholeBody(Generic[T]):
    """The Reader of ordinary answers: all bytes, bounded, then `decode`."""

    def __init__(self, decode: Callable[[bytes], T], max_bytes: int) -> None:
        self._decode = decode
        self._max_bytes = max_bytes
        self._body = bytearray()

    def feed(self, data: bytes) -> None:
        if len(self._body) + len(data) > self._max_bytes:
            raise ProtocolViolation(f"the server's answer is over {self._max_bytes} bytes")
        self._body += data

    def finish(self) -> T:
        return self._decode(bytes(self._body))


def encode(value: Any) -> bytes:
    """A JSON body. Raises InvalidRequest on NaN, infinity, lone surrogates and foreign types."""
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequest(f"the request cannot be written as JSON: {error}") from error


def decode(body: bytes | str, kind: type[T]) -> T:
    """JSON to an abi struct, service classes by name. Raises ProtocolViolation."""
    try:
        return from_wire(msgspec.json.decode(body), kind)
    except msgspec.MsgspecError as error:
        raise ProtocolViolation(f"the server's answer cannot be read: {error}") from error


def from_wire(value: Any, kind: type[T]) -> T:
    """Builtins to an abi struct. Raises msgspec.ValidationError."""
    return msgspec.convert(_map_classes(value, _class_number), kind)


def to_wire(value: Any) -> Any:
    """Abi structs to the builtins the server would send.

    Service classes by lower-case name; a message's own tag means nothing outside its channel.
    """
    made = _map_classes(msgspec.to_builtins(value), _class_name)
    if isinstance(value, msgspec.Struct) and isinstance(made, dict):
        made.pop("type", None)
    return made


def _map_classes(value: Any, convert: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict):
        return {
            key: convert(item)
            if key in _CLASS_FIELDS
            else item
            if key in _OPAQUE
            else _map_classes(item, convert)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_map_classes(item, convert) for item in value]
    return value


def _class_number(value: Any) -> Any:
    found = ServiceClass.__members__.get(value.upper()) if isinstance(value, str) else None
    return value if found is None else int(found)


def _class_name(value: Any) -> Any:
    return ServiceClass(value).name.lower() if isinstance(value, int) else value


def error_from_envelope(envelope: Any, fallback: str = "internal_error") -> LLMOSError:
    """The error an `{"error": {...}}` object describes, as the class it was on the server."""
    body = envelope.get("error") if isinstance(envelope, dict) else None
    if not isinstance(body, dict):
        return from_info(ErrorInfo(fallback, "the server gave no reason"))
    code, retry, details = body.get("code"), body.get("retry_after_s"), body.get("details")
    param, message = body.get("param"), body.get("message")
    kind = ERRORS.get(code if isinstance(code, str) else fallback, LLMOSError)
    info = ErrorInfo(
        code=kind.code,
        message=message if isinstance(message, str) else "the server gave no reason",
        param=param if isinstance(param, str) else None,
        retryable=bool(body.get("retryable", kind.retryable)),
        retry_after_s=float(retry) if isinstance(retry, int | float) else None,
        details=cast("dict[str, Any]", details) if isinstance(details, dict) else {},
    )
    return from_info(info)


def error_from_answer(status: int, body: bytes, retry_after: str | None) -> LLMOSError:
    """The error of a refused request, whoever refused it (a proxy may send no envelope)."""
    fallback = _BY_STATUS.get(status, "internal_error")
    try:
        envelope = msgspec.json.decode(body)
    except msgspec.MsgspecError:
        text = body.decode(errors="replace").strip()[:200]
        envelope = {"error": {"message": f"the server answered {status}: {text or 'no reason'}"}}
    error = error_from_envelope(envelope, fallback)
    if error.retry_after_s is None and retry_after and retry_after.isdecimal():
        error.retry_after_s = float(retry_after)
    return error


def files_of(folder: Path) -> dict[str, Path]:
    """What an upload consists of, by name: the regular files right under a folder and those of its
    sub-folders that belong to a model; or the file itself. Raises OSError."""
    if folder.is_file():
        return {folder.name: folder}
    names = []
    for path in sorted(folder.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            names.append(path.name)
        elif path.is_dir() and not path.is_symlink():
            inner = (f"{path.name}/{one.name}" for one in sorted(path.iterdir()) if one.is_file())
            names += [name for name in inner if is_of_subfolder(name)]
    return {name: folder / name for name in names}
