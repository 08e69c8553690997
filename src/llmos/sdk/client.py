"""`Client` and `AsyncClient`: one attribute per call; what a call is stands in the pure modules.

The signature and docstring of a method are those of its function in `calls`, less the first
argument: the two clients differ only in how they run it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    overload,
)

from llmos.abi.jobs import JobEvent
from llmos.abi.registry import ModelVersion
from llmos.abi.syscall_jobs import JobReply
from llmos.sdk import calls, calls_home, files, inference, jobs, tasks
from llmos.sdk.config import ClientConfig
from llmos.sdk.locate import Endpoint, locate
from llmos.sdk.pull import Progress, pull, quantize_call
from llmos.sdk.results import Chunk, Completion
from llmos.sdk.transport import AsyncStream, AsyncTransport, Stream, Transport
from llmos.sdk.wire import Call, StreamCall

if TYPE_CHECKING:
    import httpx

P = ParamSpec("P")
T = TypeVar("T")


def _silent(_: object) -> None:
    """The progress callback of whoever does not look."""


def _dress(method: Callable[..., Any], build: Callable[..., Any]) -> None:
    """Give a method its function's name, docstring and signature, less the first argument."""
    functools.update_wrapper(method, build)
    signature = inspect.signature(build)
    parameters = list(signature.parameters.values())[1:]
    method.__dict__["__signature__"] = signature.replace(parameters=parameters)


class _HasTransport(Protocol):
    _transport: Transport


class _HasAsyncTransport(Protocol):
    _transport: AsyncTransport


class _Sync(Generic[P, T]):
    """A blocking method made of a pure function."""

    def __init__(self, build: Callable[Concatenate[ClientConfig, P], Call[T]]) -> None:
        self._build = build

    def __get__(self, group: _HasTransport, owner: object = None) -> Callable[P, T]:
        def method(*args: P.args, **kwargs: P.kwargs) -> T:
            transport = group._transport
            return transport.run(self._build(transport.config, *args, **kwargs))

        _dress(method, self._build)
        return method


class _Async(Generic[P, T]):
    """An awaitable method made of a pure function."""

    def __init__(self, build: Callable[Concatenate[ClientConfig, P], Call[T]]) -> None:
        self._build = build

    def __get__(
        self, group: _HasAsyncTransport, owner: object = None
    ) -> Callable[P, Coroutine[Any, Any, T]]:
        async def method(*args: P.args, **kwargs: P.kwargs) -> T:
            transport = group._transport
            return await transport.run(self._build(transport.config, *args, **kwargs))

        _dress(method, self._build)
        return method


class _Group:
    def __init__(self, transport: Transport) -> None:
        self._transport = transport


class _AsyncGroup:
    def __init__(self, transport: AsyncTransport) -> None:
        self._transport = transport


class Models(_Group):
    """`client.models`."""

    list = _Sync(calls.list_models)
    show = _Sync(calls.show_model)
    remove = _Sync(calls.remove_model)
    load = _Sync(calls.load_model)
    pin = _Sync(calls.pin_model)
    unpin = _Sync(calls.unpin_model)
    unload = _Sync(calls.unload_model)

    def pull(
        self, source: str, name: str | None = None, *, progress: Progress = _silent
    ) -> ModelVersion:
        """Bring a model in: `hf:org/name[@revision]` or `file:PATH` of this machine.

        Raises ModelRejected, NotFound, Conflict, StorageError.
        """
        transport = self._transport
        is_local = transport.endpoint.socket is not None
        return transport.run_steps(pull(transport.config, is_local, source, name, progress))

    def quantize(
        self, ref: str, to: str, name: str | None = None, *, progress: Progress = _silent
    ) -> ModelVersion:
        """Make a version with weights `to` `int8` or `int4`; `name` None: that of `ref`, and `to`.

        Raises ModelNotFound, Conflict (it is quantized), ModelRejected, DiskFull, StorageError.
        """
        transport = self._transport
        return transport.run(quantize_call(transport.config, ref, to, name, progress))


class AsyncModels(_AsyncGroup):
    """`client.models`."""

    list = _Async(calls.list_models)
    show = _Async(calls.show_model)
    remove = _Async(calls.remove_model)
    load = _Async(calls.load_model)
    pin = _Async(calls.pin_model)
    unpin = _Async(calls.unpin_model)
    unload = _Async(calls.unload_model)

    async def pull(
        self, source: str, name: str | None = None, *, progress: Progress = _silent
    ) -> ModelVersion:
        """As `Models.pull`; `progress` is called in the event loop."""
        transport = self._transport
        is_local = transport.endpoint.socket is not None
        return await transport.run_steps(pull(transport.config, is_local, source, name, progress))

    async def quantize(
        self, ref: str, to: str, name: str | None = None, *, progress: Progress = _silent
    ) -> ModelVersion:
        """As `Models.quantize`; `progress` is called in the event loop."""
        transport = self._transport
        return await transport.run(quantize_call(transport.config, ref, to, name, progress))


