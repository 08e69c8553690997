"""The record of a suspended request: the file from which another server goes on with it.

8   magic
4   format, little-endian
32  SHA-256 of what follows
..  `abi.SuspendedRequest` in msgpack; its snapshot's path is a mere name, since homes move
"""

from __future__ import annotations

import hashlib
import re
import struct

import msgspec

from llmos.abi.suspended import SuspendedRequest
from llmos.errors import StorageError

FORMAT = 1
"""Raised by one with every change that an older reader would get wrong."""

MAGIC = b"LLMOSREQ"
SUFFIX = ".req"
MAX_RECORD_BYTES = 256 << 20

_HEAD = struct.Struct("<8sI32s")
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,95}")
_SNAPSHOT_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(SuspendedRequest).decode


def record_name(request_id: str) -> str:
    """The file's name. Raises StorageError for an id that cannot be in one."""
    if not _REQUEST_ID.fullmatch(request_id):
        raise StorageError(f"no file is named after the request {request_id[:80]!r}")
    return f"{request_id}{SUFFIX}"


def is_snapshot_name(name: str) -> bool:
    """Whether a snapshot's file may be called so: it leads nowhere, and is no record."""
    return _SNAPSHOT_NAME.fullmatch(name) is not None and not name.endswith((SUFFIX, ".part"))


def encode_record(request: SuspendedRequest) -> bytes:
    """The file's contents. Raises StorageError."""
    try:
        body = _encode(request)
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise StorageError(f"the request {request.request_id} cannot be kept: {error}") from error
    if _HEAD.size + len(body) > MAX_RECORD_BYTES:
        raise StorageError(f"the request {request.request_id} is of {len(body)} bytes")
    return _HEAD.pack(MAGIC, FORMAT, hashlib.sha256(body).digest()) + body


def decode_record(data: bytes) -> SuspendedRequest:
    """What was encoded. Raises StorageError for anything else."""
    if len(data) < _HEAD.size:
        raise StorageError("it is cut short")
    magic, number, digest = _HEAD.unpack_from(data)
    if magic != MAGIC:
        raise StorageError("it is no record")
    if number != FORMAT:
        raise StorageError(f"it has format {number}, this release knows {FORMAT}")
    body = memoryview(data)[_HEAD.size :]
    if hashlib.sha256(body).digest() != digest:
        raise StorageError("it is damaged")
    try:
        request = _decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise StorageError(f"it cannot be read: {error}") from error
    if request.snapshot is not None and not is_snapshot_name(request.snapshot.path):
        raise StorageError("it names a snapshot that lies elsewhere")
    return request
