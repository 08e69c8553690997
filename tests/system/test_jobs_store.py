"""Jobs over a store that fails or fills up; workers and drivers are real."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos import boot
from llmos.abi import syscall as sc
from llmos.abi import syscall_jobs as sj
from llmos.abi.inference import ChatPrompt, Options, Sampling
from llmos.abi.jobs import JobRecord, JobSpec, JobState
from llmos.abi.principal import Principal, Role, ServiceClass
from llmos.abi.program import Generate
from llmos.api.gate import GateClient
from llmos.errors import DiskFull, LLMOSError, PluginError
from llmos.kernel.core.jobs import JobPhase
from llmos.kernel.kernel import Kernel, Services
from llmos.programs.catalog import PROGRAMS
from llmos.settings import load

ME = Principal("prn_1", "ten_1", "me", Role.ADMIN)
HERE = {"do": "emit", "kind": "here", "value": {}}


class Flaky:
    """The real store, but calls named in `failing` fail with DiskFull. `calls` counts all."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.failing: set[str] = set()
        self.failed: list[str] = []
        self.ahead_ns = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)

        async def call(*args: Any, **kwargs: Any) -> Any:
            if name in self.failing:
                self.failed.append(name)
                raise DiskFull("no space left on this device")
            return await method(*args, **kwargs)

        return call

    async def fire_schedules(self, now_ns: int) -> list[JobRecord]:
        return list(await self._store.fire_schedules(now_ns + self.ahead_ns))


class Machine:
    """A whole system in this process, without HTTP."""

    def __init__(self, kernel: Kernel, store: Flaky) -> None:
        self.kernel = kernel
        self.store = store
        self._gate = GateClient(kernel.connect())

    async def ask(self, body: Any, who: Principal = ME) -> Any:
        return await self._gate.call(who, body)

    async def submit(self, *steps: dict[str, Any], **spec: Any) -> str:
        spec.setdefault("program", "drill")
        reply = await self.ask(sj.SubmitJob(JobSpec(inputs={"steps": list(steps)}, **spec)))
        return str(reply.job.job_id)

    async def call(self, text: str, **spec: Any) -> str:
        prompt = ChatPrompt([{"role": "user", "content": text}])
        options = Options(driver=spec.pop("driver", {}))
        generate = Generate("echo", prompt, Sampling(), options)
        inputs = {"generate": msgspec.to_builtins(generate), "body": {"kept": "beside"}}
        reply = await self.ask(sj.SubmitJob(JobSpec("infer", inputs, **spec)))
        return str(reply.job.job_id)

    async def end(self, job_id: str) -> JobRecord:
        story = await self.ask(sc.WaitProcess(job_id, 60.0))
        assert story.info.ended_ns is not None, story
        record: JobRecord = (await self.ask(sj.ShowJob(job_id))).job
        return record

    async def phase(self, job_id: str, phase: JobPhase) -> None:
        """Returns once the core has it in this phase."""
        await until(lambda: (j := self.kernel.jobs.find_core(job_id)) and j.phase is phase)

    async def here(self, job_id: str) -> None:
        """Returns when its program has come to its step `HERE`."""
        with self.kernel.jobs.hub.follow(job_id) as follower:
            while True:
                follower.clear()
                if await self.store.events(job_id, 0, 10, ["here"]):
                    return
                await follower.wait(30.0)


async def until(condition: Callable[[], Any], timeout_s: float = 30.0) -> None:
    """Let the others run until it holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - looks in between, waits for nothing of its own
            await asyncio.sleep(0.002)


@pytest.fixture
def on_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test's coroutine on a machine with these settings."""

    def run(main: Callable[[Machine], Coroutine[Any, Any, None]], **settings: Any) -> None:
        asyncio.run(_on_machine(main, tmp_path / "home", monkeypatch, settings))

    return run


async def _on_machine(
    main: Callable[[Machine], Coroutine[Any, Any, None]],
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: dict[str, Any],
) -> None:
    async with machine(home, monkeypatch, settings) as made:
        await main(made)


