"""OpenAI's batches: what is asked for as a job of the program `batch`, and the job as a batch."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field

from llmos.abi.jobs import BATCH, ENDED, JobRecord, JobSpec, JobState
from llmos.abi.principal import ServiceClass
from llmos.errors import DeadlineExceeded, InvalidRequest, UnsupportedParameter
from llmos.shapes.answers import Answer
from llmos.shapes.calls import URLS
from llmos.shapes.check import Shape
from llmos.shapes.fields import Metadata
from llmos.shapes.files import MAX_EXPIRES_S, MIN_EXPIRES_S
from llmos.shapes.names import BATCH_PREFIX, named

LATER_URLS = (
    "/v1/images/edits",
    "/v1/images/generations",
    "/v1/videos",
)
"""OpenAI documents them; we do not serve them."""

MAX_WINDOW_H = 24 * 30
GRACE_S = 3600
"""For putting away what an expired batch has; after it the job itself expires."""

MAX_LISTED_ERRORS = 100
INPUT = "input"
OUTPUT, ERROR = "output", "error"
"""Names of the program's streams, which become files."""

_WINDOW = re.compile(r"^([1-9][0-9]{0,3})([hd])$")
_S = 1_000_000_000


class OutputExpiry(Shape):
    """When the files that a batch makes go."""

    anchor: Literal["created_at"] = Field(description="Since when")
    seconds: int = Field(ge=MIN_EXPIRES_S, le=MAX_EXPIRES_S, description="How long after")


class BatchBody(Shape):
    """The body of POST /v1/batches. `completion_window`: `24h`, or other hours or days."""

    input_file_id: str = Field(
        min_length=1, max_length=64, description="A file of purpose `batch`, a request a line"
    )
    endpoint: str = Field(min_length=1, max_length=64, description="The route that every line asks")
    completion_window: str = Field(
        min_length=2,
        max_length=5,
        pattern=_WINDOW.pattern,
        description="`24h`, or other hours (`h`) or days (`d`)",
    )
    metadata: Metadata = Field(
        default_factory=dict,
        description="Kept with it: 16 pairs, keys of 64, values of 512 characters",
    )
    output_expires_after: OutputExpiry | None = Field(
        default=None, description="When the files it makes go"
    )

    def to_spec(self, now_ns: int) -> JobSpec:
        """The job. Raises InvalidRequest, UnsupportedParameter."""
        if self.endpoint in LATER_URLS:
            raise UnsupportedParameter(
                f"'endpoint' {self.endpoint!r} is not served by this server.", param="endpoint"
            )
        if self.endpoint not in URLS:
            raise InvalidRequest(f"'endpoint' is not one of {', '.join(URLS)}.", param="endpoint")
        window_s, kept = self._window_s(), self.output_expires_after
        inputs: dict[str, Any] = {
            "endpoint": self.endpoint,
            "completion_window": self.completion_window,
            "expires_at": now_ns // _S + window_s,
        }
        return JobSpec(
            program=BATCH,
            inputs=inputs,
            files={INPUT: self.input_file_id},
            service_class=ServiceClass.BATCH,
            expires_ns=now_ns + (window_s + GRACE_S) * _S,
            exports_expire_s=None if kept is None else float(kept.seconds),
            metadata=self.metadata,
        )

    def _window_s(self) -> int:
        match = _WINDOW.fullmatch(self.completion_window)
        assert match is not None, "the field has this pattern"
        hours = int(match[1]) * (24 if match[2] == "d" else 1)
        if hours > MAX_WINDOW_H:
            raise InvalidRequest(
                f"'completion_window' is {MAX_WINDOW_H // 24} days at most.",
                param="completion_window",
            )
        return hours * 3600


class LineError(Answer):
    """Why a batch's input is none: what is wrong, and in which line."""

    code: str | None
    message: str | None
    param: str | None
    line: int | None


class BatchErrors(Answer):
    """OpenAI's list of them."""

    object: Literal["list"]
    data: list[LineError]


class BatchCounts(Answer):
    """Lines."""

    total: int
    completed: int
    failed: int


Status = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]


class BatchObject(Answer):
    """OpenAI's batch."""

    id: str
    object: Literal["batch"]
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int | None
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchCounts
    usage: dict[str, Any] | None
    metadata: dict[str, str] | None


class BatchPage(Answer):
    """A page of batches."""

    object: Literal["list"]
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


def batch_object(job: JobRecord) -> dict[str, Any]:
    """A job of the program `batch` as OpenAI shows it."""
    spec, status = job.spec, status_of(job)
    outputs, inputs = job.outputs or {}, spec.inputs
    files = outputs.get("files") or {}
    return {
        "id": named(BATCH_PREFIX, job.job_id),
        "object": "batch",
        "endpoint": inputs.get("endpoint", ""),
        "model": outputs.get("model"),
        "errors": _errors(job) if status == "failed" else None,
        "input_file_id": spec.files.get(INPUT, ""),
        "completion_window": inputs.get("completion_window", "24h"),
        "status": status,
        "output_file_id": files.get(OUTPUT),
        "error_file_id": files.get(ERROR),
        "created_at": _seconds(job.created_ns),
        "in_progress_at": _seconds(job.started_ns),
        "expires_at": inputs.get("expires_at"),
        "finalizing_at": None,
        **{f"{end}_at": _at(job, status, end) for end in ("completed", "failed", "expired")},
        "cancelling_at": None,
        "cancelled_at": _at(job, status, "cancelled"),
        "request_counts": _counts(job),
        "usage": None,
        "metadata": spec.metadata or None,
    }


_ENDS: dict[JobState, Status] = {
    JobState.SUCCEEDED: "completed",
    JobState.CANCELLED: "cancelled",
}


def status_of(job: JobRecord) -> Status:
    """Where a batch is, in OpenAI's words."""
    state = job.state
    if state in ENDED:
        is_late = job.error is not None and job.error.code == DeadlineExceeded.code
        if is_late or (job.outputs or {}).get("status") == "expired":
            return "expired"
        return _ENDS.get(state, "failed")
    if job.cancel_reason is not None:
        return "cancelling"
    if job.progress is None or not job.progress.counts.get("total"):
        return "validating"
    return "finalizing" if job.progress.what == "finalizing" else "in_progress"


def _at(job: JobRecord, status: Status, end: str) -> int | None:
    return _seconds(job.ended_ns) if status == end else None


def _seconds(ns: int | None) -> int | None:
    return None if ns is None else ns // _S


def _counts(job: JobRecord) -> dict[str, int]:
    counts = (job.outputs or {}).get("request_counts")
    if not isinstance(counts, dict):
        counts = job.progress.counts if job.progress is not None else {}
    return {name: int(counts.get(name, 0)) for name in ("total", "completed", "failed")}


def _errors(job: JobRecord) -> dict[str, Any]:
    """What the program found wrong with its input, or what it failed with."""
    error = job.error
    found = error.details.get("errors") if error is not None else None
    listed = found.get("data") if isinstance(found, dict) else None
    if not isinstance(listed, list) or not listed:
        message = error.message if error is not None else job.reason
        code = error.code if error is not None else "failed"
        listed = [{"code": code, "message": message, "param": error.param if error else None}]
    fields = ("code", "message", "param", "line")
    data = [{name: one.get(name) for name in fields} for one in listed[:MAX_LISTED_ERRORS]]
    return {"object": "list", "data": data}
