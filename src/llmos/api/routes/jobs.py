"""/os/v1/jobs, schedules and programs: durable work."""

from __future__ import annotations

import asyncio
import re

from llmos.abi.jobs import ENDED, JobEvent, JobFilter, JobState
from llmos.abi.syscall_jobs import (
    CancelJob,
    FollowJob,
    JobEvents,
    JobList,
    JobReply,
    ListJobs,
    ListPrograms,
    ListSchedules,
    ProgramList,
    ReadJobEvents,
    RemoveJob,
    RemoveSchedule,
    RetryJob,
    ScheduleList,
    ShowJob,
    SubmitJob,
)
from llmos.api.bodies.jobs import ScheduleBody, SpecBody
from llmos.api.body import read_json
from llmos.api.call import Call, ClientGone, encode_json, watching
from llmos.api.frames import KEEP_ALIVE
from llmos.api.idempotency import IDEMPOTENCY_KEY, idempotency_of
from llmos.api.parameters import Count, Flag, Text, Words
from llmos.api.query import Query
from llmos.api.routes.spec import RouteSpec
from llmos.api.routes.unary import ask, ref_of
from llmos.api.streams import FollowStream
from llmos.api.wire import to_wire
from llmos.errors import (
    Conflict,
    InvalidRequest,
    ModelNotFound,
    NotFound,
    OffsetLost,
    ProtocolViolation,
    QuotaExceeded,
)
from llmos.shapes.answers import ErrorAnswer
from llmos.shapes.fields import parse_int
from llmos.shapes.inputs import read_nested, read_plain
from llmos.shapes.names import job_of

STATES = {state.value: frozenset({state}) for state in JobState} | {
    "live": frozenset(JobState) - ENDED,
    "ended": ENDED,
}
STATE = Words("state", "In one of these states, or groups of them", tuple(STATES))
PROGRAM = Text("program", "Of this program; several with commas")
TENANT = Text("tenant", "Of this tenant")
PARENT = Text("parent", "Children of this job")
AFTER = Text("after", "The last id of the page before")
LIMIT = Count("limit", "At most so many", 100, 1000)
LIST_QUERY = (STATE, PROGRAM, TENANT, PARENT, AFTER, LIMIT)
AFTER_EVENT = Count("after", "What follows the event of this number", 0, 2**62, 0)
MOST_EVENTS = Count("limit", "At most so many, unless followed", 1000, 1000)
KIND = Text("kind", "Only events of this kind; several with commas")
FOLLOW = Flag("follow", "Server-sent events, until the job has ended")
EVENT_QUERY = (AFTER_EVENT, MOST_EVENTS, KIND, FOLLOW)
LAST_EVENT = Text("Last-Event-ID", "Follow after the event of this number")
_KIND = re.compile(r"[A-Za-z0-9_.\-]{1,64}")


async def submit_job(call: Call) -> JobReply:
    """Answered once the job is on disk."""
    body = await read_json(call)
    spec = read_plain(SpecBody, body).to_spec()
    return await ask(call, SubmitJob(spec, idempotency_of(call, body)), JobReply)


async def list_jobs(call: Call) -> JobList:
    """Newest first: those one may see."""
    query = Query(call, LIST_QUERY)
    named = query[STATE]
    after, parent, program = query[AFTER], query[PARENT], query[PROGRAM]
    wanted = JobFilter(
        tenant_id=query[TENANT],
        programs=[] if program is None else program.split(","),
        states=sorted(frozenset().union(*(STATES[name] for name in named))),
        parent_id=None if parent is None else job_of(parent),
        after=None if after is None else job_of(after),
        limit=query[LIMIT],
    )
    return await ask(call, ListJobs(wanted), JobList)


async def show_job(call: Call) -> JobReply:
    """One job, with when it may end."""
    return await ask(call, ShowJob(_job_of(call)), JobReply)


async def cancel_job(call: Call) -> JobReply:
    """It and its children end; what runs may put away what it has done."""
    return await ask(call, CancelJob(_job_of(call)), JobReply)


async def retry_job(call: Call) -> JobReply:
    """A job that did not succeed begins again; its results and its checkpoint are kept."""
    return await ask(call, RetryJob(_job_of(call)), JobReply)


async def remove_job(call: Call) -> JobReply:
    """Forget an ended job; the answer is its last record."""
    return await ask(call, RemoveJob(_job_of(call)), JobReply)


async def job_events(call: Call) -> JobEvents | None:
    """A page of its log, or with `follow` the rest of it as it comes."""
    query = Query(call, EVENT_QUERY)
    job_id, kinds = _job_of(call), sorted(_kinds(query))
    after = query[AFTER_EVENT]
    if not query[FOLLOW]:
        limit = query[MOST_EVENTS]
        return await ask(call, ReadJobEvents(job_id, after, limit, kinds), JobEvents)
    stream = call.edge.gate.follow(
        call.principal, FollowJob(job_id, _last_id(call, after), kinds), call.trace_parent
    )
    try:
        with watching(call, lambda: stream.cancel("client left", ClientGone())):
            await _relay(call, stream)
    finally:
        stream.cancel("answer ended", ClientGone())
    return None


