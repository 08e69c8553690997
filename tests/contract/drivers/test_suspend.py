"""What every driver that takes snapshots owes whoever holds them."""

from __future__ import annotations

import os
import resource
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi.blob import SnapshotRef
from llmos.abi.events import Aborted, Event, Finished
from llmos.abi.inference import Sampling, Usage, WorkItem
from llmos.abi.principal import ServiceClass
from llmos.errors import Conflict, NotFound, SnapshotRejected, StorageError
from tests.contract.drivers.conftest import FolderOf
from tests.contract.drivers.subject import (
    TEXT,
    Subject,
    check_stream,
    num_tokens,
    open_subject,
)
from tests.contract.drivers.verbs import SNAPSHOTS

pytestmark = [
    pytest.mark.parametrize("subject", SNAPSHOTS, indirect=True),
    pytest.mark.verb("suspend"),
]

NUM_TOKENS = 12


def whole(subject: Subject, num: int = NUM_TOKENS) -> list[Event]:
    """The stream of request `a`, never suspended."""
    subject.submit("a", num)
    return subject.run()["a"]


def suspended(subject: Subject, num_steps: int) -> tuple[list[Event], SnapshotRef]:
    """Request `a` after so many steps, out of the batch: what it said, and the reference."""
    subject.submit("a", NUM_TOKENS)
    said = subject.run(num_steps).get("a", [])
    return said, subject.driver.suspend("a")


def test_both_of_our_drivers_take_them(subject: Subject) -> None:
    assert {"echo", "native"} <= set(SNAPSHOTS)
    assert subject.driver.capabilities.snapshots


def test_at_every_token_again_and_again(subject: Subject) -> None:
    expected = whole(subject)
    subject.submit("a", NUM_TOKENS)
    said: list[Event] = []
    for num_steps in range(NUM_TOKENS):
        item = subject.item("a", NUM_TOKENS)
        ref = subject.driver.suspend("a")
        assert subject.driver.wait_s() is None
        assert subject.driver.step() == []
        subject.driver.resume(item, ref)
        said += subject.run(1)["a"]
        assert num_tokens(said) == num_steps + 1
    said += subject.run().get("a", [])
    assert said == expected
    assert isinstance(check_stream(said), Finished)


@pytest.mark.parametrize("num_steps", [0, 1, 7])
def test_in_another_replica(subject: Subject, num_steps: int) -> None:
    expected = whole(subject)
    said, ref = suspended(subject, num_steps)
    subject.driver.unload()  # the model is evicted, and the worker gone
    other = subject.another()
    other.driver.resume(subject.item("a", NUM_TOKENS), ref)
    assert said + other.run()["a"] == expected
    other.driver.unload()


@pytest.mark.parametrize("state", ["running", "paused", "parked", "waiting"])
def test_from_wherever_it_is(subject: Subject, state: str) -> None:
    expected = whole(subject)
    names = ["a", "b", "c", "d"] if state != "waiting" else ["b", "c", "d", "e", "a"]
    for name in names:
        subject.submit(name, NUM_TOKENS)
    said = subject.run(3)
    if state in {"paused", "parked"}:
        subject.driver.pause("a")
    if state == "parked":
        subject.submit("e", NUM_TOKENS)  # takes its row
        names.append("e")
        for name, events in subject.run(1).items():
            said[name] = said.get(name, []) + events
    ref = subject.driver.suspend("a")
    assert subject.driver.health().num_paused == 0
    during = subject.run()
    assert "a" not in during
    subject.driver.resume(subject.item("a", NUM_TOKENS), ref)
    after = subject.run()
    assert set(after) == {"a"}
    assert said.get("a", []) + after["a"] == expected
    for name in set(names) - {"a"}:
        assert isinstance(check_stream(said.get(name, []) + during[name]), Finished)


def test_it_leaves_a_row_and_its_memory(subject: Subject) -> None:
    for name in "abcd":
        subject.submit(name, 60)
    subject.submit("e", 5)
    subject.run(3)
    before = subject.driver.memory()
    refs = [subject.driver.suspend(name) for name in "abcd"]
    assert subject.driver.health().num_running == 0
    assert subject.driver.memory().kv_used_bytes == 0
    assert subject.driver.memory().kv_reserved_bytes == before.kv_reserved_bytes
    if before.kv_used_bytes:
        assert sum(ref.size_bytes for ref in refs) > before.kv_used_bytes
    assert isinstance(check_stream(subject.run()["e"]), Finished)


def test_the_reference_says_whose_it_is(subject: Subject) -> None:
    _, ref = suspended(subject, 3)
    (file,) = subject.files()
    status = file.stat()
    assert (str(file), status.st_size) == (ref.path, ref.size_bytes)
    assert stat.S_IMODE(status.st_mode) == 0o600
    assert ref.snapshot_id.startswith("snp_")
    assert ref.digest.startswith("sha256:")
    assert ref.driver == subject.driver.capabilities.driver
    assert (ref.dtype, ref.weights_digest) == (subject.report.dtype, "sha256:0")
    assert (ref.num_threads, ref.owner) == (1, "")


