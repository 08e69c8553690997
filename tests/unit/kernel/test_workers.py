"""The worker table against scripted workers: late, rude, silent, dying."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi import ABI_VERSION
from llmos.abi import worker as msg
from llmos.abi.channel import Channel, ChannelClosed
from llmos.abi.driver import (
    Capabilities,
    DriverEntry,
    Health,
    LoadReport,
    MemoryReport,
    ReplicaSpec,
)
from llmos.abi.node import DeviceInfo, NodeMemory, WorkerSpec
from llmos.errors import ErrorInfo, WorkerError
from llmos.ipc import memory
from llmos.kernel.config import KernelConfig
from llmos.kernel.lanes import Lane
from llmos.kernel.watch import Watch
from llmos.kernel.workers import Workers
from llmos.telemetry.metrics import Metrics

DRIVER = DriverEntry("echo", "llmos.drivers.echo:EchoDriver")
SPEC = ReplicaSpec("mdl_1", "", "", "", 100, 2, 1)
CAPABILITIES = Capabilities("echo", ["generate"], ["none"])
REPORT = LoadReport("none", "cpu", True, 100, 2, MemoryReport(1))

Behaviour = Callable[[memory.MemoryChannel], Coroutine[Any, Any, None]]


class Handle:
    """A worker made of a coroutine; killing it closes its channel."""

    def __init__(self, behaviour: Behaviour) -> None:
        self.channel, self._theirs = memory.pair()
        self.pid = 4242
        self.killed = False
        self.is_still = False
        self._task = asyncio.ensure_future(self._run(behaviour))

    async def _run(self, behaviour: Behaviour) -> None:
        try:
            await behaviour(self._theirs)
        except ChannelClosed:
            pass
        finally:
            self._theirs.close()

    async def wait(self) -> int:
        await asyncio.wait([self._task])
        return -9 if self.killed else 0

    def kill(self) -> None:
        self.killed = self.killed or not self._task.done()
        self._task.cancel()
        self._theirs.close()

    def trim(self) -> None: ...

    def is_stopped(self) -> bool:
        return self.is_still

    def last_words(self) -> str:
        return "stderr"


class Node:
    """Starts the scripted workers in turn; None: cannot start."""

    def __init__(self, *behaviours: Behaviour | None) -> None:
        self._behaviours = list(behaviours)
        self.num_started = 0

    async def start(self, spec: WorkerSpec) -> Handle:
        self.num_started += 1
        behaviour = self._behaviours.pop(0)
        if behaviour is None:
            raise WorkerError("no more processes")
        return Handle(behaviour)

    def measure(self) -> NodeMemory:
        return NodeMemory(1, 1)

    def memory_bytes(self) -> tuple[int, int]:
        return 1, 1

    async def devices(self) -> list[DeviceInfo]:
        return []


async def until(condition: Callable[[], Any]) -> None:
    """Let the other tasks run until it holds."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - a turn of the loop, not a wait
            await asyncio.sleep(0)


