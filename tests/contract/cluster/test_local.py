"""Real workers of this machine: frozen, measured, printing, and left behind by a dead server."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi import ABI_VERSION
from llmos.abi import worker as msg
from llmos.abi.channel import ChannelClosed
from llmos.abi.node import WorkerSpec
from llmos.cluster import proc
from llmos.cluster.leftovers import Note, Notebook
from llmos.cluster.local import LocalNode, LocalWorker
from llmos.errors import WorkerError
from llmos.settings import worker_env
from llmos.worker.nicer import AUTOGROUP

PATIENCE_S = 20.0


SEEN: dict[int, list[Any]] = {}
"""What each worker has said, by its pid."""


async def started(
    node: LocalNode,
    folder: Path,
    steps: list[dict[str, Any]],
    lives: bool = True,
    niceness: int = 0,
) -> LocalWorker:
    """A program worker that has begun its drill; one that does not live does not tell so."""
    worker = await node.start(WorkerSpec("wrk_1", str(folder / "wrk_1")))
    worker.channel.send(msg.Hello(ABI_VERSION, "wrk_1", msg.WorkerRole.PROGRAM))
    run = msg.Run(
        job_id="job_1",
        attempt=1,
        entry="llmos.programs.drill:Drill",
        inputs={"steps": [{"do": "emit", "kind": "begun"}, *steps]},
        files={},
        checkpoint=None,
        done_keys=[],
        max_results_in_flight=8,
        max_log_lines_per_s=1000.0,
        max_calls_in_flight=8,
        niceness=niceness,
    )
    SEEN[worker.pid] = []
    await heard(worker, lambda m: isinstance(m, msg.Ready))
    worker.channel.send(run)
    if lives:
        await heard(worker, emitted("begun"))
    return worker


def emitted(kind: str) -> Callable[[Any], bool]:
    return lambda m: isinstance(m, msg.Told) and any(e.kind == kind for e in m.events)


async def heard(worker: LocalWorker, wanted: Callable[[Any], bool]) -> list[Any]:
    """Everything it has said once there is a message that is wanted."""
    seen = SEEN[worker.pid]
    while not any(map(wanted, seen)):
        seen += await asyncio.wait_for(worker.channel.receive(), PATIENCE_S)
    return seen


async def ended(worker: LocalWorker) -> int:
    worker.kill()
    status = await asyncio.wait_for(worker.wait(), PATIENCE_S)
    worker.channel.close()
    return status


def with_worker(
    folder: Path,
    steps: list[dict[str, Any]],
    act: Callable[[LocalWorker], Awaitable[None]],
) -> None:
    async def main() -> None:
        worker = await started(LocalNode(worker_env(), folder / "run"), folder, steps)
        try:
            await act(worker)
        finally:
            await ended(worker)

    asyncio.run(main())


def is_answer(message: Any) -> bool:
    return isinstance(message, msg.Report)


def until(done: Callable[[], bool]) -> None:
    """Of states of processes, which nothing announces."""
    for _ in range(10_000):
        if done():
            return
        os.sched_yield()
    raise AssertionError("it never came to that")


def test_a_frozen_worker_stands_still_and_goes_on(tmp_path: Path) -> None:
    async def act(worker: LocalWorker) -> None:
        assert not worker.is_stopped()
        worker.freeze()
        until(worker.is_stopped)
        worker.freeze()  # idempotent
        worker.channel.send(msg.Probe(1))
        worker.thaw()
        worker.thaw()
        await heard(worker, is_answer)
        assert not worker.is_stopped()

    with_worker(tmp_path, [{"do": "sleep", "seconds": 600}], act)


def test_a_program_that_computes_is_nicer_and_so_is_what_it_starts(tmp_path: Path) -> None:
    async def main() -> None:
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        niceness = min(5, 19 - ours)
        steps = [{"do": "fork"}, {"do": "emit", "kind": "there"}, {"do": "sleep", "seconds": 600}]
        node = LocalNode(worker_env(), tmp_path / "run")
        worker = await started(node, tmp_path, steps, niceness=niceness)
        try:
            await heard(worker, emitted("there"))
            members = [s.pid for s in proc.members_of(worker.pid)]
            assert len(members) == 2
            for pid in members:
                assert os.getpriority(os.PRIO_PROCESS, pid) == ours + niceness
            if os.access(AUTOGROUP, os.W_OK):  # a system that groups by session
                told = await asyncio.to_thread(Path(f"/proc/{worker.pid}/autogroup").read_text)
                assert told.split()[-2:] == ["nice", str(niceness)]
        finally:
            await ended(worker)

    asyncio.run(main())


def test_memory_is_that_of_the_whole_tree(tmp_path: Path) -> None:
    async def act(worker: LocalWorker) -> None:
        await heard(worker, emitted("there"))
        assert worker.rss_bytes() > 64 << 20
        [child] = [s.pid for s in proc.members_of(worker.pid) if s.pid != worker.pid]
        assert worker.rss_bytes() > proc._resident_bytes(worker.pid)
        assert worker.rss_bytes() < 2 * (proc._resident_bytes(worker.pid) + 1)  # shared pages once
        os.kill(child, signal.SIGKILL)

    steps: list[dict[str, Any]] = [
        {"do": "allocate", "size_bytes": 64 << 20},
        {"do": "fork"},
        {"do": "emit", "kind": "there"},
        {"do": "sleep", "seconds": 600},
    ]
    with_worker(tmp_path, steps, act)


def test_a_worker_that_is_gone_is_not_stopped_and_takes_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        worker = await started(LocalNode(worker_env()), tmp_path, [])
        assert await ended(worker) == -signal.SIGKILL
        assert (worker.is_stopped(), worker.rss_bytes()) == (False, 0)
        worker.freeze()
        worker.kill()

    asyncio.run(main())


def test_whatever_a_program_prints_is_told(tmp_path: Path) -> None:
    ways = ["stdout", "stderr", "raw_out", "raw_err", "logging", "warning"]
    steps = [{"do": "print", "way": way, "text": f"{way} 说"} for way in ways]

    async def act(worker: LocalWorker) -> None:
        seen = await heard(worker, lambda m: isinstance(m, msg.Returned))
        told = [e.value for m in seen if isinstance(m, msg.Told) for e in m.events]
        lines = [(value["stream"], value["message"]) for value in told if "message" in value]
        assert ("stdout", "stdout 说") in lines
        assert ("stderr", "stderr 说") in lines
        assert ("stdout", "raw_out 说") in lines
        assert ("stderr", "raw_err 说") in lines
        assert ("log", "logging 说") in lines
        assert any(s == "log" and "UserWarning: warning 说" in line for s, line in lines)

    with_worker(tmp_path, steps, act)


def test_a_flood_is_bounded_in_lines_and_on_disk(tmp_path: Path) -> None:
    line, count = "flood " * 100, 20_000

    async def act(worker: LocalWorker) -> None:
        seen = await heard(worker, lambda m: isinstance(m, msg.Returned))
        told = [e.value for m in seen if isinstance(m, msg.Told) for e in m.events]
        dropped = sum(value.get("num_dropped", 0) for value in told)
        kept = sum("num_dropped" not in value for value in told)
        assert kept < 5_000
        assert kept + dropped == count + 1  # `begun`
        files = (tmp_path / "wrk_1").glob("*.log")
        assert sum(path.stat().st_blocks * 512 for path in files) < 4 << 20

    with_worker(tmp_path, [{"do": "print", "way": "raw_out", "text": line, "count": count}], act)


def test_last_words_of_a_crash_name_the_program(tmp_path: Path) -> None:
    async def main() -> None:
        node = LocalNode(worker_env())
        steps = [{"do": "kill", "signal": int(signal.SIGSEGV)}]
        worker = await started(node, tmp_path, steps, lives=False)
        assert await asyncio.wait_for(worker.wait(), PATIENCE_S) == -signal.SIGSEGV
        assert "Segmentation fault" in worker.last_words()
        assert "drill.py" in worker.last_words()
        await ended(worker)

    asyncio.run(main())


def test_another_interpreter_is_lent_our_code_only(tmp_path: Path) -> None:
    """One that has msgspec, and nothing else of ours."""
    folder = tmp_path / "other"
    subprocess.check_call([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    (packages,) = folder.glob("lib/python3.*/site-packages")
    (packages / "msgspec").symlink_to(Path(msgspec.__file__).parent)

    async def main() -> None:
        spec = WorkerSpec("wrk_1", str(tmp_path / "wrk_1"), str(folder / "bin" / "python"))
        worker = await LocalNode(worker_env()).start(spec)
        entry = "llmos.drivers.echo:EchoDriver"
        worker.channel.send(msg.Hello(ABI_VERSION, "wrk_1", msg.WorkerRole.REPLICA, entry))
        SEEN[worker.pid] = []
        await heard(worker, lambda m: isinstance(m, msg.Ready))
        commands.append(proc.PROC.joinpath(str(worker.pid), "cmdline").read_bytes())
        await ended(worker)

    commands: list[bytes] = []
    asyncio.run(main())
    assert commands[0].startswith(bytes(folder))
    assert [path.name for path in (tmp_path / "wrk_1" / "lent").iterdir()] == ["llmos"]


def test_a_module_that_lies_in_the_scratch_folder_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "wrk_1").mkdir()
    (tmp_path / "wrk_1" / "msgspec.py").write_text("raise SystemExit('not ours')")

    async def main() -> None:
        await ended(await started(LocalNode(worker_env()), tmp_path, []))

    asyncio.run(main())


def test_a_hard_exit_is_the_worker_s_end(tmp_path: Path) -> None:
    async def main() -> None:
        steps = [{"do": "exit", "hard": True, "status": 7}]
        worker = await started(LocalNode(worker_env()), tmp_path, steps, lives=False)
        assert await asyncio.wait_for(worker.wait(), PATIENCE_S) == 7
        await ended(worker)

    asyncio.run(main())


def test_a_forked_child_does_not_keep_the_socket_open(tmp_path: Path) -> None:
    async def main() -> None:
        steps: list[dict[str, Any]] = [{"do": "fork"}, {"do": "kill"}]
        worker = await started(LocalNode(worker_env()), tmp_path, steps, lives=False)
        with_end = asyncio.create_task(_drained(worker))
        await asyncio.wait_for(with_end, PATIENCE_S)
        await ended(worker)  # kills the child, too: it is of the group
        until(lambda: not proc.members_of(worker.pid))

    asyncio.run(main())


async def _drained(worker: LocalWorker) -> None:
    try:
        while True:
            await worker.channel.receive()
    except ChannelClosed:
        return


# left behind

SERVER = """
import asyncio, json, sys
from pathlib import Path
from tests.contract.cluster.test_local import emitted, heard, started
from llmos.abi import worker as msg
from llmos.cluster.local import LocalNode
from llmos.settings import worker_env

