"""System calls on jobs: submit, look, follow, end; programs and schedules."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import msgspec

from llmos.abi import syscall_jobs as sj
from llmos.abi.ids import new_id
from llmos.abi.jobs import ENDED, INFER, JobRecord, JobSpec, JobState, Schedule
from llmos.abi.principal import Action, Resource, Role
from llmos.abi.syscall import Emit
from llmos.errors import InvalidRequest, LLMOSError, NotFound, PluginError, QueueFull, ShuttingDown
from llmos.kernel.front import Call
from llmos.kernel.jobs.checks import check_call, check_scheduled, check_spec
from llmos.kernel.jobs.made import pin_models, plan_job
from llmos.kernel.resume import half_of

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

_JOB_ID = re.compile(r"job_[0-9a-f]{32}")
MAX_PAGE = 1000
MAX_EVENTS = 10_000
FIRST_STEP = 8
"""Jobs read at first, four times as many each time after: one may have megabytes of inputs."""

MAX_PAGE_BYTES = 4 << 20
"""Inputs and outputs of one page; a page over it is shorter than was asked for."""

EMITTED = 500
"""Events in one message to a follower."""


async def submit_job(kernel: Kernel, call: Call, body: sj.SubmitJob) -> sj.JobReply:
    """On disk when answered. Raises InvalidRequest, NotFound, PermissionDenied, Conflict,
    IdempotencyMismatch, ShuttingDown, StorageError (the store does not take new work)."""
    if kernel.draining:
        raise ShuttingDown("the server is stopping")
    check_call(body.spec)
    spec = await plan_job(kernel, call, await _check(kernel, call, body.spec))
    record = JobRecord(
        job_id=new_id("job"),
        principal=call.principal,
        spec=spec,
        state=JobState.PENDING,
        created_ns=time.time_ns(),
        epoch=kernel.epoch,
        due_ns=spec.start_at_ns or 0,
    )
    jobs = kernel.jobs
    jobs.disk.check()
    (added,) = await jobs.disk.once("add", lambda: jobs.store.add([record], body.idempotency))
    if added.job_id == record.job_id:
        jobs.submitted(added)
        if added.spec.program != INFER:
            jobs.note(added.job_id, added.state, added.reason or f"for {call.principal.name}")
    return _reply(kernel, added)


async def record_job(kernel: Kernel, call: Call, body: sj.RecordJob) -> sj.JobReply:
    """A stored answer. Raises as `submit_job`."""
    await _check(kernel, call, body.spec)
    if not _JOB_ID.fullmatch(body.job_id):
        raise InvalidRequest("not a job's id", param="job_id")
    now_ns = time.time_ns()
    record = JobRecord(
        job_id=body.job_id,
        principal=call.principal,
        spec=body.spec,
        state=JobState.SUCCEEDED,
        created_ns=now_ns,
        epoch=kernel.epoch,
        reason="answered at once",
        started_ns=now_ns,
        ended_ns=now_ns,
        outputs=body.outputs,
    )
    jobs = kernel.jobs
    jobs.disk.check()
    (added,) = await jobs.disk.once("add", lambda: jobs.store.add([record], body.idempotency))
    return _reply(kernel, added)


async def _check(kernel: Kernel, call: Call, spec: JobSpec) -> JobSpec:
    """Whatever it names must be the caller's own. Its models are named by their versions then."""
    check_spec(spec, call.principal, kernel.state.ledger.budget_bytes)
    if spec.program != INFER:
        try:
            kernel.program_of(spec.program)
        except PluginError as error:
            raise InvalidRequest(error.message, param="program") from error
    for name, file_id in spec.files.items():
        file = await kernel.files.get(file_id)
        resource = Resource("file", file_id, file.tenant_id)
        if not _may(kernel, call, Action.READ_FILES, resource):
            raise NotFound(f"no file {file_id}", param=f"files.{name}")
    for job_id in (*spec.needs, *([spec.parent_id] if spec.parent_id else [])):
        await find_job(kernel, call, job_id)
    return pin_models(kernel, call, spec)


