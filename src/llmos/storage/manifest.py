"""What a backup consists of, and the proof that it still does.

PATH/
  manifest.json     every file with its size and SHA-256, where it came from, what is not in it
  manifest.sha256   the manifest's own digest, as `sha256sum -c` reads it; written last of all
  db/llmos.db       the database at one moment
  blobs/sha256/ab/HEX

A folder without `manifest.sha256` is no backup: it was cut short.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from llmos.errors import ConfigError, DigestMismatch, InvalidRequest, StorageError
from llmos.storage.blobs import CHUNK_BYTES
from llmos.storage.disk import mapped

FORMAT = 1
"""Layout of the backups this release writes."""

WHAT = "llmos backup"
MANIFEST = "manifest.json"
SEAL = "manifest.sha256"
DATABASE = "db/llmos.db"
MAX_MANIFEST_BYTES = 1 << 30
_PATH = re.compile(r"db/llmos\.db|blobs/sha256/([0-9a-f]{2})/(\1[0-9a-f]{62})")


class _Header(msgspec.Struct, frozen=True):
    """The part that every format has."""

    what: str
    format: int
    version: str


class BackupFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`path` is relative to the backup; `sha256` in hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`version` wrote it; `home_format`, `revision` and `epoch` are of the home and its database.

    `counts` are rows by kind. `missing` are digests that rows refer to and whose bytes were gone
    or damaged when the backup was made. `notes` say in words what is not included.
    """

    format: int
    version: str
    home_format: int
    revision: str
    epoch: int
    created_ns: int
    counts: dict[str, int]
    missing: list[str]
    notes: list[str]
    files: list[BackupFile]
    what: str = WHAT

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


def encode(manifest: Manifest) -> tuple[bytes, bytes]:
    """The contents of `manifest.json` and of `manifest.sha256`."""
    body = msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"
    return body, _seal_of(body)


def _seal_of(body: bytes) -> bytes:
    return f"{hashlib.sha256(body).hexdigest()}  {MANIFEST}\n".encode()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a backup, itself verified; the files it names are not looked at.

    Raises InvalidRequest (no backup, or one that was cut short), DigestMismatch, ConfigError (a
    newer release wrote it), StorageError.
    """
    with mapped(f"reading {folder}"):
        if not folder.is_dir():
            raise InvalidRequest(f"{folder} is not a folder", param="path")
        for name in (MANIFEST, SEAL):
            if not (folder / name).is_file():
                raise InvalidRequest(
                    f"{folder} is not a whole backup: {name} is not there", param="path"
                )
            if (folder / name).stat().st_size > MAX_MANIFEST_BYTES:
                raise DigestMismatch(f"{folder / name} is too large to be a backup's")
        body, seal = (folder / MANIFEST).read_bytes(), (folder / SEAL).read_bytes()
    if seal != _seal_of(body):
        raise DigestMismatch(f"{folder / MANIFEST} is not what {SEAL} says it is: damaged")
    return _decoded(body, folder / MANIFEST)


def _decoded(body: bytes, path: Path) -> Manifest:
    try:
        header = msgspec.json.decode(body, type=_Header)
        if header.what != WHAT:
            raise InvalidRequest(f"{path} is not a backup's manifest", param="path")
        if header.format > FORMAT:
            raise ConfigError(
                f"{path}: LLMOS {header.version} wrote this backup in format {header.format}; "
                f"this one reads up to {FORMAT}"
            )
        manifest = msgspec.json.decode(body, type=Manifest)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(f"{path} is not a backup's manifest: {error}", param="path") from error
    _check_paths(manifest, path)
    return manifest


def _check_paths(manifest: Manifest, path: Path) -> None:
    """No name leads elsewhere, none comes twice, and blobs are called what they are."""
    seen = set()
    for file in manifest.files:
        match = _PATH.fullmatch(file.path)
        if match is None or file.path in seen or file.size_bytes < 0:
            raise InvalidRequest(f"{path} names a file no backup has: {file.path[:100]!r}")
        if match[2] is not None and match[2] != file.sha256:
            raise DigestMismatch(f"{path}: {file.path} is not called by its digest")
        seen.add(file.path)
    if DATABASE not in seen:
        raise InvalidRequest(f"{path} names no database", param="path")


def verify(folder: Path, manifest: Manifest, progress: Callable[[int], None]) -> None:
    """Read every file of a backup. `progress` gets bytes read since its last call.

    Raises DigestMismatch or StorageError naming the first file that is missing, damaged, or that
    the manifest does not know.
    """
    foreign = set(_files_in(folder)) - {file.path for file in manifest.files} - {MANIFEST, SEAL}
    if foreign:
        raise DigestMismatch(f"{folder / min(foreign)} does not belong to this backup")
    for file in manifest.files:
        path = folder / file.path
        size_bytes, digest = hash_file(path, progress)
        if size_bytes != file.size_bytes:
            raise DigestMismatch(f"{path}: {file.size_bytes} bytes expected, {size_bytes} found")
        if digest != file.sha256:
            raise DigestMismatch(f"{path} is damaged: its digest is not the manifest's")


def _files_in(folder: Path) -> Iterator[str]:
    with mapped(f"reading {folder}"):
        for path in folder.rglob("*"):
            if path.is_symlink() or not path.is_dir():
                yield path.relative_to(folder).as_posix()


def hash_file(path: Path, progress: Callable[[int], None] = lambda _: None) -> tuple[int, str]:
    """Size in bytes and SHA-256 in hexadecimal of a regular file. Raises StorageError."""
    digest, size_bytes = hashlib.sha256(), 0
    with mapped(f"reading {path}"):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise StorageError(f"{path} is not a regular file")
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
                progress(len(chunk))
    return size_bytes, digest.hexdigest()
