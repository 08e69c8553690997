"""System calls on processes, requests and jobs alike: look, nice, wait, kill, suspend, resume."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.abi import syscall as sc
from llmos.abi.principal import Action, Resource
from llmos.errors import InvalidRequest, LLMOSError, NotFound, PermissionDenied
from llmos.kernel.controls import Control, find_control
from llmos.kernel.front import Call
from llmos.kernel.jobs.control import job_infos

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

MAX_WAIT_S = 3600.0


async def list_processes(kernel: Kernel, call: Call, body: sc.ListProcesses) -> sc.ProcessList:
    """Live ones first, then the ended ones still known, newest first; only what one may see.

    Of very many jobs, those at work and the newest others.
    """
    requests = [
        i for i in kernel.table.infos() if _may_see(kernel, call, i.process_id, i.tenant_id)
    ]
    jobs = await job_infos(kernel.jobs)
    found = requests + [i for i in jobs if _may_see(kernel, call, i.process_id, i.tenant_id)]
    live = [info for info in found if info.ended_ns is None]
    ended = [info for info in found if info.ended_ns is not None]
    return sc.ProcessList(live + sorted(ended, key=lambda info: -(info.ended_ns or 0)))


async def show_process(kernel: Kernel, call: Call, body: sc.ShowProcess) -> sc.ProcessStory:
    """Every decision about it. Raises NotFound, also for what one may not see."""
    return await (await find_visible(kernel, call, body.process_id)).story()


async def nice_process(kernel: Kernel, call: Call, body: sc.NiceProcess) -> sc.Done:
    """Raises NotFound, PermissionDenied (a class above one's own), InvalidRequest, Conflict."""
    process = await _control(kernel, call, body.process_id)
    if body.nice is not None and not -20 <= body.nice <= 19:
        raise InvalidRequest("nice is between -20 and 19", param="nice")
    highest = call.principal.max_class
    if body.service_class is not None and body.service_class > highest:
        raise PermissionDenied(
            f"this key may ask for class {highest.name.lower()} at most", param="class"
        )
    done = await process.renice(body.nice, body.service_class, call.principal.name)
    return sc.Done(f"{process.process_id}: {done}")


async def wait_process(kernel: Kernel, call: Call, body: sc.WaitProcess) -> sc.ProcessStory:
    """Until it has ended, or `timeout_s` have passed. Raises NotFound, InvalidRequest."""
    if not 0 <= body.timeout_s <= MAX_WAIT_S:
        raise InvalidRequest(f"timeout_s is between 0 and {MAX_WAIT_S:g}", param="timeout_s")
    return await (await find_visible(kernel, call, body.process_id)).ended(body.timeout_s)


async def kill_process(kernel: Kernel, call: Call, body: sc.KillProcess) -> sc.Done:
    """A request ends with `Aborted` on its stream. Raises NotFound, PermissionDenied, Conflict."""
    process = await _control(kernel, call, body.process_id)
    return sc.Done(f"{process.process_id} {await process.kill(call.principal.name)}")


async def suspend_process(kernel: Kernel, call: Call, body: sc.SuspendProcess) -> sc.Done:
    """Raises NotFound, PermissionDenied, Conflict, DiskFull, StorageError."""
    process = await _control(kernel, call, body.process_id)
    return sc.Done(f"{process.process_id} {await process.suspend(call.principal.name)}")


async def resume_process(kernel: Kernel, call: Call, body: sc.ResumeProcess) -> sc.Done:
    """Raises NotFound, PermissionDenied, Conflict (it is not suspended)."""
    process = await _control(kernel, call, body.process_id)
    return sc.Done(f"{process.process_id} {await process.resume(call.principal.name)}")


async def find_visible(kernel: Kernel, call: Call, process_id: str) -> Control:
    """Raises NotFound, in the same words for what one may not see."""
    unknown = NotFound(f"no process {process_id} is known", param="process_id")
    try:
        process = await find_control(kernel, process_id)
    except NotFound:
        raise unknown from None
    if not _may_see(kernel, call, process.process_id, process.tenant_id):
        raise unknown
    return process


async def _control(kernel: Kernel, call: Call, process_id: str) -> Control:
    """One that the caller may change."""
    try:
        process = await find_visible(kernel, call, process_id)
    except NotFound:
        raise NotFound(f"no live process {process_id}", param="process_id") from None
    owner = Resource("process", process.process_id, process.tenant_id)
    kernel.authorizer.authorize(call.principal, Action.CONTROL_PROCESSES, owner)
    return process


def _may_see(kernel: Kernel, call: Call, process_id: str, tenant_id: str) -> bool:
    try:
        resource = Resource("process", process_id, tenant_id)
        kernel.authorizer.authorize(call.principal, Action.READ_PROCESSES, resource)
    except LLMOSError:
        return False
    return True