async def list_jobs(kernel: Kernel, call: Call, body: sj.ListJobs) -> sj.JobList:
    """Newest first; a tenant sees its own, an administrator whose it asks for, or all."""
    limit = _limit(body.query.limit)
    query = msgspec.structs.replace(body.query, tenant_id=_tenant(call, body.query.tenant_id))
    found: list[JobRecord] = []
    size, step = 0, FIRST_STEP
    while True:
        wanted = min(step, limit + 1 - len(found))
        query = msgspec.structs.replace(query, limit=wanted)
        rows = await kernel.jobs.store.page(query)
        found += rows
        size += sum(map(_size, rows))
        if len(rows) < wanted or len(found) > limit:
            return sj.JobList(found[:limit], len(found) > limit)
        if size > MAX_PAGE_BYTES:
            return sj.JobList(found, has_more=True)
        query = msgspec.structs.replace(query, after=found[-1].job_id)
        step *= 4


def _size(job: JobRecord) -> int:
    """Of what is large in it, in bytes of JSON."""
    return len(msgspec.json.encode([job.spec.inputs, job.outputs]))


async def show_job(kernel: Kernel, call: Call, body: sj.ShowJob) -> sj.JobReply:
    """Raises NotFound, also for what one may not see."""
    return _reply(kernel, await find_job(kernel, call, body.job_id))


async def read_job_events(kernel: Kernel, call: Call, body: sj.ReadJobEvents) -> sj.JobEvents:
    """Raises NotFound, OffsetLost."""
    await find_job(kernel, call, body.job_id)
    limit, kinds = _limit(body.limit, MAX_EVENTS), body.kinds
    return sj.JobEvents(await kernel.jobs.store.events(body.job_id, body.after, limit, kinds))


async def follow_job(kernel: Kernel, call: Call, body: sj.FollowJob) -> sj.JobReply:
    """Old events, then live ones, each once: all are read from the store, by their numbers.

    Raises NotFound, OffsetLost, QueueFull (too many follow).
    """
    jobs, after = kernel.jobs, body.after
    await find_job(kernel, call, body.job_id)
    if jobs.hub.num_followers >= jobs.config.max_followers:
        raise QueueFull(f"{jobs.hub.num_followers} clients follow jobs", retry_after_s=5.0)
    tenant_id = call.principal.tenant_id
    if (num_own := jobs.hub.num_of_tenant[tenant_id]) >= half_of(jobs.config.max_followers):
        raise QueueFull(f"{num_own} clients of the tenant follow jobs", retry_after_s=5.0)
    with jobs.hub.follow(body.job_id, tenant_id) as follower:
        while True:
            follower.clear()
            record = await jobs.store.get(body.job_id)
            is_over = record.state in ENDED and body.job_id not in jobs.entries
            while events := await jobs.store.events(body.job_id, after, EMITTED, body.kinds):
                call.front.send(Emit(call.number, [*events]))
                await call.front.channel.drain()
                after = events[-1].number
            if is_over:
                return _reply(kernel, record)
            if jobs.hub.is_closed:
                raise ShuttingDown("the server is stopping; the log goes on with the next one")
            await follower.wait(jobs.config.poll_interval_s)


async def cancel_job(kernel: Kernel, call: Call, body: sj.CancelJob) -> sj.JobReply:
    """Idempotent. Raises NotFound, PermissionDenied."""
    await own_job(kernel, call, body.job_id)
    return _reply(kernel, await kernel.jobs.cancel(body.job_id, body.reason))


async def retry_job(kernel: Kernel, call: Call, body: sj.RetryJob) -> sj.JobReply:
    """Raises NotFound, PermissionDenied, Conflict (it succeeded, or has not ended)."""
    await own_job(kernel, call, body.job_id)
    reason = f"to be tried again, says {call.principal.name}"
    jobs = kernel.jobs
    record = await jobs.disk.once("retry", lambda: jobs.store.retry(body.job_id, reason))
    jobs.note(record.job_id, record.state, reason)
    jobs.submitted(record)
    return _reply(kernel, record)