async def _relay(call: Call, stream: FollowStream) -> None:
    """A log that is refused before its first event is a plain error status."""
    batch = await next_or_silence(call, stream)
    await call.start_sse(error_prefix=b"event: error\ndata: ")
    while batch is not None:
        await call.write(b"".join(map(_frame, batch)) or KEEP_ALIVE)
        batch = await next_or_silence(call, stream)
    if not isinstance(stream.result, JobReply):
        raise ProtocolViolation("a log ended without its job")
    done = encode_json(to_wire(stream.result))
    await call.write(b"event: done\ndata: %s\n\n" % done, more=False)


def _frame(event: JobEvent) -> bytes:
    kind = event.kind.encode() if _KIND.fullmatch(event.kind) else b"event"
    data = encode_json(to_wire(event))
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (event.number, kind, data)


async def next_or_silence(call: Call, stream: FollowStream) -> list[JobEvent] | None:
    """The next batch, an empty one after a silence, None at the end."""
    timer = asyncio.get_running_loop().call_later(call.edge.config.keepalive_comment_s, stream.poke)
    try:
        return list(await anext(stream))
    except StopAsyncIteration:
        return None
    finally:
        timer.cancel()


def _last_id(call: Call, after: int) -> int:
    """A client that comes back says where it was (WHATWG HTML, section 9.2)."""
    given = call.headers.get(b"last-event-id")
    if given is None:
        return after
    number = parse_int(given.decode("latin-1"))
    if number is None:
        raise InvalidRequest("'Last-Event-ID' is not a number.", param="Last-Event-ID")
    return number


def _kinds(query: Query) -> frozenset[str]:
    given = query[KIND]
    return frozenset() if given is None else frozenset(given.split(","))


async def list_programs(call: Call) -> ProgramList:
    """What jobs can run."""
    return await ask(call, ListPrograms(), ProgramList)


async def list_schedules(call: Call) -> ScheduleList:
    """Schedules one may see."""
    return await ask(call, ListSchedules(), ScheduleList)


async def add_schedule(call: Call) -> ScheduleList:
    """Answered once it is on disk."""
    body = read_nested(ScheduleBody, await read_json(call))
    return await ask(call, body.to_call(), ScheduleList)


async def remove_schedule(call: Call) -> ScheduleList:
    """Jobs it has made already are left alone."""
    return await ask(call, RemoveSchedule(ref_of(call, "schedule_id")), ScheduleList)


def _job_of(call: Call) -> str:
    return job_of(ref_of(call, "job_id"))


async def show_of(call: Call, job_id: str) -> JobReply:
    """A job's record. Raises NotFound."""
    return await ask(call, ShowJob(job_id), JobReply)


_ONE = "/os/v1/jobs/{job_id}"
_SCHEDULES = "/os/v1/schedules"

ROUTES = [
    RouteSpec(
        "POST",
        "/os/v1/jobs",
        submit_job,
        "Submit a job.",
        body=SpecBody,
        headers=(IDEMPOTENCY_KEY,),
        raises=(NotFound, ModelNotFound, QuotaExceeded),
    ),
    RouteSpec(
        "GET", "/os/v1/jobs", list_jobs, "Jobs, newest first.", query=LIST_QUERY, raises=(NotFound,)
    ),
    RouteSpec(
        "GET",
        _ONE + "/events",
        job_events,
        "A job's log; with `follow`, as server-sent events to its end.",
        query=EVENT_QUERY,
        headers=(LAST_EVENT,),
        events={"KIND": JobEvent, "event": JobEvent, "done": JobReply, "error": ErrorAnswer},
        raises=(OffsetLost,),
    ),
    RouteSpec(
        "POST", _ONE + "/cancel", cancel_job, "End a job and its children.", raises=(Conflict,)
    ),
    RouteSpec(
        "POST",
        _ONE + "/retry",
        retry_job,
        "Begin a job again that did not succeed.",
        raises=(Conflict,),
    ),
    RouteSpec("GET", _ONE, show_job, "One job."),
    RouteSpec("DELETE", _ONE, remove_job, "Forget an ended job.", raises=(Conflict,)),
    RouteSpec("GET", "/os/v1/programs", list_programs, "What jobs can run."),
    RouteSpec("GET", _SCHEDULES, list_schedules, "Schedules."),
    RouteSpec(
        "POST",
        _SCHEDULES,
        add_schedule,
        "Submit a job by the clock.",
        body=ScheduleBody,
        raises=(NotFound, QuotaExceeded),
    ),
    RouteSpec("DELETE", _SCHEDULES + "/{schedule_id}", remove_schedule, "End a schedule."),
]
