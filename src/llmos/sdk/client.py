"""`Client` and `AsyncClient`: one attribute per call; what a call is stands in the pure modules.

The signature and docstring of a method are those of its function in `calls`, less the first
argument: the two clients differ only in how they run it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Any,
    Literal,
    ParamSpec,
    Self,
    TypeVar,
    overload,
)

from llmos.abi.registry import PullOptions
from llmos.abi.syscall import PullModel
from llmos.sdk import audio, calls, calls_home, files, inference, items, jobs, logs
from llmos.sdk.bar import PullBar, make_bar
from llmos.sdk.config import ClientConfig
from llmos.sdk.feedback import AsyncFeedback, Feedback
from llmos.sdk.groups import Async, AsyncGroup, Group, Sync
from llmos.sdk.locate import Endpoint, locate
from llmos.sdk.logs import Entry
from llmos.sdk.pull import Progress, pull, quantize_call
from llmos.sdk.results import Chunk, Completion
from llmos.sdk.runs import AsyncEvaluations, AsyncRuns, Evaluations, Runs
from llmos.sdk.shown import Model
from llmos.sdk.transport import AsyncStream, AsyncTransport, Stream, Transport
from llmos.sdk.wire import Call, StreamCall
from llmos.sdk.work import AsyncJobs, AsyncSchedules, AsyncTasks, Jobs, Schedules, Tasks

if TYPE_CHECKING:
    import httpx

P = ParamSpec("P")
T = TypeVar("T")


@contextlib.contextmanager
def _reports(progress: Progress | bool) -> Iterator[Progress]:
    """What takes the reports: the caller's own, a bar, or nobody."""
    if callable(progress):
        yield progress
        return
    with PullBar(make_bar(progress)) as bar:
        yield bar


class Models(Group):
    """`client.models`."""

    list = Sync(calls.list_models)
    show = Sync(calls.show_model)
    remove = Sync(calls.remove_model)
    alias = Sync(calls.alias_model)
    unalias = Sync(calls.unalias_model)
    load = Sync(calls.load_model)
    pin = Sync(calls.pin_model)
    unpin = Sync(calls.unpin_model)
    unload = Sync(calls.unload_model)

    def pull(
        self,
        source: str,
        name: str | None = None,
        *,
        progress: Progress | bool = False,
        options: PullOptions | None = None,
    ) -> Model:
        """Bring a model in: `hf:org/name[@revision]`, `file:PATH` of this machine, or one that
        stays elsewhere, `openai:https://host/v1#model`.

        `progress` is called with what is done, or True: a bar. Raises ModelRejected, NotFound,
        Conflict, StorageError.
        """
        transport = self._transport
        is_local = transport.endpoint.socket is not None
        wish = PullModel(source, name, options or PullOptions())
        with _reports(progress) as told:
            return transport.run_steps(pull(transport.config, is_local, wish, told))

    def quantize(
        self, ref: str, to: str, name: str | None = None, *, progress: Progress | bool = False
    ) -> Model:
        """Make a version with weights `to` `int8` or `int4`; `name` None: that of `ref`, and `to`.

        Raises ModelNotFound, Conflict (it is quantized), ModelRejected, DiskFull, StorageError.
        """
        transport = self._transport
        with _reports(progress) as told:
            return transport.run(quantize_call(transport.config, ref, to, name, told))


class AsyncModels(AsyncGroup):
    """`client.models`."""

    list = Async(calls.list_models)
    show = Async(calls.show_model)
    remove = Async(calls.remove_model)
    alias = Async(calls.alias_model)
    unalias = Async(calls.unalias_model)
    load = Async(calls.load_model)
    pin = Async(calls.pin_model)
    unpin = Async(calls.unpin_model)
    unload = Async(calls.unload_model)

    async def pull(
        self,
        source: str,
        name: str | None = None,
        *,
        progress: Progress | bool = False,
        options: PullOptions | None = None,
    ) -> Model:
        """As `Models.pull`; `progress` is called in the event loop."""
        transport = self._transport
        is_local = transport.endpoint.socket is not None
        wish = PullModel(source, name, options or PullOptions())
        with _reports(progress) as told:
            return await transport.run_steps(pull(transport.config, is_local, wish, told))

    async def quantize(
        self, ref: str, to: str, name: str | None = None, *, progress: Progress | bool = False
    ) -> Model:
        """As `Models.quantize`; `progress` is called in the event loop."""
        transport = self._transport
        with _reports(progress) as told:
            return await transport.run(quantize_call(transport.config, ref, to, name, told))


