"""A job's row and its record, and the few rules that follow from a row alone."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from sqlalchemy import Row, RowMapping

from llmos.abi.blob import BlobRef
from llmos.abi.jobs import ENDED, JobProgress, JobRecord, JobSpec, JobState, Schedule
from llmos.abi.principal import Principal, ServiceClass
from llmos.errors import ErrorInfo

T = TypeVar("T")

WAITING, READY = 0, 1
"""Values of `jobs.queue`: not before `due_ns`, or to be claimed now."""

LIVE = tuple(state.value for state in JobState if state not in ENDED)
"""States of jobs that have not ended."""

_principal = msgspec.json.Decoder(Principal)
_spec = msgspec.json.Decoder(JobSpec)
_progress = msgspec.json.Decoder(JobProgress)
_blob = msgspec.json.Decoder(BlobRef)
_outputs = msgspec.json.Decoder(dict[str, Any])
_error = msgspec.json.Decoder(ErrorInfo)
_encode = msgspec.json.Encoder().encode


def to_json(value: Any) -> str | None:
    """JSON text; None stays None."""
    return None if value is None else _encode(value).decode()


def plain(reason: str) -> str:
    """Text every database takes: PostgreSQL has no NUL, and nothing has half a surrogate."""
    return reason.replace("\x00", "�").encode(errors="replace").decode()


def rank_of(service_class: ServiceClass) -> int:
    """0 is the most urgent."""
    return int(ServiceClass.INTERACTIVE) - int(service_class)


def queue_of(state: str, holder_epoch: int | None, due_ns: int) -> int | None:
    """Whether a job in this state can be claimed: now, later, or not at all (None)."""
    if state != JobState.PENDING or holder_epoch is not None:
        return None
    return WAITING if due_ns else READY


def to_row(job: JobRecord, epoch: int) -> dict[str, Any]:
    """The columns of a job that is new to the store."""
    return {
        "job_id": job.job_id,
        "tenant_id": job.principal.tenant_id,
        "principal_id": job.principal.principal_id,
        "principal": to_json(job.principal),
        "program": job.spec.program,
        "parent_id": job.spec.parent_id,
        "spec": to_json(job.spec),
        "state": job.state.value,
        "rank": rank_of(job.spec.service_class),
        "queue": queue_of(job.state, None, job.due_ns),
        "created_ns": job.created_ns,
        "due_ns": job.due_ns,
        "started_ns": job.started_ns,
        "ended_ns": job.ended_ns,
        "epoch": epoch,
        "attempt": job.attempt,
        "num_starts": job.attempt,
        "num_deaths": job.num_deaths,
        "num_failures": job.num_failures,
        "num_unmet": job.num_unmet,
        "num_events": 0,
        "reason": plain(job.reason),
        "outputs": to_json(job.outputs),
        "error": to_json(job.error),
    }


def _read(decoder: msgspec.json.Decoder[T], text: str | None) -> T | None:
    return None if text is None else decoder.decode(text)


def from_row(row: Row[Any] | RowMapping) -> JobRecord:
    """The record of a row with all columns of `jobs`."""
    m = row._mapping if isinstance(row, Row) else row
    return JobRecord(
        job_id=m["job_id"],
        principal=_principal.decode(m["principal"]),
        spec=_spec.decode(m["spec"]),
        state=JobState(m["state"]),
        created_ns=m["created_ns"],
        epoch=m["epoch"],
        reason=m["reason"],
        due_ns=m["due_ns"],
        attempt=m["attempt"],
        num_deaths=m["num_deaths"],
        num_failures=m["num_failures"],
        num_unmet=m["num_unmet"],
        started_ns=m["started_ns"],
        ended_ns=m["ended_ns"],
        cancel_reason=m["cancel_reason"],
        progress=_read(_progress, m["progress"]),
        checkpoint=_read(_blob, m["checkpoint"]),
        outputs=_read(_outputs, m["outputs"]),
        error=_read(_error, m["error"]),
    )


def schedule_to_row(schedule: Schedule, epoch: int) -> dict[str, Any]:
    """The columns of a schedule."""
    return {
        "schedule_id": schedule.schedule_id,
        "tenant_id": schedule.principal.tenant_id,
        "principal": to_json(schedule.principal),
        "cron": schedule.cron,
        "timezone": schedule.timezone,
        "spec": to_json(schedule.spec),
        "created_ns": schedule.created_ns,
        "next_ns": schedule.next_ns,
        "paused": schedule.paused,
        "last_job_id": schedule.last_job_id,
        "epoch": epoch,
    }


def schedule_from_row(row: Row[Any]) -> Schedule:
    """The record of a row with all columns of `schedules`."""
    m = row._mapping
    return Schedule(
        schedule_id=m["schedule_id"],
        principal=_principal.decode(m["principal"]),
        cron=m["cron"],
        spec=_spec.decode(m["spec"]),
        created_ns=m["created_ns"],
        next_ns=m["next_ns"],
        timezone=m["timezone"],
        paused=m["paused"],
        last_job_id=m["last_job_id"],
    )
