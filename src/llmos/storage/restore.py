"""A home from a backup, without a server. Everything is verified before anything is touched.

The new home is made beside its place, opened, checked and only then moved there in one step, so a
restore that is killed leaves the place as it was. An existing home is never changed: with `force`
it is moved aside under a name of its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from llmos.errors import (
    ConfigError,
    Conflict,
    DigestMismatch,
    HomeLocked,
    InvalidRequest,
    LLMOSError,
    StorageError,
)
from llmos.storage.backup import check_database
from llmos.storage.blobs import CHUNK_BYTES
from llmos.storage.database import open_database
from llmos.storage.disk import mapped, remove_tree, sync_folder
from llmos.storage.home import FORMAT as HOME_FORMAT
from llmos.storage.home import open_home
from llmos.storage.manifest import DATABASE, BackupFile, Manifest, read_manifest, verify
from llmos.storage.references import all_references
from llmos.telemetry.faults import reached

_CANNOT_LINK = (errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_INSIDE = ".restoring"
Progress = Callable[[str, int, int], None]
"""Phase (`verify`, `copy`), bytes done, bytes in all."""


class Restored(msgspec.Struct, frozen=True):
    """`aside`: where the home that was there before is now. `epoch`: of the opening that checked
    the new one."""

    home: str
    aside: str | None
    num_files: int
    size_bytes: int
    epoch: int
    took_s: float
    manifest: Manifest


def restore(
    source: Path, home: Path, *, force: bool = False, progress: Progress = lambda *_: None
) -> Restored:
    """Make `home` from the backup at `source`. Blocking.

    Raises InvalidRequest (no backup, or cut short), DigestMismatch (damaged, with the file's
    name), ConfigError (a newer release wrote it), Conflict (the home is not empty), HomeLocked (a
    server runs there), StorageError, DiskFull.
    """
    started_s = time.monotonic()
    source, home = source.expanduser().resolve(), home.expanduser().absolute()
    manifest = _verified(source, home, progress)
    with mapped(f"making {home.parent}"):
        home.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        # held from before the copying to the end: no server starts there meanwhile
        stack.enter_context(_claimed(home, force))
        staging = stack.enter_context(_staging(home))
        _copy(source, staging, manifest, progress)
        epoch = _check(staging, manifest)
        reached("restore.staging.checked")
        aside = _swap(staging, home)
    reached("restore.home.in_place")
    return Restored(
        str(home),
        str(aside) if aside is not None else None,
        len(manifest.files),
        manifest.size_bytes,
        epoch,
        time.monotonic() - started_s,
        manifest,
    )


def _verified(source: Path, home: Path, progress: Progress) -> Manifest:
    manifest = read_manifest(source)
    if manifest.home_format > HOME_FORMAT:
        raise ConfigError(
            f"{source}: the backup is of a home of a newer LLMOS (layout {manifest.home_format}, "
            f"this one knows {HOME_FORMAT})"
        )
    if home == source or home.is_relative_to(source):
        raise InvalidRequest("a home cannot lie inside the backup it is made from", param="home")
    done_bytes, total_bytes = 0, manifest.size_bytes

    def told(num_bytes: int) -> None:
        nonlocal done_bytes
        done_bytes += num_bytes
        progress("verify", done_bytes, total_bytes)

    verify(source, manifest, told)
    check_database(source / DATABASE)
    reached("restore.backup.verified")
    return manifest


@contextlib.contextmanager
def _claimed(home: Path, force: bool) -> Iterator[None]:
    """The place is free, or is a home nobody has open (which `force` lets us move aside)."""
    with mapped(f"looking at {home}"), contextlib.ExitStack() as stack:
        if home.is_symlink() or (home.exists() and not home.is_dir()):
            raise Conflict(f"{home} exists and is not a folder", param="home")
        if home.is_dir() and _entries(home):
            if not (home / "format").is_file():
                raise Conflict(f"{home} is not empty and not an LLMOS home", param="home")
            if not force:
                raise Conflict(
                    f"{home} is a home already: restore to another place, or with --force, which "
                    "keeps it under another name",
                    param="home",
                )
            if home.is_mount():
                raise Conflict(f"{home} is a mount point and cannot be moved aside", param="home")
            stack.callback(os.close, _flock(home / "lock"))
        yield


def _entries(home: Path) -> set[str]:
    """What is in it, but for what a killed restore left."""
    return {entry.name for entry in home.iterdir()} - {_INSIDE}


def _flock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise HomeLocked(f"{path.parent} is in use by a running server") from None
    return fd


@contextlib.contextmanager
def _staging(home: Path) -> Iterator[Path]:
    """A private folder on the home's disk; what a killed restore left of it is removed.

    Inside a home that is a mount point, else beside it.
    """
    inside = home.is_dir() and home.is_mount()
    staging = (home / _INSIDE) if inside else home.with_name(f".{home.name}.restoring")
    with mapped(f"making {staging}"):
        staging.mkdir(mode=0o700, exist_ok=True)
        fd = os.open(staging, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another restore to {home} is running", param="home") from None
        with mapped(f"clearing {staging}"):
            for entry in staging.iterdir():
                remove_tree(entry)
        try:
            yield staging
        finally:
            with contextlib.suppress(OSError):
                remove_tree(staging)
    finally:
        os.close(fd)


def _copy(source: Path, staging: Path, manifest: Manifest, progress: Progress) -> None:
    done_bytes, total_bytes = 0, manifest.size_bytes
    with mapped(f"restoring to {staging}"):
        for file in manifest.files:
            target = staging / file.path
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _place(source / file.path, target, file)
            done_bytes += file.size_bytes
            progress("copy", done_bytes, total_bytes)
            reached("restore.file.placed")
        for folder in [staging, *(path for path in staging.rglob("*") if path.is_dir())]:
            folder.chmod(0o700)
            sync_folder(folder)


def _place(source: Path, target: Path, file: BackupFile) -> None:
    """Blobs never change, so ours may be the backup's; the database must be a file of its own."""
    is_blob = file.path != DATABASE
    if is_blob and source.stat().st_uid == os.geteuid():
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _CANNOT_LINK:
                raise
        else:
            target.chmod(0o400)
            return
    fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    digest = hashlib.sha256()
    with os.fdopen(fd, "wb") as writer, source.open("rb", buffering=0) as reader:
        while chunk := reader.read(CHUNK_BYTES):
            writer.write(chunk)
            digest.update(chunk)
        if digest.hexdigest() != file.sha256:
            raise DigestMismatch(f"{source} changed while it was being copied")
        writer.flush()
        os.fsync(writer.fileno())
        os.fchmod(writer.fileno(), 0o400 if is_blob else 0o600)


