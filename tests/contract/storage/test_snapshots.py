from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from llmos.abi.blob import SnapshotRef
from llmos.abi.suspended import SnapshotStore, Tier
from llmos.errors import DiskFull, SnapshotRejected, StorageError
from llmos.storage import copying
from llmos.storage.config import StorageConfig
from llmos.storage.home import Home, open_home
from llmos.storage.snapshots import Snapshots
from llmos.telemetry import faults
from tests.unit.storage.conftest import SMALL
from tests.unit.storage.test_suspended import made_ref, made_request

PLENTY = 1 << 40


@pytest.fixture
def store(opened: Home, shm: Path) -> Iterator[Snapshots]:
    store = Snapshots(opened, SMALL, lambda: PLENTY)
    yield store
    store.close()


def file_bytes(payload: bytes) -> bytes:
    """As a driver writes it: the digest of all before it at the end."""
    return payload + hashlib.sha256(payload).digest()


def put(
    store: Snapshots, tier: Tier = Tier.MEMORY, payload: bytes = b"kv", name: str = "snp_1.snap"
) -> SnapshotRef:
    path, data = Path(store.folder(tier)) / name, file_bytes(payload)
    path.write_bytes(data)
    return made_ref(str(path), data, name.removesuffix(".snap"))


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def on_disk(store: Snapshots) -> list[str]:
    return names_in(Path(store.folder(Tier.DISK)))


def in_memory(store: Snapshots) -> list[str]:
    return names_in(Path(store.folder(Tier.MEMORY)))


def run(store: Snapshots, act: Callable[[SnapshotStore], Awaitable[Any]]) -> Any:
    """On a loop of its own; what it deleted is gone when it ends."""

    async def main() -> Any:
        return await act(store)

    return asyncio.run(main())


def recovered(home: Home) -> list[Any]:
    """What the next server finds."""
    store = Snapshots(home, SMALL, lambda: PLENTY)
    try:
        return list(run(store, lambda s: s.recover()))
    finally:
        store.close()