class Processes(_Group):
    """`client.processes`."""

    list = _Sync(calls.list_processes)
    show = _Sync(calls.show_process)
    nice = _Sync(calls.nice_process)
    wait = _Sync(calls.wait_process)
    kill = _Sync(calls.kill_process)
    suspend = _Sync(jobs.suspend_process)
    resume = _Sync(jobs.resume_process)


class AsyncProcesses(_AsyncGroup):
    """`client.processes`."""

    list = _Async(calls.list_processes)
    show = _Async(calls.show_process)
    nice = _Async(calls.nice_process)
    wait = _Async(calls.wait_process)
    kill = _Async(calls.kill_process)
    suspend = _Async(jobs.suspend_process)
    resume = _Async(jobs.resume_process)


class Jobs(_Group):
    """`client.jobs`."""

    submit = _Sync(jobs.submit_job)
    list = _Sync(jobs.list_jobs)
    show = _Sync(jobs.show_job)
    events = _Sync(jobs.job_events)
    cancel = _Sync(jobs.cancel_job)
    retry = _Sync(jobs.retry_job)
    remove = _Sync(jobs.remove_job)
    programs = _Sync(jobs.list_programs)

    def follow(
        self, job_id: str, *, after: int = 0, kinds: Iterable[str] = ()
    ) -> Stream[JobEvent | JobReply]:
        """Its log as it grows, then the job as it ended. Raises NotFound, OffsetLost."""
        transport = self._transport
        return transport.open(jobs.follow_job(transport.config, job_id, after=after, kinds=kinds))


class AsyncJobs(_AsyncGroup):
    """`client.jobs`."""

    submit = _Async(jobs.submit_job)
    list = _Async(jobs.list_jobs)
    show = _Async(jobs.show_job)
    events = _Async(jobs.job_events)
    cancel = _Async(jobs.cancel_job)
    retry = _Async(jobs.retry_job)
    remove = _Async(jobs.remove_job)
    programs = _Async(jobs.list_programs)

    async def follow(
        self, job_id: str, *, after: int = 0, kinds: Iterable[str] = ()
    ) -> AsyncStream[JobEvent | JobReply]:
        """Its log as it grows, then the job as it ended. Raises NotFound, OffsetLost."""
        transport = self._transport
        call = jobs.follow_job(transport.config, job_id, after=after, kinds=kinds)
        return await transport.open(call)


class Tasks(_Group):
    """`client.tasks`."""

    create = _Sync(tasks.create_task)
    list = _Sync(tasks.list_tasks)
    show = _Sync(tasks.show_task)
    cancel = _Sync(tasks.cancel_task)
    result = _Sync(tasks.task_result)


class AsyncTasks(_AsyncGroup):
    """`client.tasks`."""

    create = _Async(tasks.create_task)
    list = _Async(tasks.list_tasks)
    show = _Async(tasks.show_task)
    cancel = _Async(tasks.cancel_task)
    result = _Async(tasks.task_result)


class Schedules(_Group):
    """`client.schedules`."""

    list = _Sync(jobs.list_schedules)
    add = _Sync(jobs.add_schedule)
    remove = _Sync(jobs.remove_schedule)


class AsyncSchedules(_AsyncGroup):
    """`client.schedules`."""

    list = _Async(jobs.list_schedules)
    add = _Async(jobs.add_schedule)
    remove = _Async(jobs.remove_schedule)


class Files(_Group):
    """`client.files`."""

    put = _Sync(files.put_file)
    list = _Sync(files.list_files)
    show = _Sync(files.show_file)
    get = _Sync(files.get_file)
    remove = _Sync(files.remove_file)


class AsyncFiles(_AsyncGroup):
    """`client.files`."""

    put = _Async(files.put_file)
    list = _Async(files.list_files)
    show = _Async(files.show_file)
    get = _Async(files.get_file)
    remove = _Async(files.remove_file)


class Keys(_Group):
    """`client.keys`."""

    list = _Sync(calls.list_keys)
    add = _Sync(calls.add_key)
    revoke = _Sync(calls.revoke_key)


class AsyncKeys(_AsyncGroup):
    """`client.keys`."""

    list = _Async(calls.list_keys)
    add = _Async(calls.add_key)
    revoke = _Async(calls.revoke_key)


class Home(_Group):
    """`client.home`."""

    back_up = _Sync(calls_home.back_up)
    disk = _Sync(calls_home.disk)
    collect = _Sync(calls_home.collect)


class AsyncHome(_AsyncGroup):
    """`client.home`."""

    back_up = _Async(calls_home.back_up)
    disk = _Async(calls_home.disk)
    collect = _Async(calls_home.collect)