class Seen:
    """An observer that remembers."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.refused: list[ErrorInfo] = []
        self.gone: asyncio.Queue[tuple[str, ErrorInfo | None]] = asyncio.Queue()
        self.steps: asyncio.Queue[msg.Step] = asyncio.Queue()

    def on_loaded(self, replica_id: str, report: LoadReport) -> None:
        self.loaded.append(replica_id)

    def on_refused(self, replica_id: str, error: ErrorInfo) -> None:
        self.refused.append(error)

    def on_gone(self, replica_id: str, error: ErrorInfo | None) -> None:
        self.gone.put_nowait((replica_id, error))

    def on_step(self, replica_id: str, step: msg.Step) -> None:
        self.steps.put_nowait(step)

    def on_report(self, replica_id: str, memory: MemoryReport) -> None: ...

    def on_prepared(self, lane: Lane, results: msg.PrepareResults) -> None: ...

    def on_tokenizer(
        self, lane: Lane, channel: Channel | None, error: ErrorInfo | None
    ) -> None: ...


async def greet(channel: memory.MemoryChannel) -> None:
    (hello,) = await channel.receive()
    assert hello.abi_version == ABI_VERSION
    channel.send(msg.Ready(ABI_VERSION, 4242, CAPABILITIES))


async def good(channel: memory.MemoryChannel) -> None:
    await greet(channel)
    while True:
        for message in await channel.receive():
            if isinstance(message, msg.Load):
                channel.send(msg.Loaded(REPORT))
            elif isinstance(message, msg.Submit):
                channel.send(msg.Step([], 0.0))
            elif isinstance(message, msg.Shutdown):
                return


async def busy(channel: memory.MemoryChannel) -> None:
    await greet(channel)
    await channel.receive()
    channel.send(msg.Loaded(REPORT))
    health = Health(True, detail="compiling 2 of 4")
    channel.send(msg.Report(0, health, MemoryReport(5)))
    await asyncio.Event().wait()


async def silent(channel: memory.MemoryChannel) -> None:
    await asyncio.Event().wait()


async def loads_for_ever(channel: memory.MemoryChannel) -> None:
    await greet(channel)
    await asyncio.Event().wait()


async def other_abi(channel: memory.MemoryChannel) -> None:
    await channel.receive()
    channel.send(msg.Ready(ABI_VERSION + 1, 1, None))
    await asyncio.Event().wait()


async def dies_loading(channel: memory.MemoryChannel) -> None:
    await greet(channel)
    await channel.receive()


async def last_words(channel: memory.MemoryChannel) -> None:
    await greet(channel)
    await channel.receive()
    channel.send(msg.Fatal(WorkerError("out of memory").to_info()))


def outcome(behaviour: Behaviour | None, tmp_path: Path, **config: Any) -> ErrorInfo | None:
    """What the observer hears of a replica on such a worker."""

    async def main() -> ErrorInfo | None:
        seen = Seen()
        made = KernelConfig(**({"warm_spare": False} | config))
        workers = Workers(Node(behaviour), seen, made, tmp_path, Metrics())
        workers.start_replica("rep_1", DRIVER, SPEC)
        replica_id, error = await asyncio.wait_for(seen.gone.get(), 5)
        assert replica_id == "rep_1"
        assert workers.infos() == []
        return error

    return asyncio.run(main())


def test_what_a_replica_left_goes_with_its_worker_but_for_snapshots(tmp_path: Path) -> None:
    for name in ("adapted-mdl_1/model.safetensors", "note", "snapshots/snp_1.snap"):
        (tmp_path / "rep_1" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "rep_1" / name).write_text("x")
    (tmp_path / "rep_2" / "adapted-mdl_1").mkdir(parents=True)
    outcome(last_words, tmp_path)
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*")}
    snapshots = {"rep_1", "rep_1/snapshots", "rep_1/snapshots/snp_1.snap"}
    assert left == {*snapshots, "rep_2", "rep_2/adapted-mdl_1"}
    (tmp_path / "rep_1" / "snapshots" / "snp_1.snap").unlink()
    outcome(None, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["rep_2"]


def test_a_worker_that_never_says_hello_is_given_up(tmp_path: Path) -> None:
    error = outcome(silent, tmp_path, handshake_timeout_s=0.01)
    assert error
    assert "did not start in time" in error.message


def test_what_a_driver_says_of_itself_is_kept(tmp_path: Path) -> None:
    async def main() -> None:
        seen = Seen()
        config = KernelConfig(warm_spare=False, stop_grace_s=0.01)
        workers = Workers(Node(busy), seen, config, tmp_path, Metrics())
        workers.start_replica("rep_1", DRIVER, SPEC)
        await until(lambda: workers.report_of("rep_1")[1] == MemoryReport(5))
        worker, _ = workers.report_of("rep_1")
        assert worker is not None and worker.health is not None
        assert worker.health.detail == "compiling 2 of 4"
        workers.stop_replica("rep_1")
        await workers.close()

    asyncio.run(main())


def test_a_worker_of_another_abi_is_refused(tmp_path: Path) -> None:
    error = outcome(other_abi, tmp_path)
    assert error
    assert error.code == "protocol_violation"


def test_a_load_without_end_is_ended(tmp_path: Path) -> None:
    error = outcome(loads_for_ever, tmp_path, load_timeout_s=0.01)
    assert error
    assert error.code == "load_failed"


def test_a_driver_that_compiles_is_given_the_time(tmp_path: Path) -> None:
    async def main() -> None:
        config = KernelConfig(warm_spare=False, load_timeout_s=0.01)
        workers = Workers(Node(loads_for_ever), (seen := Seen()), config, tmp_path, Metrics())
        slow = msgspec.structs.replace(DRIVER, load_s=0.5)
        workers.start_replica("rep_1", slow, SPEC)
        workers.start_replica("rep_2", DRIVER, SPEC)
        ended = [(await asyncio.wait_for(seen.gone.get(), 5))[0] for _ in range(2)]
        assert ended == ["rep_2", "rep_1"]

    asyncio.run(main())


def test_a_death_says_how(tmp_path: Path) -> None:
    error = outcome(dies_loading, tmp_path)
    assert error
    assert "exit status 0" in error.message


def test_last_words_are_heard(tmp_path: Path) -> None:
    error = outcome(last_words, tmp_path)
    assert error
    assert "out of memory" in error.message


def test_a_process_that_cannot_start_is_an_error_too(tmp_path: Path) -> None:
    error = outcome(None, tmp_path)
    assert error
    assert "no more processes" in error.message


def test_a_life_from_load_to_stop(tmp_path: Path) -> None:
    async def main() -> None:
        seen = Seen()
        config = KernelConfig(warm_spare=False)
        workers = Workers(Node(good), seen, config, tmp_path, Metrics())
        workers.start_replica("rep_1", DRIVER, SPEC)
        workers.send("rep_1", msg.Submit([]))  # before it is there: nobody to send it to
        await until(lambda: seen.loaded)
        workers.send("rep_1", msg.Submit([]))
        await asyncio.wait_for(seen.steps.get(), 5)
        workers.stop_replica("rep_1")
        assert await asyncio.wait_for(seen.gone.get(), 5) == ("rep_1", None)
        workers.stop_replica("rep_1")  # already gone: told so at once
        assert seen.gone.get_nowait() == ("rep_1", None)

    asyncio.run(main())


def test_a_spare_takes_over_without_a_new_process(tmp_path: Path) -> None:
    async def main() -> None:
        seen, node = Seen(), Node(good, good, good)
        config = KernelConfig(warm_spare=True, spare_delay_s=0)
        workers = Workers(node, seen, config, tmp_path, Metrics())
        workers.start_replica("rep_1", DRIVER, SPEC)
        await until(lambda: any(w.state == "spare" for w in workers.infos()))
        assert node.num_started == 2
        workers.start_replica("rep_2", DRIVER, SPEC)
        await until(lambda: "rep_2" in seen.loaded)
        assert [w.replica_id for w in workers.infos()][:2] == ["rep_1", "rep_2"]
        await workers.close()
        assert workers.infos() == []

    asyncio.run(main())


def test_a_spare_that_still_imports_is_not_waited_for(tmp_path: Path) -> None:
    async def main() -> None:
        async def imports(channel: memory.MemoryChannel) -> None:
            await asyncio.Event().wait()

        seen, node = Seen(), Node(good, imports)
        config = KernelConfig(warm_spare=True, spare_delay_s=0, stop_grace_s=60)
        workers = Workers(node, seen, config, tmp_path, Metrics())
        workers.start_replica("rep_1", DRIVER, SPEC)
        await until(lambda: node.num_started == 2)
        await asyncio.wait_for(workers.close(), 5)
        assert workers.infos() == []

    asyncio.run(main())


def test_a_worker_that_somebody_stopped_is_told_at_once_and_replaced_in_time(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async def serves(channel: memory.MemoryChannel) -> None:
            await greet(channel)
            await channel.receive()
            channel.send(msg.Loaded(REPORT))
            await asyncio.Event().wait()

        seen = Seen()
        config = KernelConfig(warm_spare=False, stopped_timeout_s=10)
        workers = Workers(Node(serves), seen, config, tmp_path, Metrics())
        workers.start_replica("rep_1", DRIVER, SPEC)
        await until(lambda: seen.loaded)
        watch = Watch(workers.everyone, workers.kill, config)
        (worker,) = workers.everyone()
        handle = typing.cast("Handle", worker.handle)
        handle.is_still = worker.is_frozen = True  # by us
        watch.look(now_s=100.0)
        assert watch.troubles == []
        worker.is_frozen = False
        watch.look(now_s=101.0)
        assert [trouble for _, trouble in watch.troubles] == ["is stopped by a signal"]
        handle.is_still = False
        watch.look(now_s=102.0)
        assert watch.troubles == []
        handle.is_still = True
        watch.look(now_s=110.0)
        assert not handle.killed
        watch.look(now_s=120.0)
        _, error = await asyncio.wait_for(seen.gone.get(), 5)
        assert error
        assert "stood still for 10 s" in error.message

    asyncio.run(main())


def test_a_silent_worker_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        async def serves_and_falls_silent(channel: memory.MemoryChannel) -> None:
            await greet(channel)
            await channel.receive()
            channel.send(msg.Loaded(REPORT))
            await asyncio.Event().wait()

        seen = Seen()
        config = KernelConfig(warm_spare=False, probe_timeout_s=5)
        node = Node(serves_and_falls_silent)
        workers = Workers(node, seen, config, tmp_path, Metrics())
        workers.start_replica("rep_1", DRIVER, SPEC)
        await until(lambda: seen.loaded)
        watch = Watch(workers.everyone, workers.kill, config)
        watch.look(now_s=100.0)
        watch.look(now_s=104.0)
        assert watch.troubles == []
        watch.look(now_s=104.5)
        ((worker, trouble),) = watch.troubles
        assert (worker.replica_id, trouble) == ("rep_1", "says nothing for 4 s")
        watch.look(now_s=106.0)
        _, error = await asyncio.wait_for(seen.gone.get(), 5)
        assert error
        assert "silent for 6 s" in error.message

    asyncio.run(main())