def test_a_spilled_snapshot_is_the_same_private_and_durable(store: Snapshots) -> None:
    payload = random.Random(1).randbytes(3 * copying.CHUNK_BYTES + 5)
    ref = put(store, payload=payload)
    made = run(store, lambda s: s.spill(ref))
    assert made == replace(ref, path=str(Path(store.folder(Tier.DISK)) / "snp_1.snap"))
    path = Path(made.path)
    assert path.read_bytes() == file_bytes(payload)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Path(ref.path).exists()
    assert run(store, lambda s: s.spill(made)) is made
    assert run(store, lambda s: s.spill(ref)) == made
    assert on_disk(store) == ["snp_1.snap"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(payload=st.binary(max_size=300), at=st.integers(0, 1 << 16), bit=st.integers(0, 7))
def test_one_wrong_bit_is_found_and_nothing_is_left(
    store: Snapshots, payload: bytes, at: int, bit: int
) -> None:
    ref = put(store, payload=payload)
    data = bytearray(Path(ref.path).read_bytes())
    data[at % len(data)] ^= 1 << bit
    Path(ref.path).write_bytes(data)
    with pytest.raises(SnapshotRejected) as caught:
        run(store, lambda s: s.spill(ref))
    assert caught.value.details == {"reason": "damaged"}
    assert on_disk(store) == []


def _remove(path: Path) -> None:
    path.unlink()


def _link(path: Path) -> None:
    path.rename(path.with_suffix(".old"))
    path.symlink_to(path.with_suffix(".old"))


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "gone": (_remove, "missing"),
    "longer": (lambda path: path.write_bytes(path.read_bytes() + b"x"), "damaged"),
    "shorter": (lambda path: path.write_bytes(path.read_bytes()[:-1]), "damaged"),
    "a link": (_link, "damaged"),
    "a pipe": (_pipe, "damaged"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_file_that_is_another_is_rejected(store: Snapshots, wrong: str) -> None:
    spoil, reason = WRONG[wrong]
    ref = put(store)
    spoil(Path(ref.path))
    with pytest.raises(SnapshotRejected) as caught:
        run(store, lambda s: s.spill(ref))
    assert caught.value.details == {"reason": reason}
    assert on_disk(store) == []


def test_a_reference_with_another_digest_or_too_short_is_rejected(store: Snapshots) -> None:
    ref = put(store)
    for other in (replace(ref, digest="sha256:00"), replace(ref, size_bytes=3)):
        with pytest.raises(SnapshotRejected):
            run(store, lambda s, other=other: s.spill(other))


PLACES = [
    "{}/../home/token",
    "{}/a/b",
    "/etc/passwd",
    "{}/",
    "",
    "snp_1.snap",
    "{}/x\0",
    "{}/r.req",
]


@pytest.mark.parametrize("place", PLACES)
def test_what_lies_elsewhere_is_neither_copied_nor_deleted(
    store: Snapshots, opened: Home, place: str
) -> None:
    (opened.snapshots / "r.req").write_text("x")
    ref = made_ref(place.format(opened.snapshots), b"x" * 40)
    with pytest.raises(SnapshotRejected):
        run(store, lambda s: s.spill(ref))
    store.discard(ref)
    assert (opened.path / "token").exists()
    assert (opened.snapshots / "r.req").exists()


def test_discarding_is_idempotent_on_both_tiers(store: Snapshots) -> None:
    refs = [put(store), put(store, Tier.DISK)]
    for ref in refs * 2:
        store.discard(ref)
    assert on_disk(store) == in_memory(store) == []

    async def on_the_loop(_: SnapshotStore) -> None:
        store.discard(put(store, payload=b"x" * 5_000_000))
        assert in_memory(store) == []

    run(store, on_the_loop)


def test_discarding_never_raises(store: Snapshots, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    ref = put(store)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refuse)
        patch.setattr(os, "open", refuse)
        store.discard(ref)
    assert in_memory(store) == ["snp_1.snap"]


def test_free_bytes(opened: Home, shm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available: list[int | None] = [PLENTY]
    config = StorageConfig(min_free_bytes=100, max_snapshot_bytes=1000)
    store = Snapshots(opened, config, lambda: available[0])
    free = shutil.disk_usage(shm).free
    assert 0 < store.free_bytes(Tier.MEMORY) <= free + (1 << 30)
    available[0] = 5
    assert store.free_bytes(Tier.MEMORY) == 5
    available[0] = None
    assert store.free_bytes(Tier.MEMORY) == 0

    assert store.free_bytes(Tier.DISK) == 1000
    put(store, Tier.DISK, b"x" * 400)
    assert store.free_bytes(Tier.DISK) == 1000 - 432
    put(store, Tier.DISK, b"x" * 4000, "snp_2.snap")
    assert store.free_bytes(Tier.DISK) == 0
    store.discard(made_ref(str(opened.snapshots / "snp_2.snap")))
    for free, expected in ((250, 150), (100, 0), (99, 0)):
        usage = shutil._ntuple_diskusage(1000, 0, free)  # type: ignore[attr-defined]
        monkeypatch.setattr(shutil, "disk_usage", lambda _, usage=usage: usage)
        assert store.free_bytes(Tier.DISK) == expected

    def refuse(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "disk_usage", refuse)
    assert store.free_bytes(Tier.DISK) == 0
    store.close()


def test_without_memory_there_is_one_tier(opened: Home, tmp_path: Path, shm: Path) -> None:
    shm.chmod(0o777)
    store = Snapshots(opened, SMALL, lambda: PLENTY)
    assert store.folder(Tier.MEMORY) == ""
    assert store.free_bytes(Tier.MEMORY) == 0
    ref = put(store, Tier.DISK)
    assert run(store, lambda s: s.spill(ref)) is ref
    with pytest.raises(SnapshotRejected):
        run(store, lambda s: s.spill(replace(ref, path="/snp_1.snap")))
    assert run(store, lambda s: s.recover()) == []
    store.close()


def test_more_than_fits_is_refused_before_it_is_written(opened: Home, shm: Path) -> None:
    store = Snapshots(opened, StorageConfig(min_free_bytes=0, max_snapshot_bytes=99), lambda: 1)
    ref = put(store, payload=b"x" * 68)
    with pytest.raises(DiskFull, match="99"):
        run(store, lambda s: s.spill(ref))
    with pytest.raises(DiskFull):
        run(store, lambda s: s.keep(made_request(snapshot=ref)))
    assert on_disk(store) == []
    store.close()


def test_two_spills_at_once_do_not_both_take_the_last_room(opened: Home, shm: Path) -> None:
    store = Snapshots(opened, StorageConfig(min_free_bytes=0, max_snapshot_bytes=150), lambda: 1)
    refs = [put(store, payload=b"x" * 68, name=f"snp_{n}.snap") for n in range(2)]

    async def both(s: SnapshotStore) -> list[Any]:
        return await asyncio.gather(*map(s.spill, refs), return_exceptions=True)

    done = run(store, both)
    assert [type(d) for d in done] == [SnapshotRef, DiskFull]
    store.close()


def test_a_spill_that_is_given_up_leaves_nothing(store: Snapshots) -> None:
    ref = put(store, payload=b"x" * 3_000_000)

    async def give_up(s: SnapshotStore) -> None:
        reached = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hook(point: str) -> None:
            if point == "snapshots.spill.copied":
                loop.call_soon_threadsafe(reached.set)

        with faults.installed(hook):
            task = asyncio.ensure_future(s.spill(ref))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    run(store, give_up)
    assert on_disk(store) == []
    assert in_memory(store) == ["snp_1.snap"]


def test_a_kept_request_comes_back_with_a_copy_of_its_snapshot(
    store: Snapshots, opened: Home
) -> None:
    ref = put(store)
    request = made_request(snapshot=ref)
    run(store, lambda s: s.keep(request))
    assert on_disk(store) == ["req_1.req", "snp_1.snap"]
    assert stat.S_IMODE((opened.snapshots / "req_1.req").stat().st_mode) == 0o600
    store.close()
    [found] = recovered(opened)
    assert found == replace(
        request, snapshot=replace(ref, path=str(opened.snapshots / "snp_1.snap"))
    )
    assert [found] == recovered(opened)


def test_a_home_that_moved_still_finds_them(store: Snapshots, opened: Home, tmp_path: Path) -> None:
    run(store, lambda s: s.keep(made_request(snapshot=put(store))))
    store.close()
    opened.close()
    opened.path.rename(tmp_path / "moved")
    moved = open_home(tmp_path / "moved")
    [found] = recovered(moved)
    assert found.snapshot is not None
    assert found.snapshot.path == str(moved.snapshots / "snp_1.snap")
    moved.close()


def test_keeping_again_replaces_and_lets_go_of_the_older_copy(store: Snapshots) -> None:
    async def scenario(s: SnapshotStore) -> None:
        await s.keep(made_request(snapshot=put(store)))
        await s.keep(made_request(snapshot=put(store)))
        assert on_disk(store) == ["req_1.req", "snp_1.snap"]
        await s.keep(made_request(snapshot=put(store, name="snp_2.snap")))
        assert on_disk(store) == ["req_1.req", "snp_2.snap"]
        await s.keep(made_request())
        assert on_disk(store) == ["req_1.req"]
        await s.forget("req_1")
        await s.forget("req_1")
        await s.forget("../token")
        assert on_disk(store) == []

    run(store, scenario)


def test_forgetting_leaves_what_somebody_else_holds(store: Snapshots) -> None:
    async def scenario(s: SnapshotStore) -> None:
        written = put(store, Tier.DISK)
        await s.keep(made_request(snapshot=written))
        await s.forget("req_1")
        assert on_disk(store) == ["snp_1.snap"]
        ref = put(store, name="snp_2.snap")
        await s.keep(made_request(snapshot=ref))
        await s.spill(ref)  # from now on the caller's
        await s.forget("req_1")
        assert on_disk(store) == ["snp_1.snap", "snp_2.snap"]

    run(store, scenario)
    assert in_memory(store) == ["snp_2.snap"]


def test_a_keep_and_a_forget_happen_in_their_order(store: Snapshots) -> None:
    async def scenario(s: SnapshotStore) -> None:
        ref = put(store, payload=b"x" * 2_000_000)
        await asyncio.gather(s.keep(made_request(snapshot=ref)), s.forget("req_1"))
        assert on_disk(store) == []

    run(store, scenario)


@pytest.mark.parametrize("tier", Tier)
def test_a_snapshot_that_is_not_what_it_was_keeps_no_request_from_being_kept(
    store: Snapshots, opened: Home, tier: Tier
) -> None:
    ref = put(store, tier)
    Path(ref.path).write_bytes(b"x")
    run(store, lambda s: s.keep(made_request(snapshot=ref)))
    store.close()
    assert recovered(opened) == [made_request()]
    assert names_in(opened.snapshots) == ["req_1.req"]


def test_an_id_that_is_no_name_is_not_kept(store: Snapshots) -> None:
    with pytest.raises(StorageError):
        run(store, lambda s: s.keep(made_request("../x")))


def test_only_what_a_whole_record_names_is_found(
    store: Snapshots, opened: Home, caplog: pytest.LogCaptureFixture
) -> None:
    async def fill(s: SnapshotStore) -> None:
        for n in range(6):
            await s.keep(made_request(f"req_{n}", put(store, name=f"snp_{n}.snap")))

    run(store, fill)
    folder = opened.snapshots
    (folder / "snp_1.snap").unlink()
    (folder / "snp_2.snap").write_bytes(b"short")
    damaged = (folder / "req_3.req").read_bytes()[:-1]
    (folder / "req_3.req").write_bytes(damaged)
    (folder / "req_4.req").rename(folder / "req_9.req")
    (folder / "req_5.req").rename(opened.path / "r")
    (folder / "req_5.req").symlink_to(opened.path / "r")
    for name in ("snp_7.snap", "snp_8.snap.part", ".req_1.req.7.tmp", "notes"):
        (folder / name).write_text("x")
    (folder / "folder").mkdir()
    put(store)
    found = run(store, lambda s: s.recover())
    assert [(r.request_id, r.snapshot is not None) for r in found] == [
        ("req_0", True),
        ("req_1", False),
        ("req_2", False),
    ]
    assert on_disk(store) == ["folder", "req_0.req", "req_1.req", "req_2.req", "snp_0.snap"]
    assert in_memory(store) == []
    assert caplog.text.count("a suspended request is lost") == 3
    assert (opened.path / "r").exists()


def test_a_disk_that_cannot_be_read_loses_nothing(store: Snapshots, opened: Home) -> None:
    run(store, lambda s: s.keep(made_request(snapshot=put(store))))

    def broken(point: str) -> None:
        if point == "snapshots.recover.read":
            raise OSError(errno.EIO, "Input/output error")

    with faults.installed(broken):
        assert run(store, lambda s: s.recover()) == []
    assert len(run(store, lambda s: s.recover())) == 1


POINTS = [p for p in faults.POINTS if p.startswith(("snapshots.spill", "snapshots.keep"))]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("point", POINTS[:3])
def test_a_disk_that_fails_leaves_the_older_record(
    store: Snapshots, opened: Home, point: str, number: int
) -> None:
    def fail(at: str) -> None:
        if at == point:
            raise OSError(number, os.strerror(number))

    older = made_request(snapshot=put(store))
    run(store, lambda s: s.keep(older))
    newer = replace(older, nice=9, snapshot=put(store, name="snp_2.snap"))
    expected = DiskFull if number == errno.ENOSPC else StorageError
    with faults.installed(fail), pytest.raises(expected):
        run(store, lambda s: s.keep(newer))
    assert on_disk(store) == ["req_1.req", "snp_1.snap"]
    run(store, lambda s: s.keep(newer))
    assert on_disk(store) == ["req_1.req", "snp_2.snap"]


def test_a_record_that_cannot_be_removed_is_only_logged(
    store: Snapshots, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(point: str) -> None:
        raise OSError(errno.EIO, point)

    run(store, lambda s: s.keep(made_request()))
    with faults.installed(fail):
        run(store, lambda s: s.forget("req_1"))
    assert "the record of req_1 stays" in caplog.text


KILLED = """
import asyncio, os, sys
from pathlib import Path
from llmos.abi.suspended import Tier
from llmos.storage import tmpfs
from llmos.storage.home import open_home
from llmos.storage.snapshots import Snapshots
from llmos.telemetry import faults
from tests.unit.storage.conftest import SMALL
from tests.contract.storage.test_snapshots import put
from tests.unit.storage.test_suspended import made_request
tmpfs.SHARED = Path(sys.argv[2])
store = Snapshots(open_home(Path(sys.argv[1])), SMALL, lambda: 1 << 40)
async def main():
    await store.keep(made_request(snapshot=put(store)))
    faults.install(lambda point: os.kill(os.getpid(), 9) if point == sys.argv[3] else None)
    await store.keep(made_request(snapshot=put(store, name="snp_2.snap")))
    await store.forget("req_1")
asyncio.run(main())
"""


@pytest.mark.parametrize("point", [*POINTS, "snapshots.forget.unlinked"])
def test_a_server_killed_anywhere_leaves_one_of_both(tmp_path: Path, shm: Path, point: str) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", KILLED, str(tmp_path / "home"), str(shm), point]
    assert subprocess.run(command, check=False, cwd=root).returncode == -9
    home = open_home(tmp_path / "home")
    found = recovered(home)
    home.close()
    names = [Path(r.snapshot.path).name for r in found]
    if point == "snapshots.forget.unlinked":
        assert names == []
    else:
        assert names == ["snp_2.snap" if point == "snapshots.keep.written" else "snp_1.snap"]
    assert names_in(home.snapshots) == (["req_1.req", *names] if names else [])
