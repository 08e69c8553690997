"""A folder as it was sent: an archive whose first folders are labels, or plain files of text."""

from __future__ import annotations

import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from llmos.errors import InvalidRequest

TEXTS = (".txt", ".md")
MAX_FILE_BYTES = 64 << 20


def read_folder(path: Path, split: str) -> list[Mapping[str, Any]]:
    """A row for each file: `text` of a text, `data` of anything else; `label`, the folder it lies
    in, and `file`. Raises InvalidRequest."""
    try:
        with tarfile.open(path, "r:") as archive:
            rows = [_row(archive, member, split) for member in archive if member.isfile()]
    except tarfile.TarError as error:
        raise InvalidRequest(f"{split}: no folder: {error}", param=f"files.{split}") from None
    return sorted(rows, key=lambda row: str(row["file"]))


def _row(archive: tarfile.TarFile, member: tarfile.TarInfo, split: str) -> Mapping[str, Any]:
    name = PurePosixPath(member.name)
    if member.size > MAX_FILE_BYTES:
        raise InvalidRequest(
            f"{split}: {name} has {member.size} bytes, over {MAX_FILE_BYTES}",
            param=f"files.{split}",
        )
    opened = archive.extractfile(member)
    data = b"" if opened is None else opened.read()
    row: dict[str, Any] = {"file": str(name)}
    if len(name.parts) > 1:
        row["label"] = name.parts[0]
    if name.suffix.lower() in TEXTS:
        try:
            row["text"] = data.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidRequest(
                f"{split}: {name} is not UTF-8 (byte {error.start})", param=f"files.{split}"
            ) from None
    else:
        row["data"] = data
    return row