def test_who_is_not_here(subject: Subject) -> None:
    with pytest.raises(NotFound):
        subject.driver.suspend("nobody")
    _, ref = suspended(subject, 2)
    with pytest.raises(NotFound):
        subject.driver.suspend("a")
    for call in (subject.driver.pause, subject.driver.unpause):
        call("a")
    item = subject.item("a", NUM_TOKENS)
    subject.driver.resume(item, ref)
    with pytest.raises(Conflict):
        subject.driver.resume(item, ref)
    assert isinstance(subject.run()["a"][-1], Finished)
    with pytest.raises(NotFound):
        subject.driver.suspend("a")


def test_the_file_stays_until_its_holder_deletes_it(subject: Subject) -> None:
    expected = whole(subject)
    said, ref = suspended(subject, 4)
    for _ in range(2):  # a worker that died after `resume` is no reason to begin again
        subject.driver.resume(subject.item("a", NUM_TOKENS), ref)
        assert said + subject.run()["a"] == expected
    subject.driver.resume(subject.item("a", NUM_TOKENS), ref)
    subject.driver.abort("a", "no more")
    assert isinstance(subject.run()["a"][-1], Aborted)
    assert len(subject.files()) == 1


def test_a_file_may_be_moved(subject: Subject, tmp_path: Path) -> None:
    expected = whole(subject)
    said, ref = suspended(subject, 4)
    moved = Path(ref.path).rename(tmp_path / "elsewhere")
    subject.driver.resume(
        subject.item("a", NUM_TOKENS), msgspec.structs.replace(ref, path=str(moved))
    )
    assert said + subject.run()["a"] == expected


def test_it_goes_where_it_is_told_to(subject: Subject, tmp_path: Path) -> None:
    expected = whole(subject)
    subject.submit("a", NUM_TOKENS)
    said = subject.run(4)["a"]
    folder = tmp_path / "of the kernel" / "kept"
    ref = subject.driver.suspend("a", str(folder))
    assert [str(path) for path in folder.iterdir()] == [ref.path]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert subject.files() == []
    subject.driver.resume(subject.item("a", NUM_TOKENS), ref)
    assert said + subject.run()["a"] == expected


def test_an_abort_deletes_it(subject: Subject) -> None:
    said, ref = suspended(subject, 4)
    subject.driver.abort("a", "no more")
    assert subject.files() == []
    assert subject.driver.wait_s() == 0.0
    usage = Usage(len(subject.item("a", 1).tokens) // 4, num_tokens(said))
    assert subject.driver.step() == [Aborted("a", "no more", usage)]
    subject.driver.abort("a", "twice")
    assert subject.driver.wait_s() is None
    with pytest.raises(SnapshotRejected) as caught:
        subject.driver.resume(subject.item("a", NUM_TOKENS), ref)
    assert caught.value.details["reason"] == "missing"


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def newer(data: bytes) -> bytes:
    return data[:8] + (2).to_bytes(4, "little") + data[12:]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "cut to nothing": (lambda d: b"", "damaged"),
    "cut in the preamble": (lambda d: d[:20], "damaged"),
    "cut in the header": (lambda d: d[:100], "damaged"),
    "cut by a byte": (lambda d: d[:-1], "damaged"),
    "longer by a byte": (lambda d: d + b"\0", "damaged"),
    "first byte": (lambda d: flipped(d, 0), "damaged"),
    "header's size": (lambda d: flipped(d, 14), "damaged"),
    "header": (lambda d: flipped(d, 90), "damaged"),
    "last byte of what is written": (lambda d: flipped(d, len(d) - 33), "damaged"),
    "digest": (lambda d: flipped(d, len(d) - 1), "damaged"),
    "newer": (newer, "format"),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_file_is_refused_and_nothing_else_happens(subject: Subject, what: str) -> None:
    spoil, reason = DAMAGE[what]
    _, ref = suspended(subject, 4)
    data = spoil(Path(ref.path).read_bytes())
    Path(ref.path).write_bytes(data)
    subject.submit("b", NUM_TOKENS)
    said = subject.run(2)
    before = subject.driver.health(), subject.driver.memory().kv_used_bytes
    for size in {ref.size_bytes, len(data)}:
        with pytest.raises(SnapshotRejected) as caught:
            subject.driver.resume(
                subject.item("a", NUM_TOKENS), msgspec.structs.replace(ref, size_bytes=size)
            )
        assert ref.path not in caught.value.message
    assert caught.value.details["reason"] == reason
    assert (subject.driver.health(), subject.driver.memory().kv_used_bytes) == before
    rest = subject.run()
    assert set(rest) == {"b"}
    assert isinstance(check_stream(said["b"] + rest["b"]), Finished)


def test_what_is_no_file_is_refused(subject: Subject, tmp_path: Path) -> None:
    _, ref = suspended(subject, 4)
    link, pipe = tmp_path / "link", tmp_path / "pipe"
    link.symlink_to(ref.path)
    os.mkfifo(pipe)
    for path in (str(link), str(pipe), str(tmp_path), f"{tmp_path}/no such file", "a\0b", ""):
        with pytest.raises(SnapshotRejected):
            subject.driver.resume(
                subject.item("a", NUM_TOKENS), msgspec.structs.replace(ref, path=path)
            )
    assert subject.driver.wait_s() is None


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"request_id": "b"}, "request_id"),
        ({"cache_salt": "ten_other"}, "owner"),
        ({"tokens": b"\x48\0\0\0"}, "prompt"),
        ({"sampling": Sampling(temperature=0.0, max_tokens=11)}, "sampling"),
        ({"deterministic": True}, "deterministic"),
    ],
)
def test_another_request_is_refused(subject: Subject, fields: dict[str, Any], name: str) -> None:
    _, ref = suspended(subject, 4)
    item = msgspec.structs.replace(subject.item("a", NUM_TOKENS), **fields)
    with pytest.raises(SnapshotRejected, match=name) as caught:
        subject.driver.resume(item, ref)
    assert caught.value.details == {"reason": "differs", "differs": [name]}
    assert "ten_other" not in caught.value.message
    assert subject.driver.wait_s() is None