async def main(folder):
    steps = [{"do": "fork"}, {"do": "emit", "kind": "there"}, {"do": "sleep", "seconds": 600}]
    worker = await started(LocalNode(worker_env(), folder / "run"), folder, steps)
    await heard(worker, emitted("there"))
    worker.freeze()
    print(worker.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main(Path(sys.argv[1])))
"""


def test_what_a_killed_server_leaves_is_gone_after_the_next_boot(tmp_path: Path) -> None:
    """Frozen, with a child that knows no parent but the worker."""
    root = Path(__file__).parents[3]
    server = subprocess.Popen(
        [sys.executable, "-c", SERVER, str(tmp_path)], stdout=subprocess.PIPE, cwd=root
    )
    assert server.stdout is not None
    pid = int(server.stdout.readline())
    server.kill()
    server.wait()
    server.stdout.close()
    assert proc.members_of(pid), "nothing is left: the test proves nothing"
    [path] = (tmp_path / "run" / "workers").iterdir()
    assert path.name == str(pid)
    num_killed = LocalNode({}, tmp_path / "run").reap()
    assert num_killed >= 1
    until(lambda: all(s.state == "Z" for s in proc.members_of(pid)))
    assert not list((tmp_path / "run" / "workers").iterdir())
    assert LocalNode({}, tmp_path / "run").reap() == 0


def test_reaping_spares_whoever_has_the_pid_now(tmp_path: Path) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        stat = proc.find_stat(other.pid)
        assert stat is not None
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        notes = [
            Note(other.pid, stat.start_ticks - 1, boot_id, str(tmp_path / "wrk_1")),
            Note(other.pid, stat.start_ticks, "another boot", str(tmp_path / "wrk_1")),
        ]
        for note in notes:
            folder = tmp_path / "workers"
            folder.mkdir(exist_ok=True)
            (folder / str(other.pid)).write_text(json.dumps(_fields(note)))
            assert Notebook(folder).reap() == 0
        assert other.poll() is None
    finally:
        other.kill()
        other.communicate()


def _fields(note: Note) -> dict[str, Any]:
    return {name: getattr(note, name) for name in note.__struct_fields__}


def test_damaged_notes_are_forgotten(tmp_path: Path) -> None:
    (tmp_path / "1").write_bytes(b"\xff\x00 not json")
    (tmp_path / "2").write_text('{"pid": "x"}')
    (tmp_path / "readme").write_text("not ours")
    assert Notebook(tmp_path).reap() == 0
    assert [path.name for path in tmp_path.iterdir()] == ["readme"]
    assert Notebook(tmp_path / "none").reap() == 0


def test_a_note_that_cannot_be_written_keeps_no_worker_from_starting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "workers").write_text("no folder can be here")
    notebook = Notebook(tmp_path / "workers")
    notebook.add(os.getpid(), tmp_path)
    assert "not written down" in caplog.text
    notebook.remove(os.getpid())
    assert notebook.reap() == 0


def test_a_worker_is_written_down_until_it_has_been_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        worker = await started(LocalNode(worker_env(), tmp_path / "run"), tmp_path, [])
        assert [p.name for p in (tmp_path / "run" / "workers").iterdir()] == [str(worker.pid)]
        assert _oom_score(worker.pid) == 500
        await ended(worker)
        assert not list((tmp_path / "run" / "workers").iterdir())

    asyncio.run(main())


def _oom_score(pid: int) -> int:
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text())


def test_without_a_file_to_open_no_worker_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an error that counts against nobody's program."""

    def refuse() -> None:
        raise OSError(24, "Too many open files")

    async def scenario() -> None:
        monkeypatch.setattr(socket, "socketpair", refuse)
        await LocalNode({}).start(WorkerSpec("wrk_1", str(tmp_path / "scratch"), ""))

    with pytest.raises(WorkerError, match="cannot be started") as caught:
        asyncio.run(scenario())
    assert caught.value.code == WorkerError.code
