"""What the core decided and what workers said, carried out. The only place where both meet."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from llmos.abi import worker as msg
from llmos.abi.channel import Channel
from llmos.abi.driver import Health, LoadReport
from llmos.abi.events import Aborted, Failed, Finished, Outputs, Terminal, Tokens
from llmos.errors import ErrorInfo, ProtocolViolation
from llmos.kernel.core import decisions as do
from llmos.kernel.core import events as ev
from llmos.kernel.core.state import State
from llmos.kernel.counting import count_end
from llmos.kernel.lanes import Lane, Tokenizers
from llmos.kernel.loop import Loop
from llmos.kernel.placement import Placement, held_bytes
from llmos.kernel.process import Phase, Process, ProcessTable
from llmos.kernel.spending import Spending
from llmos.kernel.switch import Switch
from llmos.kernel.workers import Workers
from llmos.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

MAX_TOLD = 100
"""Processes whose story tells that their model waits for memory, of very many."""


class Callers(Protocol):
    """The gate's side: who waits for an answer."""

    def accepted(self, process: Process) -> None: ...

    def refused(self, process: Process, error: ErrorInfo) -> None: ...

    def closed(self, process: Process) -> None: ...

    def resident(self, model_id: str, error: ErrorInfo | None) -> None: ...


class Effects:
    """Applies decisions, and turns workers' messages into the core's events.

    `loop`, `workers` and `callers` know this object and it knows them: `connect` closes the circle.
    """

    loop: Loop
    workers: Workers
    callers: Callers

    def __init__(
        self,
        state: State,
        table: ProcessTable,
        tokenizers: Tokenizers,
        placement: Placement,
        metrics: Metrics,
        *,
        switch: Switch,
        spending: Spending,
        record: Callable[[Process, Terminal], None],
    ) -> None:
        self._state = state
        self._record = record
        self._table = table
        self._tokenizers = tokenizers
        self._placement = placement
        self._metrics = metrics
        self._switch = switch
        self.spending = spending
        self.loads: dict[str, LoadReport] = {}
        self._guesses: dict[str, tuple[int, int]] = {}
        self.freed: Callable[[], None] = lambda: None
        """Bytes came free, they say: it is measured again. Set by the kernel."""
        self.num_tokens = 0
        self._appliers: dict[type, Callable[[Any], None]] = {
            do.Accept: self._accept,
            do.Refuse: self._refuse,
            do.Dispatch: self._dispatch,
            do.PauseRow: self._pause,
            do.UnpauseRow: self._unpause,
            do.AbortRow: self._abort,
            do.Close: self._close,
            do.StartReplica: self._start,
            do.StopReplica: self._stop,
            do.ParkReplica: self._park,
            do.UnparkReplica: self._unpark,
            do.LacksRoom: self._lacks_room,
            do.Resident: self._resident,
            **switch.appliers,
        }

    def connect(self, loop: Loop, workers: Workers, callers: Callers) -> None:
        """Before the first decision."""
        self.loop, self.workers, self.callers = loop, workers, callers

    def also(self, appliers: dict[type, Callable[[Any], None]]) -> None:
        """Who carries out the decisions about jobs."""
        self._appliers |= appliers

    def apply(self, decision: do.Decision) -> None:
        """Carry out one decision."""
        self._appliers[type(decision)](decision)

    # decisions

    def _accept(self, decision: do.Accept) -> None:
        process = self._table.live[decision.request_id]
        process.phase = Phase.WAITING
        wait_s, service_s = decision.wait_ns / 1e9, decision.service_ns / 1e9
        process.note(
            f"accepted, {decision.reason}: a row in about {wait_s:.2f} s, then {service_s:.2f} s"
        )
        process.expected_start_ns = time.time_ns() + int(decision.wait_ns)
        self.callers.accepted(process)

    def _refuse(self, decision: do.Refuse) -> None:
        self.callers.refused(self._table.live[decision.request_id], decision.error)

    def _dispatch(self, decision: do.Dispatch) -> None:
        process = self._table.live[decision.request_id]
        process.phase = Phase.RUNNING
        process.note(f"runs on {decision.replica_id}: {decision.reason}")
        if process.started_ns is None:
            process.started_ns, process.started_mono = time.time_ns(), time.monotonic_ns()
            waited_s = (process.started_mono - process.created_mono) / 1e9
            self._metrics.queue_time.labels(process.version.ref).observe(waited_s)
        if (load := self.loads.get(decision.replica_id)) is not None:
            process.device = load.device
        try:
            message = self._switch.submission(process, decision)
            self.workers.send(decision.replica_id, message)
        except ProtocolViolation as error:  # the worker will never know of it
            failed = Failed(decision.request_id, error.to_info())
            self.loop.post(ev.Ended(decision.request_id, failed))

    def _pause(self, decision: do.PauseRow) -> None:
        self._phase(decision.request_id, Phase.PAUSED, f"gave up its row: {decision.reason}")
        process = self._table.live[decision.request_id]
        if decision.kind in (do.Pause.PREEMPTED, do.Pause.TURN):
            process.num_preemptions += 1
            self._metrics.preemptions.labels(process.version.ref).inc()
        self.workers.send(decision.replica_id, msg.Pause([decision.request_id]))

    def _unpause(self, decision: do.UnpauseRow) -> None:
        self._phase(decision.request_id, Phase.RUNNING, f"runs again: {decision.reason}")
        self.workers.send(decision.replica_id, msg.Unpause([decision.request_id]))

    def _phase(self, request_id: str, phase: Phase, reason: str) -> None:
        process = self._table.live[request_id]
        process.phase = phase
        process.note(reason)

    def _abort(self, decision: do.AbortRow) -> None:
        self.workers.send(decision.replica_id, msg.Abort([decision.request_id], decision.reason))

    def _close(self, decision: do.Close) -> None:
        process = self._table.live[decision.request_id]
        event = decision.event
        process.end(event, time.time_ns(), decision.reason)
        if isinstance(event, Finished):
            event = msgspec.structs.replace(event, served=process.served())
        process.stream.close(event)
        cost = self._state.costs.get(process.version.model_id)
        count_end(self._metrics, process, event, cost.error.value if cost else 0.0)
        process.spent = self.spending.ended(process, process.device)
        self._record(process, event)
        self._table.retire(process)
        self._switch.closed(process)
        self.callers.closed(process)

    def _start(self, decision: do.StartReplica) -> None:
        self._metrics.model_switches.labels("start").inc()
        driver, spec = self._placement.spec(decision.model, decision.replica_id)
        self.workers.start_replica(decision.replica_id, driver, spec)

    def _stop(self, decision: do.StopReplica) -> None:
        self._metrics.model_switches.labels("stop").inc()
        self.workers.stop_replica(decision.replica_id)

    def _park(self, decision: do.ParkReplica) -> None:
        self._metrics.model_switches.labels("park").inc()
        self.workers.park_replica(decision.replica_id)

    def _unpark(self, decision: do.UnparkReplica) -> None:
        self._metrics.model_switches.labels("unpark").inc()
        self.workers.unpark_replica(decision.replica_id)

    def _lacks_room(self, decision: do.LacksRoom) -> None:
        """Whoever waits for the model is told, as far as they are few."""
        queue = self._state.queue(decision.model_id)
        told = 0
        for process in self._table.live.values():
            if process.version.model_id == decision.model_id and process.request_id in queue:
                process.note(decision.reason)
                told += 1
                if told >= MAX_TOLD:
                    break

    def _resident(self, decision: do.Resident) -> None:
        self.callers.resident(decision.model_id, decision.error)

    # what workers said

    def on_loaded(self, replica_id: str, report: LoadReport) -> None:
        self.loads[replica_id] = report
        for warning in report.warnings:
            log.warning("%s: %s", replica_id, warning)
        used, device_used = held_bytes(report.memory)
        peak = report.memory.peak_bytes
        if replica := self._state.replicas.get(replica_id):
            load_s = (time.monotonic_ns() - replica.since_ns) / 1e9
            self._placement.learn(replica.model, report, load_s)
        self.loop.post(ev.ReplicaUp(replica_id, report.num_slots, used, device_used, peak))

    def on_parked(self, replica_id: str, message: msg.Parked) -> None:
        memory = message.memory
        used, device_used = memory.bound_bytes or memory.rss_bytes, memory.device_bytes
        self.loop.post(ev.ReplicaParked(replica_id, used, device_used, message.error))
        self.freed()

    def on_unparked(self, replica_id: str, message: msg.Unparked) -> None:
        used, device_used = held_bytes(message.memory)
        self.loop.post(ev.ReplicaUnparked(replica_id, used, device_used))

    def on_report(self, replica_id: str, report: msg.Report) -> None:
        """It may hold more than it was thought to."""
        replica = self._state.replicas.get(replica_id)
        used, device_used = held_bytes(report.memory)
        if replica is not None and used > self._state.reserved_of(replica):
            self.loop.post(ev.ReplicaMeasured(replica_id, used, device_used))
        if replica is not None:
            self._count_guesses(replica_id, replica.model.ref, report.health)

    def _count_guesses(self, replica_id: str, ref: str, health: Health) -> None:
        """What came since the last report: workers tell sums."""
        guessed, accepted = self._guesses.get(replica_id, (0, 0))
        self._guesses[replica_id] = health.num_guessed, health.num_accepted
        self._metrics.draft_tokens.labels(ref).inc(max(0, health.num_guessed - guessed))
        self._metrics.accepted_tokens.labels(ref).inc(max(0, health.num_accepted - accepted))

    def on_suspended(self, replica_id: str, message: msg.Suspended) -> None:
        self._switch.on_suspended(message)

    def on_refused(self, replica_id: str, error: ErrorInfo) -> None:
        self.loop.post(ev.ReplicaRefused(replica_id, error))

    def on_gone(self, replica_id: str, error: ErrorInfo | None) -> None:
        self.loads.pop(replica_id, None)
        self._guesses.pop(replica_id, None)
        self.loop.post(ev.ReplicaGone(replica_id, error))
        self.freed()

    def on_step(self, replica_id: str, step: msg.Step) -> None:
        """The hot path: tokens go straight to their streams, ends go through the core."""
        now_mono = time.monotonic_ns()
        live = self._table.live
        made: list[tuple[str, int]] = []
        ends: list[Terminal] = []
        num_tokens = 0
        share = 1 / max(1, len(step.events))
        cpu_s, engine_s = step.cpu_s * share, step.step_s * share
        for event in step.events:
            process = live.get(event.request_id)
            if process is not None:
                process.cpu_s += cpu_s
                process.engine_s += engine_s
            if isinstance(event, Tokens):
                if process is not None:
                    made.append((event.request_id, event.num_tokens))
                    num_tokens += self._tokens(process, event, now_mono, step.step_s)
            elif isinstance(event, Outputs):
                if process is not None:
                    made.append((event.request_id, len(event.items)))
                    self._outputs(process, event, now_mono, step.step_s)
            else:
                ends.append(event)
        if made:
            self.loop.post(ev.Progressed(replica_id, made))
        for end in ends:
            self._ended(end)
        self._stepped(replica_id, step, num_tokens)

    def _stepped(self, replica_id: str, step: msg.Step, num_tokens: int) -> None:
        if replica := self._state.replicas.get(replica_id):
            ref = replica.model.ref
            self._metrics.step_time.labels(ref).observe(step.step_s)
            if num_tokens:
                self._metrics.step_tokens.labels(ref).observe(num_tokens)
        if (load := self.loads.get(replica_id)) is not None:
            self.spending.stepped(load.device, step.step_s)

    def _ended(self, event: Terminal) -> None:
        """Through the core, but for what is no end: a request that is off to go on elsewhere."""
        process = self._table.live.get(event.request_id)
        if process is not None and process.is_forgotten and isinstance(event, Aborted):
            self._switch.on_forgotten(process)
        elif process is None or not (
            isinstance(event, Failed) and self._switch.on_rejected(process, event)
        ):
            self.loop.post(ev.Ended(event.request_id, event))

    def _outputs(self, process: Process, event: Outputs, now_mono: int, step_s: float) -> None:
        if process.trace is not None:
            process.trace.step(now_mono, step_s, len(event.items))
        if process.first_token_mono == 0:
            process.first_token_mono = now_mono
            first_s = (now_mono - process.created_mono) / 1e9
            self._metrics.ttft.labels(process.version.ref).observe(first_s)
        process.generated.extend([item.index for item in event.items])
        process.stream.deliver(event)

    def _tokens(self, process: Process, event: Tokens, now_mono: int, step_s: float) -> int:
        """How many its step had of it: with its first token, the prompt's as well."""
        name, num_tokens = process.version.ref, event.num_tokens
        if process.trace is not None:
            process.trace.step(now_mono, step_s, num_tokens)
        if process.first_token_mono == 0:
            process.first_token_mono = now_mono
            self._metrics.ttft.labels(name).observe((now_mono - process.created_mono) / 1e9)
            num_tokens += process.prepared.num_tokens if process.prepared else 0
        else:
            self._metrics.itl.labels(name).observe((now_mono - process.last_token_mono) / 1e9)
        process.last_token_mono = now_mono
        process.num_tokens += event.num_tokens
        process.generated.extend(event.token_ids)
        self.num_tokens += event.num_tokens
        process.stream.deliver(event)
        return num_tokens

    def on_prepared(self, lane: Lane, results: msg.PrepareResults) -> None:
        self._tokenizers.answered(lane, results)

    def on_tokenizer(self, lane: Lane, channel: Channel | None, error: ErrorInfo | None) -> None:
        self._tokenizers.changed(lane, channel, error)
