"""The worker table: every process the kernel started, from spawn to the last word."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from pathlib import Path
from typing import Any

from llmos.abi import ABI_VERSION
from llmos.abi import worker as msg
from llmos.abi.channel import Channel, ChannelClosed
from llmos.abi.driver import DriverEntry, MemoryReport, ReplicaSpec
from llmos.abi.ids import new_id
from llmos.abi.node import NodeAgent, WorkerSpec
from llmos.abi.syscall import WorkerInfo
from llmos.errors import (
    ErrorInfo,
    LLMOSError,
    LoadFailed,
    OutOfMemory,
    ProtocolViolation,
    WorkerLost,
)
from llmos.kernel.config import KernelConfig
from llmos.kernel.lanes import Lane
from llmos.kernel.worker import Observer, Programs, Worker, WorkerState, drop_scratch
from llmos.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


class Workers:
    """Starts, watches and stops workers; one task each. Decides nothing: the core does.

    `programs` hears of program workers; it is set before the first one starts.
    """

    programs: Programs

    def __init__(
        self,
        node: NodeAgent,
        observer: Observer,
        config: KernelConfig,
        scratch: Path,
        metrics: Metrics,
    ) -> None:
        self._node = node
        self._observer = observer
        self._config = config
        self._scratch = scratch
        self._metrics = metrics
        self._workers: dict[str, Worker] = {}
        self._replicas: dict[str, Worker] = {}
        self._jobs: dict[str, Worker] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._handlers: dict[type, Any] = {
            msg.Step: self._on_step,
            msg.PrepareResults: self._on_prepared,
            msg.Loaded: self._on_loaded,
            msg.LoadError: self._on_load_error,
            msg.Parked: self._on_parked,
            msg.Unparked: self._on_unparked,
            msg.Suspended: self._on_suspended,
            msg.Report: self._on_report,
            msg.Progress: self._on_progress,
            msg.Fatal: self._on_fatal,
        }
        self._handlers |= dict.fromkeys(_OF_PROGRAMS, self._on_program)

    # what the kernel asks for

    def start_tokenizer(self, lane: Lane) -> None:
        """Told to the observer when it is there; when it dies, too."""
        role = msg.WorkerRole.TOKENIZER
        self._spawn(Worker(new_id("wrk"), role, None, time.time_ns(), lane=lane))

    def kill_tokenizer(self, lane: Lane) -> None:
        """It is stuck. Its successor gets what it had not answered."""
        for worker in self._workers.values():
            if worker.lane is lane and worker.state is WorkerState.SERVING:
                self.kill(worker, WorkerLost("the tokenizer was stuck on a prompt"))

    def start_replica(self, replica_id: str, driver: DriverEntry, spec: ReplicaSpec) -> None:
        """On a warm spare of the driver when there is one. Nothing starts once all is to end."""
        if self._closing:
            self._observer.on_gone(replica_id, None)
            return
        spare = next(
            (
                w
                for w in self._workers.values()
                if w.state is WorkerState.SPARE and w.driver == driver
            ),
            None,
        )
        worker = spare or Worker(new_id("wrk"), msg.WorkerRole.REPLICA, driver, time.time_ns())
        worker.replica_id, worker.load = replica_id, spec
        self._replicas[replica_id] = worker
        if spare is None:
            self._spawn(worker)
        else:
            self._begin_load(worker)

    def send(self, replica_id: str, message: msg.ToWorker) -> None:
        """To the replica's worker. One that is gone is not an error: its end is on the way."""
        worker = self._replicas.get(replica_id)
        if worker is not None and worker.handle is not None:
            with contextlib.suppress(ChannelClosed):
                worker.handle.channel.send(message)

    def stop_replica(self, replica_id: str) -> None:
        """Ask it to stop, kill it after the grace time. `on_gone` follows in any case."""
        worker = self._replicas.get(replica_id)
        if worker is None:
            self._observer.on_gone(replica_id, None)
        else:
            self._stop(worker)

    def park_replica(self, replica_id: str) -> None:
        """`on_parked` follows, or its end."""
        self.send(replica_id, msg.Park())

    def unpark_replica(self, replica_id: str) -> None:
        """`on_unparked`, `on_refused` or its end follows, within the time of a load."""
        worker = self._replicas.get(replica_id)
        if worker is not None:
            self.send(replica_id, msg.Unpark())
            self._arm_load(worker)

    def start_program(self, job_id: str, python: str, run: msg.Run, *, takes_spare: bool) -> None:
        """In a worker of its own, or in the warm spare if that is still there."""
        worker = self._find_spare_program() if takes_spare else None
        if worker is None:
            worker = Worker(new_id("wrk"), msg.WorkerRole.PROGRAM, None, time.time_ns())
            worker.python = python
        worker.job_id, worker.run = job_id, run
        self._jobs[job_id] = worker
        if worker.worker_id not in self._workers:
            self._spawn(worker)
        elif worker.state is WorkerState.SPARE:
            self._begin_run(worker)

    def start_spare_program(self) -> None:
        """Told to `programs` only when it dies unused."""
        if not self._closing and self._find_spare_program() is None:
            self._spawn(Worker(new_id("wrk"), msg.WorkerRole.PROGRAM, None, time.time_ns()))

    def stop_spare_program(self) -> None:
        """Its end is told, also when there is none any more."""
        spare = self._find_spare_program()
        if spare is None:
            self.programs.on_spare_gone(None)
        else:
            self._stop(spare)
            self.kill(spare, None)  # it has nothing to put away

    def _find_spare_program(self) -> Worker | None:
        return next(
            (
                w
                for w in self._workers.values()
                if w.role is msg.WorkerRole.PROGRAM
                and w.job_id is None
                and w.state is not WorkerState.STOPPING
            ),
            None,
        )

    def send_program(self, job_id: str, message: msg.ToWorker) -> None:
        """As `send`."""
        worker = self._jobs.get(job_id)
        if worker is not None and worker.handle is not None:
            with contextlib.suppress(ChannelClosed):
                worker.handle.channel.send(message)

    def program_folder(self, job_id: str) -> str:
        """Where the job's worker may write."""
        return str(self._scratch / self._jobs[job_id].worker_id)

    def freeze_program(self, job_id: str, is_frozen: bool) -> None:
        """Stop it where it is, or let it go on. Nobody expects a frozen one to answer."""
        worker = self._jobs.get(job_id)
        if worker is not None and worker.handle is not None:
            worker.is_frozen, worker.probe_sent = is_frozen, None
            if is_frozen:
                worker.handle.freeze()
            else:
                worker.handle.thaw()

    def end_program(self, job_id: str, reason: LLMOSError | None) -> None:
        """At once. `reason` None: it has said its last word. `on_program_gone` follows."""
        worker = self._jobs.get(job_id)
        if worker is None:
            return
        if reason is None:
            worker.state = WorkerState.STOPPING
        self.kill(worker, reason)

    def program_rss(self) -> list[tuple[str, int]]:
        """What each job's worker takes now, in bytes."""
        return [
            (job_id, worker.handle.rss_bytes())
            for job_id, worker in self._jobs.items()
            if worker.handle is not None and worker.state is WorkerState.SERVING
        ]

    def program_use(self, job_id: str) -> tuple[float, int]:
        """What its worker has used of the processors so far, and of memory now."""
        handle = worker.handle if (worker := self._jobs.get(job_id)) else None
        return (handle.cpu_s(), handle.rss_bytes()) if handle else (0.0, 0)

    def resident_bytes(self) -> dict[str, int]:
        """What each replica's worker takes now, in bytes."""
        return {
            replica_id: worker.handle.rss_bytes()
            for replica_id, worker in self._replicas.items()
            if worker.handle is not None
        }

    def report_of(self, replica_id: str) -> tuple[Worker | None, MemoryReport | None]:
        """The worker of a replica and what it last measured."""
        worker = self._replicas.get(replica_id)
        return worker, worker.memory if worker else None

    def everyone(self) -> list[Worker]:
        """Every process there is."""
        return list(self._workers.values())

    def infos(self) -> list[WorkerInfo]:
        return [worker.info() for worker in self._workers.values()]

    async def close(self) -> None:
        """Stop everything and wait until it is gone."""
        self._closing = True
        for worker in list(self._workers.values()):
            self._stop(worker)
        if self._tasks:
            await asyncio.wait(self._tasks)

    # one worker's life

    def _spawn(self, worker: Worker) -> None:
        self._workers[worker.worker_id] = worker
        task = asyncio.get_running_loop().create_task(self._live(worker), name=worker.worker_id)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _live(self, worker: Worker) -> None:
        error: LLMOSError | None = None
        try:
            scratch = str(self._scratch / worker.worker_id)
            python = worker.driver.python if worker.driver else worker.python
            worker.num_oom_kills = self._node.measure().num_oom_kills
            worker.handle = await self._node.start(
                WorkerSpec(worker.worker_id, scratch, python, _env_of(worker.role))
            )
            await self._greet(worker, worker.handle.channel)
            await self._listen(worker, worker.handle.channel)
        except ChannelClosed:
            pass
        except LLMOSError as failure:
            error = failure
        except Exception as failure:
            log.exception("a worker's task failed")
            error = WorkerLost(f"{type(failure).__name__}: {failure}")
        await self._bury(worker, error)

    async def _greet(self, worker: Worker, channel: Channel) -> None:
        driver = worker.driver.entry if worker.driver else ""
        channel.send(msg.Hello(ABI_VERSION, worker.worker_id, worker.role, driver))
        try:
            async with asyncio.timeout(self._config.handshake_timeout_s):
                ready, *rest = await channel.receive()
        except TimeoutError as late:
            raise WorkerLost("the worker did not start in time") from late
        if isinstance(ready, msg.Fatal):
            self._on_fatal(worker, ready)
        if not isinstance(ready, msg.Ready) or rest or ready.abi_version != ABI_VERSION:
            raise ProtocolViolation("the worker does not speak this ABI")
        worker.last_heard_ns = time.time_ns()
        if worker.state is WorkerState.STOPPING or worker.death is not None:
            raise ChannelClosed
        if worker.lane is not None:
            worker.state = WorkerState.SERVING
            self._observer.on_tokenizer(worker.lane, channel, None)
        elif worker.load is not None:
            self._begin_load(worker)
        elif worker.run is not None:
            self._begin_run(worker)
        else:
            worker.state = WorkerState.SPARE

    def _begin_run(self, worker: Worker) -> None:
        """Raises ProtocolViolation for inputs that no message holds."""
        assert worker.handle is not None
        assert worker.run is not None
        assert worker.job_id is not None
        worker.state = WorkerState.SERVING
        with contextlib.suppress(ChannelClosed):
            worker.handle.channel.send(worker.run)
        worker.run = None
        self.programs.on_program_up(worker.job_id)

    async def _listen(self, worker: Worker, channel: Channel) -> None:
        handlers = self._handlers
        while True:
            messages = await channel.receive()
            worker.last_heard_ns = time.time_ns()
            for message in messages:
                handlers[type(message)](worker, message)

    def _begin_load(self, worker: Worker) -> None:
        assert worker.handle is not None
        assert worker.load is not None
        worker.state = WorkerState.LOADING
        with contextlib.suppress(ChannelClosed):
            worker.handle.channel.send(msg.Load(worker.load))
        self._arm_load(worker)

    def _arm_load(self, worker: Worker) -> None:
        """It is killed when it takes longer than its size allows."""
        assert worker.load is not None and worker.driver is not None
        config, spec = self._config, worker.load
        folders = [spec.folder, *([spec.draft.folder] if spec.draft else [])]
        size_gib = sum(map(_folder_bytes, folders)) / (1 << 30)
        timeout_s = config.load_timeout_s + size_gib * config.load_timeout_per_gib_s
        timeout_s += worker.driver.load_s
        late = LoadFailed(f"not loaded within {timeout_s:.0f} s")
        loop = asyncio.get_running_loop()
        worker.load_timer = loop.call_later(timeout_s, self.kill, worker, late)

    async def _bury(self, worker: Worker, error: LLMOSError | None) -> None:
        handle, exit_status, last_words = worker.handle, None, ""
        if handle is not None:
            handle.kill()
            exit_status = await handle.wait()
            last_words = handle.last_words()
            worker.handle = None  # a timer that still means to kill it must not hit its pid's heir
        del self._workers[worker.worker_id]
        asked = worker.state is WorkerState.STOPPING
        info = None if asked else self._obituary(worker, error, exit_status, last_words)
        # a merged model, it may be
        await asyncio.to_thread(drop_scratch, self._scratch, worker.worker_id, worker.replica_id)
        if worker.load_timer is not None:
            worker.load_timer.cancel()
        if worker.lane is not None:
            self._observer.on_tokenizer(worker.lane, None, info)
        elif worker.replica_id is not None:
            del self._replicas[worker.replica_id]
            self._observer.on_gone(worker.replica_id, info)
        elif worker.job_id is not None:
            del self._jobs[worker.job_id]
            self.programs.on_program_gone(worker.job_id, info)
        elif worker.role is msg.WorkerRole.PROGRAM:
            self.programs.on_spare_gone(info)

    def _obituary(
        self, worker: Worker, error: LLMOSError | None, exit_status: int | None, last_words: str
    ) -> ErrorInfo:
        cause = worker.death or error or self._cause(worker, exit_status)
        self._metrics.worker_deaths.labels(worker.role).inc()
        extra = {"worker": worker.worker_id, "replica": worker.replica_id, "stderr": last_words}
        log.warning("worker lost: %s", cause.message, extra=extra)
        return cause.to_info()

    def _cause(self, worker: Worker, exit_status: int | None) -> LLMOSError:
        """Of a death by itself. The system kills for want of memory, and only counts that."""
        before, now = worker.num_oom_kills, self._node.measure().num_oom_kills
        was_counted = before is not None and now is not None and now > before
        if exit_status == -signal.SIGKILL and was_counted:
            return OutOfMemory("the system killed the worker: the machine had no memory left")
        return WorkerLost(f"the worker died ({_status(exit_status)})")

    def _stop(self, worker: Worker) -> None:
        if worker.state is WorkerState.STOPPING:
            return
        # one that is importing hears nothing, and has nothing to put away
        is_new, worker.state = worker.state is WorkerState.STARTING, WorkerState.STOPPING
        grace_s = 0.0 if is_new else self._config.stop_grace_s
        try:
            if worker.handle is not None:
                worker.handle.channel.send(msg.Shutdown())
        except ChannelClosed:
            grace_s = 0.0
        asyncio.get_running_loop().call_later(grace_s, self.kill, worker, None)

    @staticmethod
    def kill(worker: Worker, reason: LLMOSError | None) -> None:
        """Now; `reason` is told as why it died, unless it is being stopped anyway."""
        worker.death = worker.death or reason
        if worker.handle is not None:
            worker.handle.kill()

    # what workers say

    def _on_step(self, worker: Worker, message: msg.Step) -> None:
        if worker.replica_id is not None:
            self._observer.on_step(worker.replica_id, message)

    def _on_prepared(self, worker: Worker, message: msg.PrepareResults) -> None:
        if worker.lane is not None:
            self._observer.on_prepared(worker.lane, message)

    def _on_loaded(self, worker: Worker, message: msg.Loaded) -> None:
        if worker.load_timer is not None:
            worker.load_timer.cancel()
        if worker.state is WorkerState.LOADING and worker.replica_id is not None:
            worker.state = WorkerState.SERVING
            worker.memory = message.report.memory
            self._observer.on_loaded(worker.replica_id, message.report)
            delay_s = self._config.spare_delay_s
            asyncio.get_running_loop().call_later(delay_s, self._keep_spare, worker.driver)

    def _on_load_error(self, worker: Worker, message: msg.LoadError) -> None:
        if worker.replica_id is not None:
            self._observer.on_refused(worker.replica_id, message.error)

    def _on_parked(self, worker: Worker, message: msg.Parked) -> None:
        worker.memory = message.memory
        if worker.replica_id is not None:
            self._observer.on_parked(worker.replica_id, message)

    def _on_unparked(self, worker: Worker, message: msg.Unparked) -> None:
        if worker.load_timer is not None:
            worker.load_timer.cancel()
        worker.memory = message.memory
        if worker.replica_id is not None:
            self._observer.on_unparked(worker.replica_id, message)

    def _on_suspended(self, worker: Worker, message: msg.Suspended) -> None:
        if worker.replica_id is not None:
            self._observer.on_suspended(worker.replica_id, message)

    def _on_report(self, worker: Worker, message: msg.Report) -> None:
        worker.probe_sent = None
        worker.memory, worker.health = message.memory, message.health
        if worker.replica_id is not None and worker.state is WorkerState.SERVING:
            self._observer.on_report(worker.replica_id, message)

    def _on_program(self, worker: Worker, message: Any) -> None:
        if worker.job_id is not None:
            self.programs.on_program(worker.job_id, message)

    def _on_progress(self, worker: Worker, message: msg.Progress) -> None:
        log.info("loading %s: %s %.0f %%", worker.replica_id, message.what, 100 * message.fraction)

    @staticmethod
    def _on_fatal(worker: Worker, message: msg.Fatal) -> None:
        worker.death = WorkerLost(f"the worker ended itself: {message.error.message}")
        raise ChannelClosed

    # watching

    def _keep_spare(self, driver: DriverEntry | None) -> None:
        """The next replica of this driver, or this one's successor, starts without the imports."""
        spare = any(
            w.driver == driver and w.replica_id is None and w.role is msg.WorkerRole.REPLICA
            for w in self._workers.values()
        )
        if self._config.warm_spare and not spare and not self._closing:
            self._spawn(Worker(new_id("wrk"), msg.WorkerRole.REPLICA, driver, time.time_ns()))


_OF_PROGRAMS = (
    *(msg.Told, msg.Results, msg.Calls, msg.Asks, msg.Waits, msg.Checkpoint, msg.Gather),
    *(msg.Register, msg.Returned, msg.Raised, msg.GaveWay),
)


def _env_of(role: msg.WorkerRole) -> dict[str, str]:
    """Programs share the processors with who is served: their threads wait awake for some 30 µs,
    not for milliseconds (OpenMP's own default made steps of training 14 x as long on a busy
    machine)."""
    return {"GOMP_SPINCOUNT": "1000"} if role is msg.WorkerRole.PROGRAM else {}


def _status(exit_status: int | None) -> str:
    if exit_status is None:
        return "never started"
    return f"signal {-exit_status}" if exit_status < 0 else f"exit status {exit_status}"


def _folder_bytes(folder: str) -> int:
    if not folder:
        return 0
    try:
        return sum(path.stat().st_size for path in Path(folder).iterdir() if path.is_file())
    except OSError:  # removed meanwhile: the driver will say so
        return 0
