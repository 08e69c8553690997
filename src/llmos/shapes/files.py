"""OpenAI's file objects, and what may be said of a file when it is uploaded."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from llmos.abi.files import FileRecord
from llmos.errors import InvalidRequest
from llmos.shapes.answers import Answer
from llmos.shapes.fields import parse_int

PURPOSES = ("assistants", "batch", "evals", "fine-tune", "user_data", "vision")
"""What a client may upload a file for; `batch_output` is what the server itself makes."""

MIN_EXPIRES_S, MAX_EXPIRES_S = 3600, 2_592_000
"""Of `expires_after`, in seconds: as OpenAI documents them."""

BATCH_EXPIRES_S = 2_592_000
"""A batch's input is kept so long where nothing else was said."""

MAX_FILENAME_BYTES = 255


class FileObject(Answer):
    """OpenAI's file."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    expires_at: int | None
    filename: str
    purpose: str
    status: Literal["processed"]
    status_details: None


class FilePage(Answer):
    """A page of files."""

    object: Literal["list"]
    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Answer):
    """What is left of a file."""

    id: str
    object: Literal["file"]
    deleted: bool = Field(description="Always true")


def file_object(record: FileRecord) -> dict[str, Any]:
    """A file as OpenAI shows it."""
    expires_ns = record.expires_ns
    return {
        "id": record.file_id,
        "object": "file",
        "bytes": record.size_bytes,
        "created_at": record.created_ns // 1_000_000_000,
        "expires_at": None if expires_ns is None else expires_ns // 1_000_000_000,
        "filename": record.filename,
        "purpose": record.purpose,
        "status": "processed",
        "status_details": None,
    }


def page_object(data: list[dict[str, Any]], has_more: bool) -> dict[str, Any]:
    """OpenAI's list of things that have an `id`."""
    return {
        "object": "list",
        "data": data,
        "first_id": data[0]["id"] if data else None,
        "last_id": data[-1]["id"] if data else None,
        "has_more": has_more,
    }


def check_purpose(purpose: str | None) -> str:
    """Raises InvalidRequest."""
    if purpose is None:
        raise InvalidRequest("'purpose' is missing.", param="purpose")
    if purpose not in PURPOSES:
        raise InvalidRequest(
            f"'purpose' is {purpose[:64]!r}, not one of {', '.join(PURPOSES)}.", param="purpose"
        )
    return purpose


def check_filename(given: str | None) -> str:
    """The last part of a path is the name (RFC 7578, 4.2). Raises InvalidRequest."""
    name = (given or "").replace("\\", "/").rpartition("/")[2].strip()
    if name in {"", ".", ".."} or len(name.encode()) > MAX_FILENAME_BYTES:
        raise InvalidRequest(
            f"'file' needs a name of at most {MAX_FILENAME_BYTES} bytes.", param="file"
        )
    return name


def expires_after_s(purpose: str, anchor: str | None, seconds: str | int | None) -> float | None:
    """When a file of this purpose goes, in seconds. Raises InvalidRequest."""
    if anchor is None and seconds is None:
        return float(BATCH_EXPIRES_S) if purpose == "batch" else None
    if anchor != "created_at":
        raise InvalidRequest(
            "'expires_after.anchor' must be 'created_at'.", param="expires_after.anchor"
        )
    found = parse_int(seconds)
    if found is None or not MIN_EXPIRES_S <= found <= MAX_EXPIRES_S:
        raise InvalidRequest(
            f"'expires_after.seconds' is an integer from {MIN_EXPIRES_S} to {MAX_EXPIRES_S}.",
            param="expires_after.seconds",
        )
    return float(found)