class Client:
    """A blocking client. Finds the server as `locate` says; nothing is contacted until a call.

    Every method raises the error the server named, as the same class, or ServerUnreachable.
    """

    status = _Sync(calls.status)
    replicas = _Sync(calls.list_replicas)
    workers = _Sync(calls.list_workers)
    memory = _Sync(calls.show_memory)
    health = _Sync(calls.health)
    ready = _Sync(calls.ready)
    metrics = _Sync(calls.metrics)

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        home: str | Path | None = None,
        config: ClientConfig | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.endpoint: Endpoint = locate(url, api_key, home)
        self._transport = Transport(self.endpoint, config or ClientConfig(), transport)
        self.models = Models(self._transport)
        self.processes = Processes(self._transport)
        self.jobs = Jobs(self._transport)
        self.tasks = Tasks(self._transport)
        self.schedules = Schedules(self._transport)
        self.files = Files(self._transport)
        self.keys = Keys(self._transport)
        self.home = Home(self._transport)

    @overload
    def chat(
        self,
        model: str,
        messages: inference.Messages,
        *,
        stream: Literal[False] = False,
        **sampling: Any,
    ) -> Completion: ...

    @overload
    def chat(
        self, model: str, messages: inference.Messages, *, stream: Literal[True], **sampling: Any
    ) -> Stream[Chunk]: ...

    def chat(
        self, model: str, messages: inference.Messages, *, stream: bool = False, **sampling: Any
    ) -> Completion | Stream[Chunk]:
        """Answer a conversation. `sampling` are fields of OpenAI's body, and `llmos={...}`."""
        config = self._transport.config
        return self._infer(inference.chat(config, model, messages, stream=stream, **sampling))

    @overload
    def complete(
        self,
        model: str,
        prompt: inference.Prompt,
        *,
        stream: Literal[False] = False,
        **sampling: Any,
    ) -> Completion: ...

    @overload
    def complete(
        self, model: str, prompt: inference.Prompt, *, stream: Literal[True], **sampling: Any
    ) -> Stream[Chunk]: ...

    def complete(
        self, model: str, prompt: inference.Prompt, *, stream: bool = False, **sampling: Any
    ) -> Completion | Stream[Chunk]:
        """Continue a text, or token ids taken as they are."""
        config = self._transport.config
        return self._infer(inference.complete(config, model, prompt, stream=stream, **sampling))

    def _infer(self, call: Call[Completion] | StreamCall[Chunk]) -> Completion | Stream[Chunk]:
        if isinstance(call, StreamCall):
            return self._transport.open(call)
        return self._transport.run(call)

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited."""

    status = _Async(calls.status)
    replicas = _Async(calls.list_replicas)
    workers = _Async(calls.list_workers)
    memory = _Async(calls.show_memory)
    health = _Async(calls.health)
    ready = _Async(calls.ready)
    metrics = _Async(calls.metrics)

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        home: str | Path | None = None,
        config: ClientConfig | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.endpoint: Endpoint = locate(url, api_key, home)
        self._transport = AsyncTransport(self.endpoint, config or ClientConfig(), transport)
        self.models = AsyncModels(self._transport)
        self.processes = AsyncProcesses(self._transport)
        self.jobs = AsyncJobs(self._transport)
        self.tasks = AsyncTasks(self._transport)
        self.schedules = AsyncSchedules(self._transport)
        self.files = AsyncFiles(self._transport)
        self.keys = AsyncKeys(self._transport)
        self.home = AsyncHome(self._transport)

    @overload
    async def chat(
        self,
        model: str,
        messages: inference.Messages,
        *,
        stream: Literal[False] = False,
        **sampling: Any,
    ) -> Completion: ...

    @overload
    async def chat(
        self, model: str, messages: inference.Messages, *, stream: Literal[True], **sampling: Any
    ) -> AsyncStream[Chunk]: ...

    async def chat(
        self, model: str, messages: inference.Messages, *, stream: bool = False, **sampling: Any
    ) -> Completion | AsyncStream[Chunk]:
        """Answer a conversation. `sampling` are fields of OpenAI's body, and `llmos={...}`."""
        config = self._transport.config
        call = inference.chat(config, model, messages, stream=stream, **sampling)
        return await self._infer(call)

    @overload
    async def complete(
        self,
        model: str,
        prompt: inference.Prompt,
        *,
        stream: Literal[False] = False,
        **sampling: Any,
    ) -> Completion: ...

    @overload
    async def complete(
        self, model: str, prompt: inference.Prompt, *, stream: Literal[True], **sampling: Any
    ) -> AsyncStream[Chunk]: ...

    async def complete(
        self, model: str, prompt: inference.Prompt, *, stream: bool = False, **sampling: Any
    ) -> Completion | AsyncStream[Chunk]:
        """Continue a text, or token ids taken as they are."""
        config = self._transport.config
        call = inference.complete(config, model, prompt, stream=stream, **sampling)
        return await self._infer(call)

    async def _infer(
        self, call: Call[Completion] | StreamCall[Chunk]
    ) -> Completion | AsyncStream[Chunk]:
        if isinstance(call, StreamCall):
            return await self._transport.open(call)
        return await self._transport.run(call)

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