@asynccontextmanager
async def machine(
    home: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> AsyncIterator[Machine]:
    stores: list[Flaky] = []

    def services(**made: Any) -> Services:
        stores.append(Flaky(made["jobs"]))
        return Services(**{**made, "jobs": stores[-1]})

    flags = {"home": home, "preload": ["echo"], "jobs.min_backoff_s": 0.05}
    flags |= {key.replace("__", "."): value for key, value in settings.items()}
    with monkeypatch.context() as patch:
        patch.setattr(boot, "Services", services)
        patch.setattr(boot, "setup_logs", lambda *_, **__: None)  # the log is pytest's
        async with boot.system(load(flags, environ={}, folders=())) as (kernel, _, _):
            try:
                await until(lambda: not kernel.problems())
                yield Machine(kernel, stores[0])
            finally:
                stores[0].failing.clear()
                await kernel.stop()


def test_a_full_disk_refuses_new_work_keeps_what_is_done_and_heals(
    on_machine: Callable[..., None],
) -> None:
    async def main(m: Machine) -> None:
        job_id = await m.submit(
            HERE,
            {"do": "sleep", "seconds": 0.2},
            {"do": "result", "num_results": 20},
            {"do": "return", "outputs": {"x": 1}},
        )
        await m.here(job_id)
        m.store.failing = {"add", "append", "put_results", "finish", "note", "claim", "begin"}
        await until(lambda: "put_results" in m.store.failed)
        begun = time.monotonic()
        with pytest.raises(DiskFull):
            await m.submit({"do": "return"})
        assert time.monotonic() - begun < 5.0
        assert any("jobs cannot be written" in p for p in m.kernel.problems())
        assert (await m.ask(sj.ShowJob(job_id))).job.state is JobState.RUNNING  # not acked early
        m.store.failing = {"finish"}
        await until(lambda: "finish" in m.store.failed)
        m.store.failing = set()
        begun = time.monotonic()
        job = await m.end(job_id)
        assert time.monotonic() - begun < 10.0
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)
        assert job.outputs is not None
        assert job.outputs["x"] == 1
        await until(lambda: not m.kernel.problems(), 10.0)
        assert (await m.end(await m.submit({"do": "return"}))).state is JobState.SUCCEEDED

    on_machine(main)


def test_a_store_that_does_not_let_a_job_begin_gets_it_back(
    on_machine: Callable[..., None],
) -> None:
    async def main(m: Machine) -> None:
        m.store.failing = {"begin"}
        job_id = await m.submit({"do": "return"})
        await until(lambda: m.store.failed.count("begin") >= 2)
        m.store.failing = set()
        job = await m.end(job_id)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)

    on_machine(main)


def test_durable_calls_are_answered_and_keep_what_lies_beside_them(
    on_machine: Callable[..., None],
) -> None:
    async def main(m: Machine) -> None:
        ids = [await m.call(f"你好 {i} 🙂") for i in range(40)]
        for i, job_id in enumerate(ids):
            job = await m.end(job_id)
            assert job.state is JobState.SUCCEEDED
            assert job.outputs is not None
            assert job.outputs["answer"]["text"] == f"你好 {i} 🙂"
            assert job.spec.inputs["body"] == {"kept": "beside"}
        wrong = await m.end(await m.call("x", driver={"no_such_option": 1}))
        assert wrong.state is JobState.FAILED
        assert wrong.error is not None
        with pytest.raises(LLMOSError, match="not a call"):
            await m.ask(sj.SubmitJob(JobSpec("infer", {"generate": {"model": 3}})))

    on_machine(main, jobs__max_running_calls=4)


def test_a_call_that_a_stopping_server_cuts_short_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"

    async def before(m: Machine) -> str:
        job_id = await m.call("a" * 100, driver={"delay_ms": 50})
        await m.phase(job_id, JobPhase.RUNNING)
        return job_id

    async def both() -> None:
        async with machine(home, monkeypatch, {"kernel.drain_timeout_s": 0.1}) as first:
            job_id = await before(first)
        async with machine(home, monkeypatch, {}) as second:
            job = await second.end(job_id)
            assert (job.state, job.attempt) == (JobState.SUCCEEDED, 2)
            assert (job.num_deaths, job.num_failures) == (0, 0)
            assert job.outputs is not None
            assert job.outputs["answer"]["text"] == "a" * 100

    asyncio.run(both())


