"""Requests that an earlier server of this home had suspended: taken up again."""

from __future__ import annotations

import logging
import time
from array import array
from typing import TYPE_CHECKING

from llmos.abi.policy import Waiting
from llmos.abi.registry import ModelVersion
from llmos.abi.suspended import SuspendedRequest
from llmos.abi.syscall import Accepted
from llmos.errors import LLMOSError
from llmos.kernel.core import events as ev
from llmos.kernel.process import Phase, Process
from llmos.telemetry.tracer import begin

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

log = logging.getLogger(__name__)


async def restore(kernel: Kernel) -> None:
    """Each waits for its reader and its model. What nobody can go on with is forgotten."""
    versions = {version.model_id: version for version in kernel.registry.list()}
    for record in await kernel.snapshots.recover():
        version = versions.get(record.model_id)
        why = _why_not(kernel, record, version)
        if why or version is None:
            extra = {"request_id": record.request_id}
            log.warning("%s is not taken up again: %s", record.request_id, why, extra=extra)
            await kernel.snapshots.forget(record.request_id)
            if record.snapshot is not None:
                kernel.snapshots.discard(record.snapshot)
        else:
            _take_up(kernel, record, version)


def _why_not(kernel: Kernel, record: SuspendedRequest, version: ModelVersion | None) -> str:
    if version is None:
        return f"{record.model} is not there any more"
    if kernel.keys.is_revoked(record.principal.principal_id):
        return "its key was revoked"
    if not record.body.options.resume_s:
        return "nobody can read it"
    try:
        kernel.placement.check(version, record.body.sampling)
    except LLMOSError as error:
        return error.message
    return ""


def _take_up(kernel: Kernel, record: SuspendedRequest, version: ModelVersion) -> None:
    process = _process(kernel, record, version)
    kernel.table.add(process)
    kernel.resumable.add(process.stream, record.principal, record.body.options.resume_s or 0.0)
    kernel.resumable.left(process.stream)
    by = "by an operator" if record.is_held else "with an earlier server"
    process.note(f"was suspended {by}, {len(process.generated)} tokens are made")
    snapshot = record.snapshot
    kernel.loop.post(
        ev.Restored(
            _arrived(kernel, process),
            num_tokens=len(process.generated),
            is_held=record.is_held,
            snapshot_bytes=None if snapshot is None else snapshot.size_bytes,
        )
    )


def _process(kernel: Kernel, record: SuspendedRequest, version: ModelVersion) -> Process:
    stream = kernel.old_stream(record.request_id, record.events, record.num_events)
    trace = begin(kernel.tracer, record.trace_parent)
    age_ns = max(0, time.time_ns() - record.created_ns)
    process = Process(
        request_id=record.request_id,
        principal=record.principal,
        version=version,
        body=record.body,
        service_class=record.service_class,
        stream=stream,
        created_ns=record.created_ns,
        created_mono=time.monotonic_ns() - age_ns,
        nice=record.nice,
        trace_parent=trace.context.header if trace else record.trace_parent,
        trace=trace,
        prepared=record.prepared,
        phase=Phase.SUSPENDED,
        generated=array("i", record.generated),
        num_tokens=len(record.generated) // 4,
        snapshot=record.snapshot,
        num_preemptions=record.num_preemptions,
        num_suspensions=record.num_suspensions,
        num_recomputed=record.num_recomputed,
        is_held=record.is_held,
        is_filed=True,
        is_recorded=True,
        started_ns=record.started_ns,
        resubmitted=record.resubmitted,
    )
    process.started_mono = process.created_mono
    process.first_token_mono = process.created_mono if process.num_tokens else 0
    process.last_token_mono = time.monotonic_ns()
    stream.accepted = Accepted(
        request_id=record.request_id,
        model=version.ref,
        prompt_tokens=record.prepared.num_tokens,
        service_class=record.service_class,
        deterministic=record.body.options.deterministic,
        created_ns=record.created_ns,
        tool_format=record.prepared.tool_format,
    )
    return process


def _arrived(kernel: Kernel, process: Process) -> ev.Arrived:
    prepared, sampling = process.prepared, process.body.sampling
    assert prepared is not None
    waiting = Waiting(
        request_id=process.request_id,
        arrival=kernel.next_arrival(),
        ready_ns=time.monotonic_ns(),
        service_class=process.service_class,
        nice=process.nice,
        tenant_id=process.principal.tenant_id,
        principal_id=process.principal.principal_id,
        weight=process.principal.weight,
        prompt_tokens=prepared.num_tokens,
        expected_tokens=sampling.max_tokens,
    )
    facts, options = kernel.placement.facts(process.version), process.body.options
    deadline_ns = keep_alive_ns = None
    if options.deadline_ms is not None:
        deadline_ns = process.created_mono + options.deadline_ms * 1_000_000
    if options.keep_alive_s is not None:
        keep_alive_ns = int(options.keep_alive_s * 1e9)
    return ev.Arrived(
        waiting, facts, sampling.max_tokens, deadline_ns, keep_alive_ns, survives=True
    )
