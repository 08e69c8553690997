"""System calls on files, backups and the disk."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from llmos.abi import syscall_jobs as sj
from llmos.abi.files import FileRecord
from llmos.abi.home import BackupReport, DiskReport
from llmos.abi.ids import new_id
from llmos.abi.principal import Action, Resource, Role
from llmos.errors import InvalidRequest, LLMOSError, NotFound
from llmos.kernel.front import Call

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

MAX_PAGE = 10_000
MAX_FILENAME_CHARS = 512
MAX_PURPOSE_CHARS = 64


async def add_file(kernel: Kernel, call: Call, body: sj.AddFile) -> sj.FileReply:
    """On disk when answered. Raises InvalidRequest, NotFound, IdempotencyMismatch, DiskFull."""
    if not 0 < len(body.filename) <= MAX_FILENAME_CHARS:
        raise InvalidRequest(
            f"a file's name has 1 to {MAX_FILENAME_CHARS} characters", param="file"
        )
    if not 0 < len(body.purpose) <= MAX_PURPOSE_CHARS:
        raise InvalidRequest(f"a purpose has 1 to {MAX_PURPOSE_CHARS} characters", param="purpose")
    now_ns = time.time_ns()
    expires_ns = None
    if body.expires_after_s is not None:
        if not 0 < body.expires_after_s < 1e9:
            raise InvalidRequest("a file expires after more than 0 s", param="expires_after")
        expires_ns = now_ns + int(body.expires_after_s * 1e9)
    record = FileRecord(
        file_id=new_id("file"),
        tenant_id=call.principal.tenant_id,
        principal_id=call.principal.principal_id,
        filename=body.filename,
        purpose=body.purpose,
        digest="",
        size_bytes=0,
        created_ns=now_ns,
        expires_ns=expires_ns,
    )
    return sj.FileReply(await kernel.files.add(body.upload_id, record, body.idempotency))


async def list_files(kernel: Kernel, call: Call, body: sj.ListFiles) -> sj.FileList:
    """A tenant's own; an administrator's whose it asks for, or all."""
    query, limit = body.query, body.query.limit
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidRequest(f"limit is between 1 and {MAX_PAGE}", param="limit")
    tenant = query.tenant_id if call.principal.role is Role.ADMIN else call.principal.tenant_id
    query = msgspec.structs.replace(query, tenant_id=tenant, limit=limit + 1)
    found = await kernel.files.page(query)
    return sj.FileList(found[:limit], len(found) > limit)


async def show_file(kernel: Kernel, call: Call, body: sj.ShowFile) -> sj.FileReply:
    """Raises NotFound, also for what one may not see."""
    return sj.FileReply(await _find(kernel, call, body.file_id, Action.READ_FILES))


async def remove_file(kernel: Kernel, call: Call, body: sj.RemoveFile) -> sj.FileReply:
    """Raises NotFound."""
    await _find(kernel, call, body.file_id, Action.WRITE_FILES)
    return sj.FileReply(await kernel.files.remove(body.file_id))


async def open_file(kernel: Kernel, call: Call, body: sj.OpenFile) -> sj.OpenedFile:
    """Raises NotFound."""
    file = await _find(kernel, call, body.file_id, Action.READ_FILES)
    return sj.OpenedFile(file, await kernel.files.blob(body.file_id))


async def back_up(kernel: Kernel, call: Call, body: sj.BackUp) -> BackupReport:
    """Raises InvalidRequest, Conflict, DiskFull."""
    return await kernel.housekeeping.back_up(body.path)


async def collect_blobs(kernel: Kernel, call: Call, body: sj.CollectBlobs) -> DiskReport:
    """What nothing refers to goes."""
    return await kernel.housekeeping.collect()


async def show_disk(kernel: Kernel, call: Call, body: sj.ShowDisk) -> DiskReport:
    """The disk ledger."""
    return await kernel.housekeeping.disk()


async def _find(kernel: Kernel, call: Call, file_id: str, action: Action) -> FileRecord:
    file = await kernel.files.get(file_id)
    try:
        resource = Resource("file", file_id, file.tenant_id)
        kernel.authorizer.authorize(call.principal, action, resource)
    except LLMOSError as error:
        raise NotFound(f"no file {file_id}", param="file_id") from error
    return file