def _check(staging: Path, manifest: Manifest) -> int:
    """Open it as a server would, upgrades included, and see that all it refers to is there."""
    if manifest.home_format < HOME_FORMAT:
        (staging / "format").write_text(f"{manifest.home_format}\n")
    opened = open_home(staging)
    try:
        database = open_database(opened.db)
        try:
            referred = database.write_now(all_references)
            epoch = database.epoch
        finally:
            database.close()
        present = {f"sha256:{path.name}" for path in opened.blobs.rglob("*") if path.is_file()}
        lost = set().union(*referred.values()) - present - set(manifest.missing)
        if lost:
            raise DigestMismatch(f"the backup's rows refer to {min(lost)}, which is not in it")
    finally:
        opened.close()
    check_database(staging / DATABASE)
    return epoch


def _swap(staging: Path, home: Path) -> Path | None:
    """The new home in its place, the old one aside. Raises Conflict when the place was taken."""
    aside = None
    with mapped(f"putting {home} in place"):
        if staging.parent == home:
            _move_out(staging, home)
            return None
        if home.is_dir() and any(home.iterdir()):
            aside = _name_aside(home)
            home.rename(aside)
        try:
            if aside is not None:
                sync_folder(home.parent)
                reached("restore.home.aside")
            staging.rename(home)
            sync_folder(home.parent)
        except (OSError, LLMOSError) as error:
            if aside is not None and not home.exists():
                aside.rename(home)
            if isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                raise Conflict(f"{home} was made by somebody else meanwhile") from None
            raise
    return aside


def _move_out(staging: Path, home: Path) -> None:
    """The stamp that makes it a home comes last."""
    entries = sorted(staging.iterdir(), key=lambda entry: entry.name == "format")
    for entry in entries:
        if (home / entry.name).exists():
            raise StorageError(f"{home / entry.name} was made by somebody else meanwhile")
        entry.rename(home / entry.name)
    sync_folder(home)


def _name_aside(home: Path) -> Path:
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    name = f"{home.name}.before-restore-{stamp}"
    for number in range(1, 1000):
        aside = home.with_name(name if number == 1 else f"{name}-{number}")
        if not aside.exists():
            return aside
    raise StorageError(f"no free name beside {home}")