def test_what_is_frozen_without_checkpoints_is_held_until_it_is_resumed(
    on_machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    held = msgspec.structs.replace(PROGRAMS["drill"], checkpoints=False)
    monkeypatch.setattr(boot, "program_named", lambda name: held)

    async def main(m: Machine) -> None:
        job_id = await m.submit(HERE, {"do": "sleep", "seconds": 0.3}, {"do": "return"})
        await m.here(job_id)
        await m.ask(sc.SuspendProcess(job_id))
        await m.phase(job_id, JobPhase.FROZEN)
        assert (await m.ask(sj.ShowJob(job_id))).job.state is JobState.SUSPENDED
        (info,) = [p for p in (await m.ask(sc.ListProcesses())).processes if p.kind == "job"]
        assert info.state == "suspended"
        await m.ask(sc.ResumeProcess(job_id))
        job = await m.end(job_id)
        assert (job.state, job.attempt) == (JobState.SUCCEEDED, 1)

    on_machine(main)


def test_the_window_is_bounded_and_lets_the_more_urgent_in(
    on_machine: Callable[..., None],
) -> None:
    async def main(m: Machine) -> None:
        long = await m.submit(HERE, {"do": "sleep", "seconds": 60})
        await m.here(long)
        waiting = [await m.submit({"do": "return"}) for _ in range(40)]
        await until(lambda: len(m.kernel.jobs.entries) == 9)
        urgent = await m.submit({"do": "return"}, service_class=ServiceClass.DEFAULT)
        await until(lambda: urgent in m.kernel.jobs.entries)
        assert len(m.kernel.jobs.entries) <= 10
        await m.ask(sc.KillProcess(long))
        ended = await m.end(urgent)
        for job_id in waiting:
            job = await m.end(job_id)
            assert job.state is JobState.SUCCEEDED
            assert (job.started_ns or 0) > (ended.started_ns or 0)

    on_machine(main, jobs__claim_window=8, jobs__max_running=1, jobs__spare_bytes=0)


def test_a_schedule_submits_when_its_time_has_come(on_machine: Callable[..., None]) -> None:
    async def main(m: Machine) -> None:
        spec = JobSpec("drill", {"steps": [{"do": "return", "outputs": {"by": "clock"}}]})
        added = (await m.ask(sj.AddSchedule("* * * * *", spec))).schedules[0]
        m.store.ahead_ns = 61_000_000_000
        m.kernel.jobs.wake()

        await until(lambda: m.kernel.jobs.entries)
        m.store.ahead_ns = 0
        (job_id,) = m.kernel.jobs.entries
        job = await m.end(job_id)
        assert job.outputs == {"by": "clock", "files": {"output": None}}
        assert (await m.ask(sj.ListSchedules())).schedules[0].last_job_id == job.job_id
        await m.ask(sj.RemoveSchedule(added.schedule_id))
        assert (await m.ask(sj.ListSchedules())).schedules == []

    on_machine(main)


def test_a_program_that_is_gone_fails_its_jobs(
    on_machine: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = dict(PROGRAMS)

    def find(name: str) -> Any:
        if name not in known:
            raise PluginError(f"there is no {name}")
        return known[name]

    monkeypatch.setattr(boot, "program_named", find)

    async def main(m: Machine) -> None:
        m.store.failing = {"claim"}
        job_id = await m.submit({"do": "return"})
        known.clear()
        m.store.failing = set()
        job = await m.end(job_id)
        assert job.state is JobState.FAILED
        assert job.error is not None
        assert job.error.code == "plugin_error"
        await until(lambda: not m.kernel.jobs.entries)

    on_machine(main)


def test_a_lost_worker_is_replaced_by_the_warm_one_within_a_second(
    on_machine: Callable[..., None],
) -> None:
    async def main(m: Machine) -> None:
        job_id = await m.submit(HERE, {"do": "sleep", "seconds": 60})
        await m.here(job_id)
        kernel = m.kernel

        def spares() -> list[sc.WorkerInfo]:
            return [w for w in kernel.workers.infos() if w.role == "program" and w.state == "spare"]

        await until(spares)
        (worker,) = [
            w for w in kernel.workers.infos() if w.role == "program" and w.state == "serving"
        ]
        (spare,) = spares()
        kernel.workers.end_program(job_id, None)  # as if it had gone by itself
        begun = time.monotonic()
        await until(
            lambda: any(
                w.worker_id == spare.worker_id and w.state == "serving"
                for w in kernel.workers.infos()
            )
        )
        assert time.monotonic() - begun < 5.0
        assert worker.worker_id not in {w.worker_id for w in kernel.workers.infos()}
        await m.ask(sc.KillProcess(job_id))
        assert (await m.end(job_id)).state is JobState.CANCELLED

    on_machine(main, jobs__spare_delay_s=0.0)