async def remove_job(kernel: Kernel, call: Call, body: sj.RemoveJob) -> sj.JobReply:
    """Raises NotFound, PermissionDenied, Conflict (it has not ended)."""
    await own_job(kernel, call, body.job_id)
    jobs = kernel.jobs
    record = await jobs.disk.once("remove", lambda: jobs.store.remove(body.job_id))
    return sj.JobReply(record)


async def list_programs(kernel: Kernel, call: Call, body: sj.ListPrograms) -> sj.ProgramList:
    """Every program that is installed and can be loaded."""
    return sj.ProgramList(kernel.programs())


async def add_schedule(kernel: Kernel, call: Call, body: sj.AddSchedule) -> sj.ScheduleList:
    """Raises InvalidRequest (cron, timezone), QuotaExceeded and as `submit_job`."""
    if kernel.draining:
        raise ShuttingDown("the server is stopping")
    check_call(body.spec)
    check_scheduled(body.spec)
    spec = await plan_job(kernel, call, await _check(kernel, call, body.spec))
    schedule = Schedule(
        schedule_id=new_id("sch"),
        principal=call.principal,
        cron=body.cron,
        spec=spec,
        created_ns=time.time_ns(),
        next_ns=0,
        timezone=body.timezone,
    )
    jobs = kernel.jobs
    jobs.disk.check()
    added = await jobs.disk.once("schedule", lambda: jobs.store.add_schedule(schedule))
    jobs.wake()
    return sj.ScheduleList([added])


async def list_schedules(kernel: Kernel, call: Call, body: sj.ListSchedules) -> sj.ScheduleList:
    """One's tenant's; an administrator's are all."""
    return sj.ScheduleList(await kernel.jobs.store.list_schedules(_tenant(call, None)))


async def remove_schedule(kernel: Kernel, call: Call, body: sj.RemoveSchedule) -> sj.ScheduleList:
    """As it was. What it has submitted already is left alone. Raises NotFound."""
    seen = await kernel.jobs.store.list_schedules(_tenant(call, None))
    if all(schedule.schedule_id != body.schedule_id for schedule in seen):
        raise NotFound(f"no schedule {body.schedule_id}", param="schedule_id")
    return sj.ScheduleList([await kernel.jobs.store.remove_schedule(body.schedule_id)])


async def find_job(kernel: Kernel, call: Call, job_id: str) -> JobRecord:
    """Raises NotFound, also for what one may not see."""
    record = await kernel.jobs.store.get(job_id)
    resource = Resource("job", job_id, record.principal.tenant_id)
    if not _may(kernel, call, Action.READ_PROCESSES, resource):
        raise NotFound(f"no job {job_id}", param="job_id")
    return record


async def own_job(kernel: Kernel, call: Call, job_id: str) -> JobRecord:
    """One that the caller may change. Raises NotFound, PermissionDenied."""
    record = await find_job(kernel, call, job_id)
    resource = Resource("job", job_id, record.principal.tenant_id)
    kernel.authorizer.authorize(call.principal, Action.CONTROL_PROCESSES, resource)
    return record


def _reply(kernel: Kernel, record: JobRecord) -> sj.JobReply:
    entry = kernel.jobs.entries.get(record.job_id)
    return sj.JobReply(record, entry.eta_s() if entry else None)


def _tenant(call: Call, wanted: str | None) -> str | None:
    return wanted if call.principal.role is Role.ADMIN else call.principal.tenant_id


def _limit(limit: int, highest: int = MAX_PAGE) -> int:
    if not 1 <= limit <= highest:
        raise InvalidRequest(f"limit is between 1 and {highest}", param="limit")
    return limit


def _may(kernel: Kernel, call: Call, action: Action, resource: Resource) -> bool:
    try:
        kernel.authorizer.authorize(call.principal, action, resource)
    except LLMOSError:
        return False
    return True