class Processes(Group):
    """`client.processes`."""

    list = Sync(calls.list_processes)
    show = Sync(calls.show_process)
    nice = Sync(calls.nice_process)
    wait = Sync(calls.wait_process)
    kill = Sync(calls.kill_process)
    suspend = Sync(jobs.suspend_process)
    resume = Sync(jobs.resume_process)


class AsyncProcesses(AsyncGroup):
    """`client.processes`."""

    list = Async(calls.list_processes)
    show = Async(calls.show_process)
    nice = Async(calls.nice_process)
    wait = Async(calls.wait_process)
    kill = Async(calls.kill_process)
    suspend = Async(jobs.suspend_process)
    resume = Async(jobs.resume_process)


class Files(Group):
    """`client.files`."""

    put = Sync(files.put_file)
    list = Sync(files.list_files)
    show = Sync(files.show_file)
    get = Sync(files.get_file)
    remove = Sync(files.remove_file)


class AsyncFiles(AsyncGroup):
    """`client.files`."""

    put = Async(files.put_file)
    list = Async(files.list_files)
    show = Async(files.show_file)
    get = Async(files.get_file)
    remove = Async(files.remove_file)


class Keys(Group):
    """`client.keys`."""

    list = Sync(calls.list_keys)
    add = Sync(calls.add_key)
    revoke = Sync(calls.revoke_key)


class AsyncKeys(AsyncGroup):
    """`client.keys`."""

    list = Async(calls.list_keys)
    add = Async(calls.add_key)
    revoke = Async(calls.revoke_key)


class Home(Group):
    """`client.home`."""

    back_up = Sync(calls_home.back_up)
    disk = Sync(calls_home.disk)
    collect = Sync(calls_home.collect)


class AsyncHome(AsyncGroup):
    """`client.home`."""

    back_up = Async(calls_home.back_up)
    disk = Async(calls_home.disk)
    collect = Async(calls_home.collect)


class Items(Group):
    """`client.items`: work that is answered item by item."""

    infer = Sync(items.infer)
    embed = Sync(items.embed)
    rerank = Sync(items.rerank)
    moderate = Sync(items.moderate)
    transcribe = Sync(audio.transcribe)
    speak = Sync(audio.speak)


class AsyncItems(AsyncGroup):
    """`client.items`."""

    infer = Async(items.infer)
    embed = Async(items.embed)
    rerank = Async(items.rerank)
    moderate = Async(items.moderate)
    transcribe = Async(audio.transcribe)
    speak = Async(audio.speak)


class Client:
    """A blocking client. Finds the server as `locate` says; nothing is contacted until a call.

    Every method raises the error the server named, as the same class, or ServerUnreachable.
    """

    status = Sync(calls.status)
    replicas = Sync(calls.list_replicas)
    workers = Sync(calls.list_workers)
    memory = Sync(calls.show_memory)
    settings = Sync(calls.list_settings)
    health = Sync(calls.health)
    ready = Sync(calls.ready)
    metrics = Sync(calls.metrics)
    logs = Sync(logs.show_logs)

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
        self.runs = Runs(self._transport)
        self.evaluations = Evaluations(self._transport)
        self.schedules = Schedules(self._transport)
        self.files = Files(self._transport)
        self.keys = Keys(self._transport)
        self.home = Home(self._transport)
        self.items = Items(self._transport)
        self.feedback = Feedback(self._transport)

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

    def follow_logs(self, lines: int = 50) -> Stream[Entry]:
        """Its last lines, and each that comes, until one leaves. Raises PermissionDenied,
        QuotaExceeded."""
        return self._transport.open(logs.follow_logs(self._transport.config, lines))

    def close(self) -> None:
        """Close the connections. Idempotent."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class AsyncClient:
    """`Client` for asyncio: the same calls, awaited."""

    status = Async(calls.status)
    replicas = Async(calls.list_replicas)
    workers = Async(calls.list_workers)
    memory = Async(calls.show_memory)
    settings = Async(calls.list_settings)
    health = Async(calls.health)
    ready = Async(calls.ready)
    metrics = Async(calls.metrics)
    logs = Async(logs.show_logs)

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
        self.runs = AsyncRuns(self._transport)
        self.evaluations = AsyncEvaluations(self._transport)
        self.schedules = AsyncSchedules(self._transport)
        self.files = AsyncFiles(self._transport)
        self.keys = AsyncKeys(self._transport)
        self.home = AsyncHome(self._transport)
        self.items = AsyncItems(self._transport)
        self.feedback = AsyncFeedback(self._transport)

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

    async def follow_logs(self, lines: int = 50) -> AsyncStream[Entry]:
        """As `Client.follow_logs`."""
        return await self._transport.open(logs.follow_logs(self._transport.config, lines))

    async def aclose(self) -> None:
        """Close the connections. Idempotent."""
        await self._transport.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
