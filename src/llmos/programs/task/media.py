"""Images and recordings of rows: from base64 into files, since such bytes pass no message."""

from __future__ import annotations

import base64
import binascii
import hashlib
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llmos.abi.blob import BlobRef
from llmos.abi.inference import ItemsPrompt
from llmos.abi.program import Generate
from llmos.errors import InvalidRequest, StorageError


def read_media(value: Any, name: str) -> bytes:
    """Of base64, or of a `data:` URL of it. Raises InvalidRequest."""
    if not isinstance(value, str) or not value.strip():
        raise InvalidRequest(f"{name!r} is no base64", param=name)
    head, comma, rest = value.partition(",")
    is_url = bool(comma) and head.startswith("data:") and head.endswith(";base64")
    try:
        return base64.b64decode((rest if is_url else value).strip(), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(f"{name!r} is neither base64 nor a data: URL", param=name) from None


def to_files(pieces: Sequence[bytes], folder: str) -> list[BlobRef]:
    """One file each, the caller's to remove. Raises StorageError."""
    found = []
    for piece in pieces:
        path = Path(folder) / f"media-{uuid.uuid4().hex}"
        try:
            path.write_bytes(piece)
        except OSError as error:
            raise StorageError(f"an input cannot be put away: {error.strerror}") from error
        digest = f"sha256:{hashlib.sha256(piece).hexdigest()}"
        found.append(BlobRef(digest, len(piece), str(path)))
    return found


def files_of(request: Generate) -> list[str]:
    """Paths of what was put away for it."""
    prompt = request.prompt
    blobs = prompt.blobs if isinstance(prompt, ItemsPrompt) else []
    return [blob.path for blob in blobs if blob.path is not None]


def remove(paths: Sequence[str]) -> None:
    """Files that nobody reads any more."""
    for path in paths:
        Path(path).unlink(missing_ok=True)