def test_class_and_trace_may_have_changed(subject: Subject) -> None:
    expected = whole(subject)
    said, ref = suspended(subject, 4)
    item = msgspec.structs.replace(
        subject.item("a", NUM_TOKENS), service_class=ServiceClass.BATCH, trace_parent="00-1-2-3"
    )
    subject.driver.resume(item, ref)
    assert said + subject.run()["a"] == expected


@pytest.mark.parametrize(
    ("fields", "name"),
    [({"weights_digest": "sha256:1"}, "weights_digest"), ({"num_threads": 2}, "num_threads")],
)
def test_another_replica_is_refused(subject: Subject, fields: dict[str, Any], name: str) -> None:
    said, ref = suspended(subject, 4)
    other = subject.another(**fields)
    if name == "num_threads" and subject.is_fused:
        other.driver.resume(subject.item("a", NUM_TOKENS), ref)
        assert said + other.run()["a"] == whole(subject)
        other.driver.unload()
        return
    with pytest.raises(SnapshotRejected, match=name) as caught:
        other.driver.resume(subject.item("a", NUM_TOKENS), ref)
    assert caught.value.details == {"reason": "differs", "differs": [name]}
    assert other.driver.wait_s() is None
    other.driver.unload()


@pytest.mark.parametrize("field", ["snapshot_id", "digest", "dtype", "driver", "owner"])
def test_a_reference_of_another_file_is_refused(subject: Subject, field: str) -> None:
    _, ref = suspended(subject, 4)
    with pytest.raises(SnapshotRejected):
        subject.driver.resume(
            subject.item("a", NUM_TOKENS), msgspec.structs.replace(ref, **{field: "x"})
        )


def test_another_drivers_is_refused(subject: Subject, folder_of: FolderOf, tmp_path: Path) -> None:
    _, ref = suspended(subject, 4)
    name = "native" if subject.driver.capabilities.driver == "echo" else "echo"
    other = open_subject(name, folder_of(name), tmp_path / "other")
    item = subject.item("a", NUM_TOKENS)
    item = msgspec.structs.replace(item, options=other.kit.ask(NUM_TOKENS))
    with pytest.raises(SnapshotRejected, match="driver") as caught:
        other.driver.resume(item, ref)
    assert "driver" in caught.value.details["differs"]
    other.driver.unload()


@contextmanager
def files_end_at(num_bytes: int) -> Iterator[None]:
    """Writes beyond so many bytes of a file fail."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("room", [0, 60, 300])
def test_what_cannot_be_written_changes_nothing(subject: Subject, room: int) -> None:
    expected = whole(subject)
    subject.submit("a", NUM_TOKENS)
    said = subject.run(4)["a"]
    used = subject.driver.memory().kv_used_bytes
    with files_end_at(room), pytest.raises(StorageError):
        subject.driver.suspend("a")
    assert subject.files() == []
    assert subject.driver.memory().kv_used_bytes == used
    assert said + subject.run()["a"] == expected


def test_a_folder_that_is_none(subject: Subject, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    for fields in ({"snapshots": str(file)}, {"snapshots": "", "scratch": ""}):
        other = subject.another(**fields)
        other.submit("a", NUM_TOKENS)
        other.run(2)
        with pytest.raises(StorageError):
            other.driver.suspend("a")
        assert isinstance(other.run()["a"][-1], Finished)
        other.driver.unload()


def test_the_prompt_of_a_stranger_is_not_told(subject: Subject) -> None:
    _, ref = suspended(subject, 2)
    item = WorkItem("a", b"\x48\0\0\0", Sampling(), cache_salt="ten_2")
    with pytest.raises(SnapshotRejected) as caught:
        subject.driver.resume(item, ref)
    assert TEXT[:5] not in str(caught.value.to_info())
    assert {"owner", "prompt"} <= set(caught.value.details["differs"])
