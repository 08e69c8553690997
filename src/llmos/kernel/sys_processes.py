"""System calls on processes: list, show, nice, wait, kill."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from llmos.abi import syscall as sc
from llmos.abi.principal import Action, Resource
from llmos.errors import InvalidRequest, LLMOSError, NotFound, PermissionDenied
from llmos.kernel.core import events as ev
from llmos.kernel.front import Call
from llmos.kernel.process import Process

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel

MAX_WAIT_S = 3600.0


async def list_processes(kernel: Kernel, call: Call, body: sc.ListProcesses) -> sc.ProcessList:
    """Live ones first, then the ended ones still known, newest first; only what one may see."""
    infos = kernel.table.infos()
    return sc.ProcessList([info for info in infos if _may_see(kernel, call, info)])


async def show_process(kernel: Kernel, call: Call, body: sc.ShowProcess) -> sc.ProcessStory:
    """Every decision about it. Raises NotFound, also for what one may not see."""
    story = kernel.table.find_story(body.process_id)
    if story is None or not _may_see(kernel, call, story.info):
        raise NotFound(f"no process {body.process_id} is known", param="process_id")
    return story


async def nice_process(kernel: Kernel, call: Call, body: sc.NiceProcess) -> sc.Done:
    """Raises NotFound, PermissionDenied (a class above one's own), InvalidRequest."""
    process = _control(kernel, call, body.process_id)
    if body.nice is not None and not -20 <= body.nice <= 19:
        raise InvalidRequest("nice is between -20 and 19", param="nice")
    highest = call.principal.max_class
    if body.service_class is not None and body.service_class > highest:
        raise PermissionDenied(
            f"this key may ask for class {highest.name.lower()} at most", param="class"
        )
    process.renice(body.nice, body.service_class, call.principal.name)
    kernel.loop.post(ev.Reniced(body.process_id, body.nice, body.service_class))
    return sc.Done(f"{body.process_id}: {process.reason}")


async def wait_process(kernel: Kernel, call: Call, body: sc.WaitProcess) -> sc.ProcessStory:
    """Until it has ended, or `timeout_s` have passed. Raises NotFound, InvalidRequest."""
    if not 0 <= body.timeout_s <= MAX_WAIT_S:
        raise InvalidRequest(f"timeout_s is between 0 and {MAX_WAIT_S:g}", param="timeout_s")
    story = await show_process(kernel, call, sc.ShowProcess(body.process_id))
    if story.info.ended_ns is None:
        watcher = kernel.table.when_ended(body.process_id)
        try:
            await asyncio.wait([watcher], timeout=body.timeout_s)
        finally:
            kernel.table.forget_watcher(body.process_id, watcher)
        if watcher.done():
            return watcher.result()
    return kernel.table.find_story(body.process_id) or story


async def kill_process(kernel: Kernel, call: Call, body: sc.KillProcess) -> sc.Done:
    """Ends with `Aborted` on its stream. Raises NotFound, PermissionDenied."""
    process = _control(kernel, call, body.process_id)
    kernel.cancel(process.request_id, f"killed by {call.principal.name}")
    return sc.Done(f"{process.request_id} is being ended")


def _control(kernel: Kernel, call: Call, process_id: str) -> Process:
    process = kernel.table.live.get(process_id)
    if process is None or not _may_see(kernel, call, process.info()):
        raise NotFound(_why_not_live(kernel, call, process_id), param="process_id")
    owner = Resource("process", process_id, process.principal.tenant_id)
    kernel.authorizer.authorize(call.principal, Action.CONTROL_PROCESSES, owner)
    return process


def _why_not_live(kernel: Kernel, call: Call, process_id: str) -> str:
    story = kernel.table.find_story(process_id)
    if story is not None and _may_see(kernel, call, story.info):
        return f"{process_id} has ended already: {story.info.state}"
    return f"no live process {process_id}"


def _may_see(kernel: Kernel, call: Call, info: sc.ProcessInfo) -> bool:
    resource = Resource("process", info.process_id, info.tenant_id)
    try:
        kernel.authorizer.authorize(call.principal, Action.READ_PROCESSES, resource)
    except LLMOSError:
        return False
    return True
