"""What an operator can do to a process, whether it is a request or a job."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from llmos.abi import syscall as sc
from llmos.abi.principal import ServiceClass
from llmos.errors import InvalidRequest, NotFound
from llmos.kernel.core import events as ev
from llmos.kernel.jobs.control import JobControl
from llmos.kernel.jobs.view import is_job_id, job_id_of

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel


class Control(Protocol):
    """One process. The verbs return what was done, in words; they raise Conflict or NotFound when
    it has ended, and InvalidRequest for what its kind does not know."""

    process_id: str
    tenant_id: str

    async def story(self) -> sc.ProcessStory: ...

    async def ended(self, timeout_s: float) -> sc.ProcessStory: ...

    async def renice(
        self, nice: int | None, service_class: ServiceClass | None, by: str
    ) -> str: ...

    async def kill(self, by: str) -> str: ...

    async def suspend(self, by: str) -> str: ...

    async def resume(self, by: str) -> str: ...


async def find_control(kernel: Kernel, process_id: str) -> Control:
    """Raises NotFound. Who may do what is for the caller to check."""
    if is_job_id(process_id):
        return JobControl(kernel.jobs, await kernel.jobs.store.get(job_id_of(process_id)))
    story = kernel.table.find_story(process_id)
    if story is None:
        raise NotFound(f"no process {process_id} is known", param="process_id")
    return RequestControl(kernel, story)


class RequestControl:
    """A request, live or remembered."""

    def __init__(self, kernel: Kernel, story: sc.ProcessStory) -> None:
        self._kernel = kernel
        self._story = story
        self.process_id = story.info.process_id
        self.tenant_id = story.info.tenant_id

    async def story(self) -> sc.ProcessStory:
        return self._kernel.table.find_story(self.process_id) or self._story

    async def ended(self, timeout_s: float) -> sc.ProcessStory:
        if self._story.info.ended_ns is None:
            watcher = self._kernel.table.when_ended(self.process_id)
            try:
                await asyncio.wait([watcher], timeout=timeout_s)
            finally:
                self._kernel.table.forget_watcher(self.process_id, watcher)
            if watcher.done():
                return watcher.result()
        return await self.story()

    async def renice(self, nice: int | None, service_class: ServiceClass | None, by: str) -> str:
        process = self._kernel.table.live.get(self.process_id)
        if process is None:
            raise self._not_live()
        process.renice(nice, service_class, by)
        self._kernel.loop.post(ev.Reniced(self.process_id, nice, service_class))
        return process.reason

    async def kill(self, by: str) -> str:
        if self.process_id not in self._kernel.table.live:
            raise self._not_live()
        self._kernel.cancel(self.process_id, f"killed by {by}")
        return "is being ended"

    async def suspend(self, by: str) -> str:
        raise InvalidRequest("only jobs are suspended by hand", param="process_id")

    async def resume(self, by: str) -> str:
        raise InvalidRequest("only jobs are resumed by hand", param="process_id")

    def _not_live(self) -> NotFound:
        state = self._story.info.state
        return NotFound(f"{self.process_id} has ended already: {state}", param="process_id")
