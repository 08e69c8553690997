"""System calls about jobs, files, backups and the disk. `abi.syscall` composes the unions."""

from __future__ import annotations

from typing import Any

import msgspec

from llmos.abi.blob import BlobRef
from llmos.abi.files import FileFilter, FileRecord
from llmos.abi.home import BackupReport, DiskReport
from llmos.abi.jobs import Idempotency, JobEvent, JobFilter, JobRecord, JobSpec, Schedule
from llmos.abi.program import ProgramEntry

# bodies of calls
#
# What makes, shows, changes or removes one job, file or schedule is answered by a JobReply, a
# FileReply, or a ScheduleList of that one; BackUp by its report, CollectBlobs by a DiskReport.


class SubmitJob(msgspec.Struct, frozen=True, tag="jobs.submit"):
    """Answered once the job is on disk."""

    spec: JobSpec
    idempotency: Idempotency | None = None


class RecordJob(msgspec.Struct, frozen=True, tag="jobs.record"):
    """Keep a call that was answered already (a stored response) as a job that has ended."""

    spec: JobSpec
    outputs: dict[str, Any]
    job_id: str
    idempotency: Idempotency | None = None


class ListJobs(msgspec.Struct, frozen=True, tag="jobs.list"):
    query: JobFilter = JobFilter()


class ShowJob(msgspec.Struct, frozen=True, tag="jobs.show"):
    job_id: str


class ReadJobEvents(msgspec.Struct, frozen=True, tag="jobs.events"):
    job_id: str
    after: int = 0
    limit: int = 1000
    kinds: list[str] = []


class FollowJob(msgspec.Struct, frozen=True, tag="jobs.follow"):
    """Emits every event after number `after`, old ones first, until it has ended, then replies
    with the job."""

    job_id: str
    after: int = 0
    kinds: list[str] = []


class CancelJob(msgspec.Struct, frozen=True, tag="jobs.cancel"):
    """A running program may put away what it has done; it and its children are then ended."""

    job_id: str
    reason: str = "cancelled"


class RetryJob(msgspec.Struct, frozen=True, tag="jobs.retry"):
    job_id: str


class RemoveJob(msgspec.Struct, frozen=True, tag="jobs.remove"):
    job_id: str


class ListPrograms(msgspec.Struct, frozen=True, tag="programs.list"):
    pass


class AddSchedule(msgspec.Struct, frozen=True, tag="schedules.add"):
    cron: str
    spec: JobSpec
    timezone: str = "UTC"


class ListSchedules(msgspec.Struct, frozen=True, tag="schedules.list"):
    pass


class RemoveSchedule(msgspec.Struct, frozen=True, tag="schedules.remove"):
    schedule_id: str


class AddFile(msgspec.Struct, frozen=True, tag="files.add"):
    """A finished upload of one file becomes a File. Answered once it is on disk."""

    upload_id: str
    filename: str
    purpose: str
    expires_after_s: float | None = None
    idempotency: Idempotency | None = None


class ListFiles(msgspec.Struct, frozen=True, tag="files.list"):
    query: FileFilter = FileFilter()


class ShowFile(msgspec.Struct, frozen=True, tag="files.show"):
    file_id: str


class RemoveFile(msgspec.Struct, frozen=True, tag="files.remove"):
    file_id: str


class OpenFile(msgspec.Struct, frozen=True, tag="files.open"):
    """Where its bytes are, for the front end to send them."""

    file_id: str


class BackUp(msgspec.Struct, frozen=True, tag="system.backup"):
    """A consistent copy of the home into a new folder `path` of this machine."""

    path: str


class CollectBlobs(msgspec.Struct, frozen=True, tag="system.collect"):
    """Delete what nothing refers to any more."""


class ShowDisk(msgspec.Struct, frozen=True, tag="system.disk"):
    pass


JobBody = (
    SubmitJob
    | RecordJob
    | ListJobs
    | ShowJob
    | ReadJobEvents
    | FollowJob
    | CancelJob
    | RetryJob
    | RemoveJob
    | ListPrograms
    | AddSchedule
    | ListSchedules
    | RemoveSchedule
    | AddFile
    | ListFiles
    | ShowFile
    | RemoveFile
    | OpenFile
    | BackUp
    | CollectBlobs
    | ShowDisk
)

# results


class JobReply(msgspec.Struct, frozen=True, tag="r.job"):
    """`eta_s`: predicted seconds until it ends, where that is known."""

    job: JobRecord
    eta_s: float | None = None


class JobList(msgspec.Struct, frozen=True, tag="r.jobs"):
    jobs: list[JobRecord]
    has_more: bool = False


class JobEvents(msgspec.Struct, frozen=True, tag="r.jobevents"):
    events: list[JobEvent]


class ProgramList(msgspec.Struct, frozen=True, tag="r.programs"):
    programs: list[ProgramEntry]


class ScheduleList(msgspec.Struct, frozen=True, tag="r.schedules"):
    schedules: list[Schedule]


class FileReply(msgspec.Struct, frozen=True, tag="r.file"):
    file: FileRecord


class FileList(msgspec.Struct, frozen=True, tag="r.files"):
    files: list[FileRecord]
    has_more: bool = False


class OpenedFile(msgspec.Struct, frozen=True, tag="r.openfile"):
    file: FileRecord
    blob: BlobRef


JobResult = (
    JobReply
    | JobList
    | JobEvents
    | ProgramList
    | ScheduleList
    | FileReply
    | FileList
    | OpenedFile
    | BackupReport
    | DiskReport
)
