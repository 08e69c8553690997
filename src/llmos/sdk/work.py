"""The clients' groups of durable work: jobs, tasks, schedules. `wait` sees one to its end."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import Any

from llmos.abi.jobs import ENDED, JobEvent, JobRecord
from llmos.sdk import calls, jobs, tasks
from llmos.sdk.bar import job_bar
from llmos.sdk.config import ClientConfig
from llmos.sdk.groups import Async, AsyncGroup, Group, Sync
from llmos.sdk.shown import Job
from llmos.sdk.transport import AsyncStream, Stream
from llmos.sdk.wire import Call

LOOK_S = 0.5
"""How long the server holds an answer while nothing ends: as often a bar moves."""


def wait_steps(
    config: ClientConfig, job_id: str, look: Callable[[JobRecord], None]
) -> Generator[Call[Any], Any, Job]:
    """To its end; `look` sees how it stands now and then."""
    while True:
        reply: Job = yield jobs.show_job(config, job_id)
        look(reply.job)
        if reply.job.state in ENDED:
            return reply
        yield calls.wait_process(config, job_id, LOOK_S)


class Jobs(Group):
    """`client.jobs`."""

    submit = Sync(jobs.submit_job)
    list = Sync(jobs.list_jobs)
    show = Sync(jobs.show_job)
    events = Sync(jobs.job_events)
    cancel = Sync(jobs.cancel_job)
    retry = Sync(jobs.retry_job)
    remove = Sync(jobs.remove_job)
    programs = Sync(jobs.list_programs)

    def follow(
        self, job_id: str, *, after: int = 0, kinds: Iterable[str] = ()
    ) -> Stream[JobEvent | Job]:
        """Its log as it grows, then the job as it ended. Raises NotFound, OffsetLost."""
        transport = self._transport
        return transport.open(jobs.follow_job(transport.config, job_id, after=after, kinds=kinds))

    def wait(self, job_id: str, *, progress: bool = False) -> Job:
        """The job once it has ended, however it did. `progress`: show a bar meanwhile, on a
        terminal, in a notebook, or line by line in a pipe. Raises NotFound, ServerUnreachable."""
        transport = self._transport
        with job_bar(job_id, progress) as bar:
            return transport.run_steps(wait_steps(transport.config, job_id, bar.look))


class AsyncJobs(AsyncGroup):
    """`client.jobs`."""

    submit = Async(jobs.submit_job)
    list = Async(jobs.list_jobs)
    show = Async(jobs.show_job)
    events = Async(jobs.job_events)
    cancel = Async(jobs.cancel_job)
    retry = Async(jobs.retry_job)
    remove = Async(jobs.remove_job)
    programs = Async(jobs.list_programs)

    async def follow(
        self, job_id: str, *, after: int = 0, kinds: Iterable[str] = ()
    ) -> AsyncStream[JobEvent | Job]:
        """Its log as it grows, then the job as it ended. Raises NotFound, OffsetLost."""
        transport = self._transport
        call = jobs.follow_job(transport.config, job_id, after=after, kinds=kinds)
        return await transport.open(call)

    async def wait(self, job_id: str, *, progress: bool = False) -> Job:
        """As `Jobs.wait`."""
        transport = self._transport
        with job_bar(job_id, progress) as bar:
            return await transport.run_steps(wait_steps(transport.config, job_id, bar.look))


class Tasks(Group):
    """`client.tasks`."""

    create = Sync(tasks.create_task)
    list = Sync(tasks.list_tasks)
    show = Sync(tasks.show_task)
    cancel = Sync(tasks.cancel_task)
    result = Sync(tasks.task_result)

    def wait(self, task_id: str, *, progress: bool = False) -> Job:
        """As `client.jobs.wait`."""
        return Jobs(self._transport).wait(task_id, progress=progress)


class AsyncTasks(AsyncGroup):
    """`client.tasks`."""

    create = Async(tasks.create_task)
    list = Async(tasks.list_tasks)
    show = Async(tasks.show_task)
    cancel = Async(tasks.cancel_task)
    result = Async(tasks.task_result)

    async def wait(self, task_id: str, *, progress: bool = False) -> Job:
        """As `client.jobs.wait`."""
        return await AsyncJobs(self._transport).wait(task_id, progress=progress)


class Schedules(Group):
    """`client.schedules`."""

    list = Sync(jobs.list_schedules)
    add = Sync(jobs.add_schedule)
    remove = Sync(jobs.remove_schedule)


class AsyncSchedules(AsyncGroup):
    """`client.schedules`."""

    list = Async(jobs.list_schedules)
    add = Async(jobs.add_schedule)
    remove = Async(jobs.remove_schedule)
