"""Files and jobs in memory, behind the system calls about them."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from llmos.abi.blob import BlobRef
from llmos.abi.files import FileRecord
from llmos.abi.jobs import ENDED, Idempotency, JobEvent, JobRecord, JobSpec, JobState
from llmos.abi.principal import Principal
from llmos.abi.syscall import Syscall
from llmos.abi.syscall_jobs import (
    AddFile,
    CancelJob,
    FileList,
    FileReply,
    FollowJob,
    JobList,
    JobReply,
    ListFiles,
    ListJobs,
    OpenedFile,
    OpenFile,
    RecordJob,
    RemoveFile,
    RemoveJob,
    ShowFile,
    ShowJob,
    SubmitJob,
)
from llmos.errors import Conflict, IdempotencyMismatch, NotFound
from tests.unit.api.fake_gate import CREATED_NS, FakeGate, Script, Sink


def hex_id(number: int) -> str:
    return f"{number:032x}"


@dataclass
class FakeStore:
    """`scripts` are for `edge`; `sink` is the edge's, once it is open."""

    sink: Sink | None = None
    files: dict[str, FileRecord] = field(default_factory=dict)
    jobs: dict[str, JobRecord] = field(default_factory=dict)
    keys: dict[tuple[str, str], tuple[str, Any]] = field(default_factory=dict)
    logs: dict[str, list[JobEvent]] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    numbers: Any = field(default_factory=lambda: itertools.count(1))

    @property
    def scripts(self) -> dict[type, Script]:
        handlers: dict[type, Callable[[Principal, Any], Any]] = {
            AddFile: self._add_file,
            ListFiles: self._list_files,
            ShowFile: lambda p, b: FileReply(self._file(b.file_id)),
            RemoveFile: lambda p, b: FileReply(self.files.pop(self._file(b.file_id).file_id)),
            OpenFile: self._open_file,
            SubmitJob: self._submit,
            RecordJob: self._record,
            ShowJob: lambda p, b: JobReply(self._job(p, b.job_id)),
            ListJobs: self._list_jobs,
            CancelJob: self._cancel,
            RemoveJob: self._remove,
        }
        scripts = {kind: self._script(handler) for kind, handler in handlers.items()}
        return {**scripts, FollowJob: self._follow}

    def _script(self, handler: Callable[[Principal, Any], Any]) -> Script:
        async def script(gate: FakeGate, call: Syscall) -> None:
            assert call.principal is not None
            gate.reply(call, handler(call.principal, call.body))

        return script

    def _seen(self, principal: Principal, key: Idempotency | None) -> Any:
        if key is None or (principal.principal_id, key.key) not in self.keys:
            return None
        digest, made = self.keys[principal.principal_id, key.key]
        if digest != key.request_digest:
            raise IdempotencyMismatch("used for something else")
        return made

    def _keep(self, principal: Principal, key: Idempotency | None, made: Any) -> Any:
        if key is not None:
            self.keys[principal.principal_id, key.key] = (key.request_digest, made)
        return made

    def _add_file(self, principal: Principal, body: AddFile) -> FileReply:
        assert self.sink is not None
        if (seen := self._seen(principal, body.idempotency)) is not None:
            return FileReply(seen)
        ((_, data),) = [item for item in self.sink.files.items() if item[0][0] == body.upload_id]
        digest = next(d for d, kept in self.sink.kept.items() if kept == data)
        expires_ns = None
        if body.expires_after_s is not None:
            expires_ns = CREATED_NS + int(body.expires_after_s * 1e9)
        record = FileRecord(
            f"file_{hex_id(next(self.numbers))}", principal.tenant_id, principal.principal_id,
            body.filename, body.purpose, digest, len(data), CREATED_NS, expires_ns,
        )  # fmt: skip
        self.files[record.file_id] = record
        return FileReply(self._keep(principal, body.idempotency, record))

    def _file(self, file_id: str) -> FileRecord:
        if file_id not in self.files:
            raise NotFound(f"no file {file_id}", param="file_id")
        return self.files[file_id]

    def _list_files(self, principal: Principal, body: ListFiles) -> FileList:
        query = body.query
        found = [
            record
            for record in sorted(self.files.values(), key=lambda f: f.file_id)
            if record.tenant_id == query.tenant_id
            and (query.purpose is None or record.purpose == query.purpose)
        ]
        if query.newest_first:
            found.reverse()
        if query.after is not None:
            at = [record.file_id for record in found].index(query.after)
            found = found[at + 1 :]
        return FileList(found[: query.limit], len(found) > query.limit)

    def _open_file(self, principal: Principal, body: OpenFile) -> OpenedFile:
        record = self._file(body.file_id)
        return OpenedFile(record, BlobRef(record.digest, record.size_bytes))

    # jobs

    def add_job(
        self, principal: Principal, spec: JobSpec, job_id: str | None = None, **fields: Any
    ) -> JobRecord:
        fields.setdefault("state", JobState.PENDING)
        job = JobRecord(
            job_id or f"job_{hex_id(next(self.numbers))}", principal, spec,
            created_ns=CREATED_NS, epoch=1, **fields,
        )  # fmt: skip
        self.jobs[job.job_id] = job
        return job

    def change(self, job_id: str, **fields: Any) -> JobRecord:
        self.jobs[job_id] = msgspec.structs.replace(self.jobs[job_id], **fields)
        self.changed.set()
        return self.jobs[job_id]

    def log(self, job_id: str, kind: str, **value: Any) -> None:
        """One more line of its log."""
        lines = self.logs.setdefault(job_id, [])
        lines.append(JobEvent(job_id, len(lines) + 1, CREATED_NS, kind, value))
        self.changed.set()

    async def _follow(self, gate: FakeGate, call: Syscall) -> None:
        body = call.body
        assert isinstance(body, FollowJob)
        assert call.principal is not None
        self._job(call.principal, body.job_id)
        told = body.after
        while True:
            self.changed.clear()
            lines = [e for e in self.logs.get(body.job_id, []) if e.number > told]
            told += len(lines)
            gate.emit(call, *[e for e in lines if not body.kinds or e.kind in body.kinds])
            if (job := self.jobs[body.job_id]).state in ENDED:
                gate.reply(call, JobReply(job))
                return
            await self.changed.wait()

    def _submit(self, principal: Principal, body: SubmitJob) -> JobReply:
        seen = self._seen(principal, body.idempotency)
        if seen is not None:
            return JobReply(self.jobs[seen])
        for file_id in body.spec.files.values():
            self._file(file_id)
        job = self.add_job(principal, body.spec)
        self._keep(principal, body.idempotency, job.job_id)
        return JobReply(job)

    def _record(self, principal: Principal, body: RecordJob) -> JobReply:
        job = self.add_job(
            principal, body.spec, body.job_id, state=JobState.SUCCEEDED, outputs=body.outputs,
            ended_ns=CREATED_NS + 10**9,
        )  # fmt: skip
        return JobReply(job)

    def _job(self, principal: Principal, job_id: str) -> JobRecord:
        if job_id not in self.jobs:
            raise NotFound(f"no job {job_id}", param="job_id")
        return self.jobs[job_id]

    def _list_jobs(self, principal: Principal, body: ListJobs) -> JobList:
        query = body.query
        found = [
            job
            for job in sorted(self.jobs.values(), key=lambda j: j.job_id, reverse=True)
            if _fits(job, query.tenant_id, query.programs, query.states)
            and (query.after is None or job.job_id < query.after)
        ]
        return JobList(found[: query.limit], len(found) > query.limit)

    def _cancel(self, principal: Principal, body: CancelJob) -> JobReply:
        job = self._job(principal, body.job_id)
        if job.state is JobState.RUNNING:
            return JobReply(self.change(body.job_id, cancel_reason=body.reason))
        if job.state in {JobState.PENDING, JobState.BLOCKED}:
            job = self.change(
                body.job_id, state=JobState.CANCELLED, cancel_reason=body.reason,
                ended_ns=CREATED_NS + 5 * 10**9,
            )  # fmt: skip
            return JobReply(job)
        raise Conflict("it has ended")

    def _remove(self, principal: Principal, body: RemoveJob) -> JobReply:
        return JobReply(self.jobs.pop(self._job(principal, body.job_id).job_id))


def _fits(
    job: JobRecord, tenant_id: str | None, programs: Sequence[str], states: Sequence[JobState]
) -> bool:
    return (
        (tenant_id is None or job.principal.tenant_id == tenant_id)
        and (not programs or job.spec.program in programs)
        and (not states or job.state in states)
    )
