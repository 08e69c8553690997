"""Durable work: jobs, their logs, schedules and programs. One pure function per call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from llmos.abi.jobs import JobEvent, JobSpec, Schedule
from llmos.abi.program import ProgramEntry
from llmos.abi.syscall import Done
from llmos.abi.syscall_jobs import JobEvents, ProgramList, ScheduleList
from llmos.errors import ServerUnreachable
from llmos.sdk.calls import segment
from llmos.sdk.config import ClientConfig
from llmos.sdk.shown import Job, Jobs, Listed
from llmos.sdk.sse import SSEDecoder
from llmos.sdk.wire import (
    Call,
    Patience,
    Request,
    StreamCall,
    WholeBody,
    decode,
    encode,
    error_from_envelope,
    to_wire,
)


def submit_job(
    config: ClientConfig, spec: JobSpec, *, idempotency_key: str | None = None
) -> Call[Job]:
    """Answered once the job is on disk; with an `idempotency_key` seen before, that job.

    Raises InvalidRequest, NotFound (`needs`, `files`), IdempotencyMismatch, QueueFull, DiskFull.
    """
    headers = () if idempotency_key is None else (("Idempotency-Key", idempotency_key),)
    request = Request("POST", "/os/v1/jobs", encode(spec_body(spec)), headers=headers)
    return Call(request, lambda: WholeBody(_reply, config.max_answer_bytes))


def spec_body(spec: JobSpec) -> dict[str, Any]:
    """As the API spells it: `class` by its name, defaults left out."""
    body: dict[str, Any] = to_wire(spec)
    if "service_class" in body:
        body["class"] = body.pop("service_class")
    return body


def list_jobs(
    config: ClientConfig,
    *,
    state: str | Sequence[str] = (),
    program: str | None = None,
    parent: str | None = None,
    after: str | None = None,
    limit: int = 100,
) -> Call[Jobs]:
    """Newest first. `state` is one or several of abi.jobs.JobState, or `live`, `ended`; `after` is
    the last id of the page before. Raises InvalidRequest.
    """
    states = [state] if isinstance(state, str) else state
    fields = {"state": ",".join(states), "program": program, "parent": parent, "after": after}
    query = urlencode({name: value for name, value in fields.items() if value} | {"limit": limit})
    request = Request("GET", f"/os/v1/jobs?{query}")
    return Call(request, lambda: WholeBody(lambda b: decode(b, Jobs), config.max_answer_bytes))


def show_job(config: ClientConfig, job_id: str) -> Call[Job]:
    """A job and when it may end. Raises NotFound."""
    return _one(config, "GET", job_id)


def cancel_job(config: ClientConfig, job_id: str) -> Call[Job]:
    """End it and its children; a running program may put away what it has. Raises NotFound."""
    return _one(config, "POST", job_id, "/cancel")


def retry_job(config: ClientConfig, job_id: str) -> Call[Job]:
    """Begin a job again that ended without success. Raises NotFound, Conflict."""
    return _one(config, "POST", job_id, "/retry")


def remove_job(config: ClientConfig, job_id: str) -> Call[Job]:
    """Forget an ended job and all that is kept of it. Raises NotFound, Conflict."""
    return _one(config, "DELETE", job_id)


def job_events(
    config: ClientConfig,
    job_id: str,
    *,
    after: int = 0,
    limit: int = 1000,
    kinds: Iterable[str] = (),
) -> Call[Listed[JobEvent]]:
    """Its log after event `after`, oldest first. Raises NotFound, OffsetLost."""
    request = Request("GET", _events_path(job_id, after, kinds) + f"&limit={limit}")
    return Call(
        request,
        lambda: WholeBody(lambda b: Listed(decode(b, JobEvents).events), config.max_answer_bytes),
    )


def follow_job(
    config: ClientConfig, job_id: str, *, after: int = 0, kinds: Iterable[str] = ()
) -> StreamCall[JobEvent | Job]:
    """Its log as it grows; the last item is the job as it ended. Raises NotFound, OffsetLost."""
    path = _events_path(job_id, after, kinds) + "&follow=true"
    request = Request("GET", path, None, Patience.STREAM)
    return StreamCall(request, lambda: LogParser(config.max_event_bytes))


def list_programs(config: ClientConfig) -> Call[Listed[ProgramEntry]]:
    """What jobs can run."""
    request = Request("GET", "/os/v1/programs")
    return Call(request, lambda: WholeBody(_programs, config.max_answer_bytes))


def list_schedules(config: ClientConfig) -> Call[Listed[Schedule]]:
    """Schedules one may see."""
    return _schedules(config, Request("GET", "/os/v1/schedules"))


def add_schedule(
    config: ClientConfig, cron: str, spec: JobSpec, *, timezone: str = "UTC"
) -> Call[Listed[Schedule]]:
    """Submit `spec` whenever `cron` (five fields, in `timezone`) says so. Raises InvalidRequest."""
    body: Mapping[str, Any] = {"cron": cron, "spec": spec_body(spec), "timezone": timezone}
    return _schedules(config, Request("POST", "/os/v1/schedules", encode(body)))


def remove_schedule(config: ClientConfig, schedule_id: str) -> Call[Listed[Schedule]]:
    """End a schedule; jobs it has made are left alone. Raises NotFound."""
    return _schedules(config, Request("DELETE", f"/os/v1/schedules/{segment(schedule_id)}"))


def suspend_process(config: ClientConfig, process_id: str) -> Call[Done]:
    """Take a process off the machine until it is resumed. Raises NotFound, Conflict."""
    return _control(config, process_id, "suspend")


def resume_process(config: ClientConfig, process_id: str) -> Call[Done]:
    """Let a suspended process go on. Raises NotFound, Conflict."""
    return _control(config, process_id, "resume")


class LogParser:
    """Events of a followed log, then the job; a stream without its end is ServerUnreachable."""

    def __init__(self, max_event_bytes: int) -> None:
        self._decoder = SSEDecoder(max_event_bytes)
        self._is_done = False

    def feed(self, data: bytes) -> list[JobEvent | Job]:
        items: list[JobEvent | Job] = []
        for event in self._decoder.feed(data):
            if event.event == "error":
                raise error_from_envelope(decode(event.data, dict[str, Any]))
            if event.event == "done":
                self._is_done = True
                items.append(decode(event.data, Job))
            else:
                items.append(decode(event.data, JobEvent))
        return items

    def finish(self) -> None:
        if not self._is_done:
            raise ServerUnreachable("the connection broke off before the log was complete")


def _one(config: ClientConfig, method: str, job_id: str, tail: str = "") -> Call[Job]:
    request = Request(method, f"/os/v1/jobs/{segment(job_id)}{tail}")
    return Call(request, lambda: WholeBody(_reply, config.max_answer_bytes))


def _programs(body: bytes) -> Listed[ProgramEntry]:
    return Listed(decode(body, ProgramList).programs)


def _schedules_of(body: bytes) -> Listed[Schedule]:
    return Listed(decode(body, ScheduleList).schedules)


def _reply(body: bytes) -> Job:
    return decode(body, Job)


def _events_path(job_id: str, after: int, kinds: Iterable[str]) -> str:
    query: dict[str, Any] = {"after": after}
    if named := ",".join(kinds):
        query["kind"] = named
    return f"/os/v1/jobs/{segment(job_id)}/events?{urlencode(query)}"


def _schedules(config: ClientConfig, request: Request) -> Call[Listed[Schedule]]:
    return Call(request, lambda: WholeBody(_schedules_of, config.max_answer_bytes))


def _control(config: ClientConfig, process_id: str, verb: str) -> Call[Done]:
    request = Request("POST", f"/os/v1/processes/{segment(process_id)}/{verb}", None, Patience.LONG)
    return Call(
        request,
        lambda: WholeBody(
            lambda b: Done(str(decode(b, dict[str, Any]).get("done", ""))), config.max_answer_bytes
        ),
    )
