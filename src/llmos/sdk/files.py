"""Files: named bytes kept by the server, in OpenAI's shapes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from llmos.errors import StorageError
from llmos.sdk.calls import segment
from llmos.sdk.config import ClientConfig
from llmos.sdk.shown import Listed
from llmos.sdk.wire import Call, FileBody, Patience, Request, WholeBody, decode


class File(msgspec.Struct, frozen=True):
    """OpenAI's file object. Times are UTC in seconds."""

    id: str
    bytes: int
    created_at: int
    filename: str
    purpose: str
    expires_at: int | None = None


def put_file(
    config: ClientConfig,
    path: str | Path,
    *,
    purpose: str = "user_data",
    progress: Callable[[int], None] = lambda _: None,
) -> Call[File]:
    """Send a file of this machine; `progress` gets the bytes of every piece.

    Raises StorageError (it cannot be read), PayloadTooLarge, DiskFull.
    """
    path = Path(path).expanduser()
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    mark = secrets.token_hex(16)
    name = path.name  # escaped as browsers do: WHATWG HTML, "multipart/form-data"
    for char, escaped in (('"', "%22"), ("\r", "%0D"), ("\n", "%0A")):
        name = name.replace(char, escaped)
    head = (
        f'--{mark}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
        f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = FileBody(
        path,
        size_bytes,
        progress,
        head=head.encode(errors="replace"),
        tail=f"\r\n--{mark}--\r\n".encode(),
        content_type=f"multipart/form-data; boundary={mark}",
    )
    request = Request("POST", "/v1/files", body, Patience.LONG)
    return Call(request, lambda: WholeBody(_file, config.max_answer_bytes))


def list_files(config: ClientConfig, *, purpose: str | None = None) -> Call[Listed[File]]:
    """Newest first."""
    query = urlencode({"purpose": purpose} if purpose else {})
    request = Request("GET", "/v1/files" + (f"?{query}" if query else ""))
    return Call(request, lambda: WholeBody(_page, config.max_answer_bytes))


def show_file(config: ClientConfig, file_id: str) -> Call[File]:
    """Raises NotFound."""
    request = Request("GET", f"/v1/files/{segment(file_id)}")
    return Call(request, lambda: WholeBody(_file, config.max_answer_bytes))


def remove_file(config: ClientConfig, file_id: str) -> Call[dict[str, Any]]:
    """Raises NotFound."""
    request = Request("DELETE", f"/v1/files/{segment(file_id)}")
    return Call(
        request, lambda: WholeBody(lambda b: decode(b, dict[str, Any]), config.max_answer_bytes)
    )


def get_file(config: ClientConfig, file_id: str, write: Callable[[bytes], object]) -> Call[int]:
    """Its bytes, handed to `write` piece by piece; how many there were. Raises NotFound."""
    request = Request("GET", f"/v1/files/{segment(file_id)}/content", None, Patience.LONG)
    return Call(request, lambda: Pieces(write))


class Pieces:
    """The Reader of a body that is nobody's to hold."""

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._write = write
        self._num_bytes = 0

    def feed(self, data: bytes) -> None:
        self._write(data)
        self._num_bytes += len(data)

    def finish(self) -> int:
        return self._num_bytes


def _file(body: bytes) -> File:
    return decode(body, File)


def _page(body: bytes) -> Listed[File]:
    return Listed(msgspec.convert(decode(body, dict[str, Any])["data"], list[File]))
