from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

import pytest

from llmos.errors import DigestMismatch, DiskFull, InvalidRequest, StorageError
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.home import Home


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_a_copy_is_verified_private_and_read_only(blobs: Blobs, tmp_path: Path) -> None:
    told: list[int] = []
    source = _file(tmp_path / "x", b"hello")
    with blobs.hold() as hold:
        ref = blobs.copy(source, hold, told.append)
    assert (ref.digest, ref.size_bytes) == (_digest(b"hello"), 5)
    path = blobs.path(ref.digest)
    assert path.read_bytes() == b"hello"
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert sum(told) == 5
    assert source.exists()


def test_equal_bytes_are_one_blob(blobs: Blobs, opened: Home, tmp_path: Path) -> None:
    with blobs.hold() as hold:
        blobs.copy(_file(tmp_path / "x", b"same"), hold)
        blobs.adopt(_file(opened.scratch / "y", b"same"), hold)
    assert blobs.ledger().num_blobs == 1
    assert list(opened.scratch.iterdir()) == []


def test_a_failure_in_the_middle_leaves_nothing(blobs: Blobs, opened: Home, tmp_path: Path) -> None:
    def stop(_: int) -> None:
        raise InterruptedError

    with pytest.raises(StorageError), blobs.hold() as hold:
        blobs.copy(_file(tmp_path / "x", b"hello"), hold, stop)
    assert list(opened.scratch.iterdir()) == []
    assert blobs.ledger().num_blobs == 0


def test_links_share_bytes_and_are_read_only(blobs: Blobs, tmp_path: Path) -> None:
    with blobs.hold() as hold:
        digest = blobs.copy(_file(tmp_path / "x", b"hello"), hold).digest
    folder = blobs.link("mdl_1", {"模型.json": digest, "sub/t.jinja": digest})
    assert (folder / "模型.json").stat().st_ino == blobs.path(digest).stat().st_ino
    assert (folder / "sub" / "t.jinja").read_bytes() == b"hello"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o500
    blobs.unlink("mdl_1")
    assert not folder.exists()
    assert blobs.path(digest).exists()


def test_without_links_there_are_copies(
    blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another device")

    with blobs.hold() as hold:
        digest = blobs.copy(_file(tmp_path / "x", b"hello"), hold).digest
    monkeypatch.setattr(os, "link", refuse)
    copy = blobs.link("mdl_1", {"a": digest}) / "a"
    assert copy.read_bytes() == b"hello"
    assert copy.stat().st_ino != blobs.path(digest).stat().st_ino


def test_a_link_that_fails_leaves_no_folder(blobs: Blobs, opened: Home) -> None:
    with pytest.raises(StorageError):
        blobs.link("mdl_1", {"a": _digest(b"nobody has this")})
    with pytest.raises(InvalidRequest):
        blobs.link("mdl_1", {"../a": _digest(b"")})
    assert list(opened.models.iterdir()) == []
    assert list(opened.scratch.iterdir()) == []


def test_collect_spares_the_wanted_and_the_held(blobs: Blobs, tmp_path: Path) -> None:
    with blobs.hold() as hold:
        wanted = blobs.copy(_file(tmp_path / "a", b"wanted"), hold).digest
        lost = blobs.copy(_file(tmp_path / "b", b"lost"), hold).digest
    with blobs.hold() as hold:
        held = blobs.copy(_file(tmp_path / "c", b"held"), hold).digest
        assert blobs.collect({wanted}) == len(b"lost")
        assert [blobs.path(d).exists() for d in (wanted, lost, held)] == [True, False, True]
    assert blobs.collect({wanted}) == len(b"held")


def test_nothing_is_added_under_a_hold_that_ended(blobs: Blobs, tmp_path: Path) -> None:
    with blobs.hold() as hold:
        pass
    with pytest.raises(StorageError, match="given up"):
        blobs.copy(_file(tmp_path / "a", b"late"), hold)
    assert blobs.ledger().num_blobs == 0


def test_the_floor_of_free_disk(opened: Home, tmp_path: Path) -> None:
    blobs = Blobs(opened, StorageConfig(min_free_bytes=1 << 62))
    with pytest.raises(DiskFull, match="must stay free"), blobs.hold() as hold:
        blobs.copy(_file(tmp_path / "a", b"x"), hold)
    assert blobs.ledger().num_blobs == 0
    assert list(opened.scratch.iterdir()) == []


def test_no_space_left(blobs: Blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DiskFull), blobs.hold() as hold:
        blobs.copy(_file(tmp_path / "a", b"x"), hold)
    assert blobs.ledger().num_blobs == 0


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:../../x", "md5:" + "0" * 64])
def test_digests_are_checked(blobs: Blobs, digest: str) -> None:
    with pytest.raises(DigestMismatch):
        blobs.path(digest)
