"""What an operator can do to a process, whether it is a request or a job."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from llmos.abi import syscall as sc
from llmos.abi.principal import ServiceClass
from llmos.errors import Conflict, NotFound
from llmos.kernel.core import events as ev
from llmos.kernel.jobs.control import JobControl
from llmos.kernel.jobs.view import is_job_id, job_id_of
from llmos.kernel.process import Phase, Process

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel


class Control(Protocol):
    """One process. The verbs return what was done, in words; they raise Conflict or NotFound when
    it has ended, or is not in a state for that."""

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
        process = self._live()
        process.renice(nice, service_class, by)
        self._kernel.loop.post(ev.Reniced(self.process_id, nice, service_class))
        return process.reason

    async def kill(self, by: str) -> str:
        if self.process_id not in self._kernel.table.live:
            raise self._not_live()
        self._kernel.cancel(self.process_id, f"killed by {by}")
        return "is being ended"

    async def suspend(self, by: str) -> str:
        """Answers when its state is safe. Raises DiskFull, StorageError: then it goes on."""
        process = self._live()
        if process.is_held:
            raise Conflict(f"{self.process_id} is suspended already", param="process_id")
        if process.phase is Phase.PREPARING:
            raise Conflict(f"{self.process_id} is still being read", param="process_id")
        process.is_held = True
        held = self._kernel.switch.when_held(self.process_id)
        self._kernel.loop.post(ev.RequestHeld(self.process_id, f"suspended by {by}"))
        await held
        return f"is suspended, {len(process.generated)} tokens are made"

    async def resume(self, by: str) -> str:
        process = self._live()
        if not process.is_held:
            raise Conflict(f"{self.process_id} is not suspended by hand", param="process_id")
        process.is_held = False
        self._kernel.loop.post(ev.RequestReleased(self.process_id, f"resumed by {by}"))
        return "goes on when it has a row"

    def _live(self) -> Process:
        process = self._kernel.table.live.get(self.process_id)
        if process is None:
            raise self._not_live()
        return process

    def _not_live(self) -> NotFound:
        state = self._story.info.state
        return NotFound(f"{self.process_id} has ended already: {state}", param="process_id")
