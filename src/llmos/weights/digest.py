"""SHA-256 of files and folders, streaming."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path

CHUNK_BYTES = 1 << 20


def file_digest(path: Path, progress: Callable[[int], None] | None = None) -> str:
    """`sha256:` and 64 hexadecimal digits of the file's bytes.

    `progress` is told the number of bytes hashed since its last call; what it raises ends the work.
    Raises OSError.
    """
    with path.open("rb") as file:
        if progress is None:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        digest = hashlib.sha256()
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            progress(len(chunk))
    return f"sha256:{digest.hexdigest()}"


def names_digest(files: Iterable[tuple[str, str]]) -> str:
    """One digest over pairs (name, digest), whatever their order.

    Names hold no NUL and digests have one length, so no two different sets encode alike.
    """
    digest = hashlib.sha256()
    for name, of_file in sorted(files):
        digest.update(name.encode() + b"\0" + of_file.encode() + b"\n")
    return f"sha256:{digest.hexdigest()}"


def folder_digest(folder: Path, progress: Callable[[int], None] | None = None) -> str:
    """One digest over the names (relative, `/`) and contents of all regular files of a folder."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return names_digest(
        (path.relative_to(folder).as_posix(), file_digest(path, progress)) for path in paths
    )
