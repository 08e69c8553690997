"""The kernel: its parts put together, started and stopped. Everything concrete is injected."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from llmos.abi.channel import Channel
from llmos.abi.driver import DriverEntry, Secret
from llmos.abi.events import Aborted, Event, Failed, Terminal
from llmos.abi.feedback import FeedbackStore
from llmos.abi.files import FileStore
from llmos.abi.footprint import FootprintLog
from llmos.abi.home import Housekeeping
from llmos.abi.inference import GENERATE
from llmos.abi.jobs import JobStore
from llmos.abi.node import NodeAgent
from llmos.abi.policy import MakePolicy, Tuning
from llmos.abi.principal import Authorizer, KeyStore
from llmos.abi.program import Plan, ProgramEntry
from llmos.abi.registry import Registry
from llmos.abi.requests import RequestLog, RequestRow
from llmos.abi.suspended import SnapshotStore, Tier
from llmos.abi.syscall import Accepted, Refused, Reply
from llmos.errors import ConfigError, ErrorInfo, from_info
from llmos.ipc import memory
from llmos.kernel.config import KernelConfig
from llmos.kernel.core import events as ev
from llmos.kernel.core.admission import check_size
from llmos.kernel.core.ledger import Ledger
from llmos.kernel.core.limits import JobLimits, Limits
from llmos.kernel.core.replica import HOST, ReplicaState
from llmos.kernel.core.state import State, initial
from llmos.kernel.counting import count_refusal
from llmos.kernel.effects import Effects
from llmos.kernel.front import Call
from llmos.kernel.gauges import Gauges
from llmos.kernel.jobs import made
from llmos.kernel.jobs.config import JobsConfig
from llmos.kernel.jobs.runner import Runner
from llmos.kernel.jobs.services import JobServices
from llmos.kernel.lanes import Tokenizers
from llmos.kernel.loop import Loop
from llmos.kernel.memory import MemoryWatch
from llmos.kernel.placement import ChooseDtype, Placement
from llmos.kernel.process import Phase, Process, ProcessTable
from llmos.kernel.records import line_of, row_of
from llmos.kernel.restore import restore
from llmos.kernel.resume import Resumable
from llmos.kernel.spending import Spending
from llmos.kernel.spills import Spills
from llmos.kernel.stream import Bounds, Kept, Stream
from llmos.kernel.switch import Switch
from llmos.kernel.syscall import Gate
from llmos.kernel.table import SYSCALLS
from llmos.kernel.tracing import record_of
from llmos.kernel.vitals import Vitals
from llmos.kernel.watch import Watch
from llmos.kernel.worker import Worker
from llmos.kernel.workers import Workers
from llmos.telemetry.logs import RequestLines
from llmos.telemetry.metrics import Metrics
from llmos.telemetry.tracer import Tracer

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Services:
    """What the kernel needs and does not know how to make.

    `probe_store` proves that the store can write; it raises StorageError when it cannot.
    `program_of` raises PluginError for a name nobody has, `plan_of` for an entry string.
    """

    registry: Registry
    authorizer: Authorizer
    keys: KeyStore
    node: NodeAgent
    driver_of: Callable[[str], DriverEntry]
    make_policy: MakePolicy
    probe_store: Callable[[], Awaitable[None]]
    scratch: Path
    version: str
    epoch: int
    jobs: JobStore
    files: FileStore
    requests: RequestLog
    housekeeping: Housekeeping
    program_of: Callable[[str], ProgramEntry]
    programs: Callable[[], list[ProgramEntry]]
    plan_of: Callable[[str], Plan]
    snapshots: SnapshotStore
    footprints: FootprintLog
    choose_dtype: ChooseDtype
    feedback: FeedbackStore | None = None
    cache: Path | None = None
    min_free_bytes: int = 0
    find_secret: Callable[[str], Secret | None] = lambda name: None
    may_reach: Callable[[str], bool] = lambda host: True
    tracer: Tracer | None = None
    request_lines: RequestLines | None = None
    watts_per_core: float = 0.0


class Kernel:
    """Handlers see this object; the core sees none of it."""

    def __init__(
        self, services: Services, config: KernelConfig, metrics: Metrics, jobs: JobsConfig
    ) -> None:
        self.config = config
        self.registry = services.registry
        self.authorizer = services.authorizer
        self.keys = services.keys
        self.files = services.files
        self.housekeeping = services.housekeeping
        self.program_of = services.program_of
        self.programs = services.programs
        self.plan_of = services.plan_of
        self.node = services.node
        self.version = services.version
        self.epoch = services.epoch
        self.metrics = metrics
        self.tracer = services.tracer
        self.started_ns = time.time_ns()
        self.draining = False
        self.fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.snapshots = services.snapshots
        self.feedback = services.feedback
        self._requests = services.requests
        self._request_lines = services.request_lines
        self._budgets = {HOST: self._budget_bytes()}
        self._num_arrivals = 0
        self._residents: dict[str, list[asyncio.Future[None]]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()
        self.state = self._make_state(services, jobs)
        self._make_requests(services)
        self._make_machine(services)
        self._make_jobs(services, jobs)
        self._gate = Gate(self, SYSCALLS, services.authorizer, self._left)

    def _make_state(self, services: Services, jobs: JobsConfig) -> State:
        config = self.config
        tuning = Tuning(config.slice_tokens, int(config.nice_step_s * 1e9), config.lowest_share)
        limits = _limits(config, self._budgets[HOST], jobs.limits())
        if not services.snapshots.folder(Tier.MEMORY):
            limits = replace(limits, max_snapshot_memory_bytes=0)
        return initial(limits, lambda: services.make_policy(tuning))

    def _make_requests(self, services: Services) -> None:
        """What requests pass through, each part knowing only those made before it."""
        config, metrics = self.config, self.metrics
        self.spills = Spills(services.scratch)
        self.table = ProcessTable(config.ended_kept, config.ended_kept_s)
        self.tokenizers = Tokenizers(config.prepare_timeout_s, self.spills.discard)
        self.placement = Placement(
            config,
            self._budgets,
            services.driver_of,
            services.scratch,
            services.footprints,
            choose_dtype=services.choose_dtype,
            cache=services.cache,
            min_free_bytes=services.min_free_bytes,
            find_secret=services.find_secret,
            may_reach=services.may_reach,
        )
        self.spending = Spending(services.node, metrics, services.watts_per_core)
        self.switch = Switch(
            services.snapshots,
            self.table,
            lambda event: self.loop.post(event),  # noqa: PLW0108 (it is made below)
            metrics,
        )
        self.effects = Effects(
            self.state,
            self.table,
            self.tokenizers,
            self.placement,
            metrics,
            switch=self.switch,
            spending=self.spending,
            record=self._record,
        )
        self.loop = Loop(self.state, self.effects.apply, self._die, metrics)
        self.resumable = Resumable(config, self.cancel)
        self._bounds = Bounds(config.stream_high_events, config.stream_low_events)

    def _make_machine(self, services: Services) -> None:
        """Workers, and what looks after them and their memory."""
        node, config, metrics = services.node, self.config, self.metrics
        self.workers = Workers(node, self.effects, config, services.scratch, metrics)
        self.switch.workers = self.workers
        self.memory = MemoryWatch(
            node, self.workers, self.state, self.loop.post, config=config, metrics=metrics
        )
        self._gauges = Gauges(self.state, self.workers, metrics)
        self.effects.freed = self.memory.look_soon
        self.effects.connect(self.loop, self.workers, self)
        self.watch = Watch(self.workers.everyone, self.workers.kill, config)
        self.vitals = Vitals(
            self.loop.prove,
            services.probe_store,
            fresh_s=config.proof_fresh_s,
            timeout_s=config.proof_timeout_s,
        )

    def _make_jobs(self, services: Services, jobs: JobsConfig) -> None:
        self.jobs = Runner(
            JobServices(
                services.jobs,
                services.files,
                services.program_of,
                self.registry.resolve,
                functools.partial(made.register, self),
                self.connect,
                services.keys.is_revoked,
            ),
            state=self.state,
            post=self.loop.post,
            workers=self.workers,
            config=jobs,
            metrics=self.metrics,
            spending=self.spending,
        )
        self.effects.also(self.jobs.appliers)

    # life

    async def start(self, preload: list[str]) -> None:
        """Returns at once; `problems` says when everything asked for is there.

        Raises ModelNotFound and ModelTooLarge for what cannot be preloaded, ConfigError for a
        device that is not there.
        """
        self.metrics.budget_bytes.set(self.state.ledger.budget_bytes)
        await self._find_device()
        await self.memory.look()
        await restore(self)
        await self.switch.measure()
        for ref in preload:
            facts = self.placement.facts(self.registry.resolve(ref))
            if too_large := check_size(self.state, facts):
                raise too_large
            self.loop.post(ev.ModelWanted(facts, pin=True, is_standing=True))
        self.tokenizers.start(self.workers)
        self.jobs.start()
        self._task(self._live())
        self._task(self._watch())
        self._task(self.memory.run())

    async def _find_device(self) -> None:
        """Its memory has a ledger of its own. Raises ConfigError."""
        name = self.config.device
        if name == "cpu":
            return
        found = {device.name: device for device in await self.node.devices()}
        if name not in found:
            there = ", ".join(sorted(found)) or "none"
            raise ConfigError(f"kernel.device: this machine has no {name}; there is {there}")
        budget = int(found[name].total_bytes * self.config.memory_fraction)
        self.state.ledgers[name], self._budgets[name] = Ledger(budget), budget

    async def stop(self) -> None:
        """Nothing new, a bounded time for what runs, then the workers."""
        self.draining = True
        self.loop.post(ev.Draining())
        await self.jobs.stop_claiming()
        await asyncio.gather(self._drain_requests(), self._drain_jobs())
        await self.switch.settle()
        self.resumable.dismiss_all()
        self.jobs.hub.close()
        self.tokenizers.close()
        self.loop.post(ev.Closing())
        await self.workers.close()
        await self.jobs.close(self.config.stop_grace_s)
        for task in self._tasks:
            task.cancel()
        self.loop.stop()

    async def _drain_requests(self) -> None:
        """Those that go on with the next server are not waited for."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.config.drain_timeout_s):
                await self.table.empty.wait()

    async def _drain_jobs(self) -> None:
        """For those that make a checkpoint; the others come back with the next server."""
        bound_s = min(self.config.drain_timeout_s, self.jobs.config.drain_timeout_s)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(bound_s):
                await self.jobs.wait_idle()

    def connect(self, parent_id: str | None = None) -> Channel:
        """A front end's end of a new channel to the gate; `parent_id`: of the job that asks."""
        theirs, ours = memory.pair()
        self._task(self._gate.serve(ours, parent_id))
        return theirs

    def problems(self) -> list[str]:
        """Why a request would not be served now; empty: it would."""
        found = []
        if self.draining:
            found.append("the server is stopping")
        if not self.tokenizers.is_up:
            found.append("the tokenizer worker is not up")
        found += self.vitals.problems
        found += [
            f"{self._name(worker)} {trouble}"
            for worker, trouble in self.watch.troubles
            if worker.job_id is None  # what a tenant's program does to itself is its own affair
        ]
        found += self.jobs.problems()
        for model_id in self.state.pinned:
            replicas = self.state.replicas_of(model_id)
            if not any(replica.state is ReplicaState.READY for replica in replicas):
                found.append(f"{self.state.models[model_id].ref} is not loaded")
        return found

    def _name(self, worker: Worker) -> str:
        """What people know a worker by."""
        replica = self.state.replicas.get(worker.replica_id or "")
        if replica is not None:
            return f"the worker of {replica.model.ref} (pid {worker.info().pid})"
        return f"the {worker.role} worker (pid {worker.info().pid})"

    # for handlers

    def new_stream(self, call: Call, request_id: str, resume_s: float | None) -> Stream:
        """Raises InvalidRequest and QuotaExceeded for one that shall outlive its reader."""
        kept = self.resumable.keep(resume_s, call.principal.tenant_id)
        return Stream(call, request_id, self._bounds, self._reader_changed, kept)

    def old_stream(self, request_id: str, events: Sequence[Event], num_events: int) -> Stream:
        """Of a request that an earlier server had: nobody reads it yet."""
        kept = Kept(self.config.kept_events, events, num_events)
        return Stream(None, request_id, self._bounds, self._reader_changed, kept)

    def next_arrival(self) -> int:
        """A number that grows with every request."""
        self._num_arrivals += 1
        return self._num_arrivals

    def abandon(self, process: Process, error: ErrorInfo | None = None) -> None:
        """It never became the core's; `error` says why."""
        request_id = process.request_id
        event = Aborted(request_id, "not accepted") if error is None else Failed(request_id, error)
        process.end(event, time.time_ns(), "" if error is None else "never accepted")
        if process.trace is not None:
            self._trace(process, event, row_of(process, event, self.epoch))
        self.table.retire(process)
        self.switch.closed(process)
        self.spills.discard(request_id)

    def cancel(self, request_id: str, reason: str) -> None:
        """In whatever state it is; unknown ids are ignored."""
        process = self.table.live.get(request_id)
        if process is None:
            return
        if process.phase is Phase.PREPARING:
            process.cancel_reason = reason
        self.loop.post(ev.Cancelled(request_id, reason))

    def when_resident(self, model_id: str) -> asyncio.Future[None]:
        """Done when a replica of the model is ready; fails when it cannot be."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = [other for other in self._residents[model_id] if not other.done()]
        self._residents[model_id] = [*waiting, future]
        return future

    # for effects

    def accepted(self, process: Process) -> None:
        """The HTTP status can be sent now."""
        stream, prepared, options = process.stream, process.prepared, process.body.options
        assert prepared is not None
        stream.accepted = Accepted(
            request_id=process.request_id,
            model=process.version.ref,
            prompt_tokens=prepared.num_tokens,
            service_class=process.service_class,
            deterministic=options.deterministic,
            created_ns=process.created_ns,
            tool_format=prepared.tool_format,
            kind=process.kind,
        )
        if stream.kept is not None and options.resume_s:
            self.resumable.add(stream, process.principal, options.resume_s)
        if (call := stream.call) is not None:
            call.front.send(Reply(call.number, stream.accepted))

    def refused(self, process: Process, error: ErrorInfo) -> None:
        call = process.stream.call
        assert call is not None, "only an accepted stream loses its reader"
        call.front.streams.pop(call.number, None)
        count_refusal(self.metrics, process, error)
        self.abandon(process, error)
        # the caller has no other name for it to ask `why` about
        error = msgspec.structs.replace(
            error, details={**error.details, "request_id": process.request_id}
        )
        call.front.send(Refused(call.number, error))

    def closed(self, process: Process) -> None:
        if (call := process.stream.call) is not None:
            call.front.streams.pop(call.number, None)
        self.resumable.ended(process.stream)
        prepared = process.prepared  # a call of the system for each text that has none is spared
        if process.kind != GENERATE or (prepared is not None and prepared.spill):
            self.spills.discard(process.request_id)

    def resident(self, model_id: str, error: ErrorInfo | None) -> None:
        for future in [f for f in self._residents.pop(model_id, ()) if not f.done()]:
            if error is None:
                future.set_result(None)
            else:
                future.set_exception(from_info(error))

    # inside

    def _budget_bytes(self) -> int:
        total_bytes = self.node.measure().total_bytes
        return self.config.memory_budget_bytes or int(total_bytes * self.config.memory_fraction)

    def _left(self, stream: Stream, reason: str) -> None:
        if not self.resumable.left(stream):
            self.cancel(stream.request_id, reason)

    def _reader_changed(self, request_id: str, stalled: bool) -> None:
        event = ev.ReaderStalled if stalled else ev.ReaderResumed
        self.loop.post(event(request_id))

    def _task(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _record(self, process: Process, event: Terminal) -> None:
        row = row_of(process, event, self.epoch)
        self._requests.record([row])
        self._trace(process, event, row)
        if self._request_lines is not None:
            self._request_lines.give(line_of(process, row))

    def _trace(self, process: Process, event: Terminal, row: RequestRow) -> None:
        if self.tracer is not None and process.trace is not None:
            self.tracer.give(record_of(process, process.trace, row, event))

    def _die(self, error: Exception) -> None:
        if not self.fatal.done():
            self.fatal.set_exception(error)

    async def _watch(self) -> None:
        """Probes and gauges, for as long as the kernel lives."""
        while True:
            self.watch.look(time.monotonic())
            self.jobs.gauge()
            self._gauges.set()
            self.spending.look()
            await asyncio.sleep(self.config.probe_interval_s)

    async def _live(self) -> None:
        """Of its own: a store that hangs must not keep anyone from looking at the workers."""
        while True:
            if not await self.vitals.check():
                self.jobs.disk.works()
            await self.switch.measure()
            await asyncio.sleep(self.config.probe_interval_s)


def _limits(config: KernelConfig, budget_bytes: int, jobs: JobLimits) -> Limits:
    return Limits(
        max_preemptions=config.max_preemptions,
        max_snapshot_memory_bytes=config.max_snapshot_memory_bytes,
        min_residency_ns=int(config.min_residency_s * 1e9),
        turn_ns=int(config.turn_s * 1e9),
        room_timeout_ns=int(config.room_timeout_s * 1e9),
        parking=config.parking,
        eviction=config.eviction,
        max_waiting=config.max_waiting,
        max_waiting_per_model=config.max_waiting_per_model,
        max_waiting_tokens=config.max_waiting_tokens,
        max_open_per_tenant=config.max_open_per_tenant,
        max_parked=config.max_parked,
        memory_budget_bytes=budget_bytes,
        keep_alive_ns=int(config.keep_alive_s * 1e9),
        stall_timeout_ns=int(config.stall_timeout_s * 1e9),
        patience_ns=int(config.patience_s * 1e9),
        jobs=jobs,
    )
