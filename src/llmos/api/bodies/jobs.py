"""Bodies about jobs, schedules and the home."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from llmos.abi.jobs import INFER, JobSpec
from llmos.abi.syscall_jobs import AddSchedule, BackUp
from llmos.errors import InvalidRequest
from llmos.shapes.check import Shape
from llmos.shapes.fields import JsonObject, Metadata
from llmos.shapes.names import job_of
from llmos.shapes.options import CLASSES

MAX_NEEDS = 256
MAX_FILES = 64
MAX_TIMEOUT_S = 2_592_000.0
MAX_NS = 2**63 - 1

Name = Annotated[str, Field(min_length=1, max_length=128)]
ModelRef = Annotated[str, Field(min_length=1, max_length=256)]
ThingId = Annotated[str, Field(min_length=1, max_length=64)]
MomentNs = Annotated[int, Field(ge=0, le=MAX_NS, description="UTC, ns")]


class SpecBody(Shape):
    """What is asked for: `llmos.abi.jobs.JobSpec`, which says what each field means."""

    program: Name = Field(description="One of `GET /os/v1/programs`")
    inputs: JsonObject = Field(default_factory=dict, description="The program's own")
    name: str = Field(default="", max_length=128, description="For people")
    files: dict[Name, ThingId] = Field(
        default_factory=dict,
        max_length=MAX_FILES,
        description="A name the program knows: a file's id",
    )
    models: dict[Name, ModelRef] = Field(
        default_factory=dict,
        max_length=MAX_FILES,
        description="A name the program knows: a version",
    )
    service_class: Literal["batch", "default", "interactive"] = Field(
        default="batch", alias="class", description="How urgent it is, by class"
    )
    nice: int = Field(default=0, ge=-20, le=19, description="And within its class: -20 comes first")
    needs: list[ThingId] = Field(
        default_factory=list, max_length=MAX_NEEDS, description="Jobs that must succeed first"
    )
    parent_id: ThingId | None = Field(
        default=None, description="The job it is a part of, and ends with"
    )
    memory_bytes: int = Field(
        default=0, ge=0, le=MAX_NS, description="0: the program's own estimate"
    )
    max_attempts: int = Field(
        default=3, ge=1, le=100, description="Starts after failures that may pass"
    )
    timeout_s: float | None = Field(
        default=None, gt=0, le=MAX_TIMEOUT_S, description="Of one attempt"
    )
    start_at_ns: MomentNs | None = Field(default=None, description="Not before: UTC, ns")
    expires_ns: MomentNs | None = Field(default=None, description="Given up then: UTC, ns")
    metadata: Metadata = Field(
        default_factory=dict,
        description="Kept with it: 16 pairs, keys of 64, values of 512 characters",
    )

    def to_spec(self) -> JobSpec:
        """Raises InvalidRequest, NotFound (an id that can be nobody's)."""
        if self.program == INFER:
            raise InvalidRequest(
                "A single inference that outlives its caller is a response: POST /v1/responses "
                "with 'background'.",
                param="program",
            )
        return JobSpec(
            program=self.program,
            inputs=self.inputs,
            name=self.name,
            files=self.files,
            models=self.models,
            service_class=CLASSES[self.service_class],
            nice=self.nice,
            needs=[job_of(name) for name in self.needs],
            parent_id=None if self.parent_id is None else job_of(self.parent_id),
            memory_bytes=self.memory_bytes,
            max_attempts=self.max_attempts,
            timeout_s=self.timeout_s,
            start_at_ns=self.start_at_ns,
            expires_ns=self.expires_ns,
            metadata=self.metadata,
        )


class ScheduleBody(Shape):
    """A job for every time `cron` (five fields, in `timezone`) says so."""

    cron: str = Field(
        min_length=9, max_length=256, description="Five fields: minute, hour, day, month, weekday"
    )
    spec: SpecBody = Field(description="The job")
    timezone: str = Field(
        default="UTC", min_length=1, max_length=64, description="Whose clock: `Europe/Berlin`"
    )

    def to_call(self) -> AddSchedule:
        """Raises as `SpecBody.to_spec` does."""
        return AddSchedule(self.cron, self.spec.to_spec(), self.timezone)


class BackupBody(Shape):
    """A folder of the server's machine that does not exist yet, or is empty."""

    path: str = Field(min_length=1, max_length=4096, description="An absolute path")

    def to_call(self) -> BackUp:
        return BackUp(self.path)
