"""The file of a snapshot: every byte of it is checked, and it is there whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import ReplicaSpec
from llmos.abi.inference import Sampling, Usage, WorkItem
from llmos.abi.snapshot import SnapshotHeader
from llmos.drivers.snapshots import file, shelf
from llmos.drivers.snapshots.shelf import Identity, Progress, Shelf
from llmos.errors import DiskFull, SnapshotRejected, StorageError

ITEM = WorkItem("req_1", b"\x05\0\0\0", Sampling(stop=["你好"]), cache_salt="ten_1")
IDENTITY = Identity("native", "sha256:1", "bfloat16", "cpu", 1)
PAYLOAD = [bytes(range(200)), b"", b"\xff" * 77]


class Own(msgspec.Struct, frozen=True):
    note: str


def spec(folder: Path) -> ReplicaSpec:
    return ReplicaSpec("mdl_1", "", "", "sha256:1", 64, 1, 1, snapshots=str(folder))


def views(parts: list[bytes]) -> Iterator[memoryview]:
    return (memoryview(part) for part in parts)


def write(folder: Path, made: Shelf | None = None, item: WorkItem = ITEM) -> SnapshotRef:
    made = made or Shelf(spec(folder), IDENTITY)
    return made.write(item, Progress([7, 8], 2), Own("好"), views(PAYLOAD), 277)


def read(folder: Path, ref: SnapshotRef, sizes: tuple[int, ...] = (200, 77)) -> list[bytes]:
    buffers = [bytearray(size) for size in sizes]
    with Shelf(spec(folder), IDENTITY).open(ITEM, ref) as reader:
        reader.read_payload(map(memoryview, buffers), ref.digest)
    return [bytes(buffer) for buffer in buffers]


def test_what_was_written_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "not" / "there yet"
    ref = write(folder)
    assert b"".join(read(folder, ref)) == b"".join(PAYLOAD)
    with Shelf(spec(folder), IDENTITY).open(ITEM, ref) as reader:
        assert shelf.tokens_of(reader.header) == [7, 8]
        assert shelf.decode_state(reader, Own) == Own("好")
        assert reader.header.owner == "ten_1"
        with pytest.raises(SnapshotRejected, match="a state that is none"):
            shelf.decode_state(reader, SnapshotHeader)
    assert stat.S_IMODE(Path(ref.path).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_chunks_do_not_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write(tmp_path)
    monkeypatch.setattr(file, "CHUNK_BYTES", 3)
    second = write(tmp_path)
    assert b"".join(read(tmp_path, first)) == b"".join(read(tmp_path, second))
    assert first.size_bytes == second.size_bytes


def test_a_flipped_bit_is_seen_in_every_byte(tmp_path: Path) -> None:
    ref = write(tmp_path)
    with Path(ref.path).open("r+b", buffering=0) as spoilt:
        whole = spoilt.read()
        for at, byte in enumerate(whole):
            for bit in range(8) if at < 16 else [at % 8]:
                os.pwrite(spoilt.fileno(), bytes([byte ^ 1 << bit]), at)
                with pytest.raises(SnapshotRejected):
                    read(tmp_path, ref)
            os.pwrite(spoilt.fileno(), bytes([byte]), at)
    assert read(tmp_path, ref)


def test_every_cut_is_seen(tmp_path: Path) -> None:
    ref = write(tmp_path)
    for size in reversed(range(ref.size_bytes)):
        os.truncate(ref.path, size)
        for said in {size, ref.size_bytes}:
            with pytest.raises(SnapshotRejected):
                read(tmp_path, msgspec.structs.replace(ref, size_bytes=said))


def test_a_payload_of_another_size(tmp_path: Path) -> None:
    ref = write(tmp_path)
    for sizes in ((277, 1), (276,), ()):
        with pytest.raises(SnapshotRejected):
            read(tmp_path, ref, sizes)
    with pytest.raises(StorageError, match="bytes, not"):
        Shelf(spec(tmp_path), IDENTITY).write(ITEM, Progress([], 0), Own(""), views(PAYLOAD), 5)
    assert len(list(tmp_path.iterdir())) == 1


def test_a_header_that_lies_about_its_size(tmp_path: Path) -> None:
    """Nothing is allocated because a file says so."""
    ref = write(tmp_path)
    data = bytearray(Path(ref.path).read_bytes())
    data[12:16] = b"\xff\xff\xff\x03"
    Path(ref.path).write_bytes(data)
    with pytest.raises(SnapshotRejected, match="damaged header"):
        read(tmp_path, ref)


@pytest.mark.parametrize("unnamed", [True, False])
@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, DiskFull), (errno.EDQUOT, DiskFull), (5, StorageError)]
)
def test_a_disk_that_refuses_keeps_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    unnamed: bool,
    number: int,
    error: type[StorageError],
) -> None:
    def full() -> Iterator[memoryview]:
        yield memoryview(PAYLOAD[0])
        raise OSError(number, "no", str(tmp_path))

    if not unnamed:
        monkeypatch.setattr(file, "_open_unnamed", lambda folder_fd: None)
    made = Shelf(spec(tmp_path), IDENTITY)
    with pytest.raises(error) as caught:
        made.write(ITEM, Progress([], 0), Own(""), full(), 277)
    assert type(caught.value) is error
    assert str(tmp_path) not in caught.value.message
    assert list(tmp_path.iterdir()) == []
    assert made.drop("req_1") is None


def test_where_files_have_names_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file, "_open_unnamed", lambda folder_fd: None)
    ref = write(tmp_path)
    assert [str(path) for path in tmp_path.iterdir()] == [ref.path]
    assert stat.S_IMODE(Path(ref.path).stat().st_mode) == 0o600
    assert b"".join(read(tmp_path, ref)) == b"".join(PAYLOAD)


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.unit.drivers import test_snapshot_file as test
def parts():
    yield memoryview(bytes(4 << 20))
    os.kill(os.getpid(), signal.SIGKILL)
made = test.Shelf(test.spec(Path(sys.argv[1])), test.IDENTITY)
made.write(test.ITEM, test.Progress([], 0), test.Own(""), parts(), 8 << 20)
"""


def test_a_killed_writer_leaves_nothing(tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    done = subprocess.run(command, cwd=repository, timeout=60, check=False, capture_output=True)
    assert done.returncode == -9, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_REMEMBERED", 2)
    made = Shelf(spec(tmp_path), IDENTITY)
    for name in "abc":
        write(tmp_path, made, msgspec.structs.replace(ITEM, request_id=name))
    assert made.drop("a") is None
    assert made.drop("b") == Usage(1, 2)
    made.forget("c")
    assert made.drop("c") is None
    assert len(list(tmp_path.iterdir())) == 2
