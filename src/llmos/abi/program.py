"""The Program seam: what a job runs inside a worker. No sockets, no database: only its context."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Protocol

import msgspec

from llmos.abi.events import ItemOutput, Logprobs, Served
from llmos.abi.inference import Options, Prompt, Sampling, Usage
from llmos.abi.registry import ModelVersion
from llmos.errors import ErrorInfo

RAW = "raw:"
"""What the names of streams begin with whose rows are pieces of a file, not lines."""


class ProgramEntry(msgspec.Struct, frozen=True):
    """How to run a program: entry string of a Program class, interpreter (empty: ours).

    `memory_bytes` is its estimate where a job names none. `compute`: it keeps processors busy, so
    it is frozen while interactive requests need them; one that mostly waits for calls is not.
    `checkpoints`: it can continue from `ctx.checkpoint`, so it may be asked to yield its memory.
    `exports`: streams of keyed results that become files at the job's end, and their names: a row
    is a line, but those of a stream that begins with `RAW` are joined as they are.
    `about` is a line for people; `inputs` names each input with a line about it.
    `plan`: entry string of a `Plan`, if it has one; the server imports it, so it is light.
    `registers`: it makes models, so whoever submits it must have the right to.
    """

    name: str
    entry: str
    python: str = ""
    memory_bytes: int = 256 << 20
    compute: bool = False
    checkpoints: bool = False
    exports: dict[str, str] = {}
    about: str = ""
    inputs: dict[str, str] = {}
    plan: str = ""
    registers: bool = False


class Plan(Protocol):
    """Looks at a job before it is accepted."""

    def __call__(
        self,
        inputs: Mapping[str, Any],
        files: Mapping[str, int],
        models: Mapping[str, ModelVersion],
        budget_bytes: int,
    ) -> int:
        """The memory it needs at most. `files` are sizes in bytes of those it was given, by
        name, as `models` are.

        Raises InvalidRequest for inputs that are none, ModelTooLarge naming what would fit.
        """
        ...


class Generate(msgspec.Struct, frozen=True, omit_defaults=True):
    """A program's system call: one inference, answered whole. The class is the job's at most."""

    model: str
    prompt: Prompt
    sampling: Sampling
    options: Options = Options()
    route: str = "chat"


class Answer(msgspec.Struct, frozen=True):
    """The whole of one generation, or why there is none. `created_ns` is UTC; `tool_format` as in
    `Prepared`, `logprobs` as in `Tokens`, `prompt_logprobs` as in `Finished`.

    `outputs`: of an `ItemsPrompt`, one for each item, by index; `kind` is what was done with them.
    """

    request_id: str = ""
    model: str = ""
    text: str = ""
    token_ids: list[int] = []
    finish_reason: str = ""
    stop: str | int | None = None
    usage: Usage = Usage()
    created_ns: int = 0
    service_class: int = 0
    deterministic: bool | None = None
    served: Served | None = None
    outputs: list[ItemOutput] = []
    error: ErrorInfo | None = None
    tool_format: str = ""
    logprobs: list[Logprobs] | None = None
    kind: str = ""
    prompt_logprobs: list[Logprobs] | None = None


class Context(Protocol):
    """A program's whole world. Every method may raise `LLMOSError` subclasses only, and
    `Interrupted` when the job was cancelled or its worker must go."""

    @property
    def job_id(self) -> str: ...

    @property
    def attempt(self) -> int: ...

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    @property
    def files(self) -> Mapping[str, str]:
        """Read-only paths by the names of `JobSpec.files`."""
        ...

    @property
    def models(self) -> Mapping[str, str]:
        """Read-only folders of model versions by the names of `JobSpec.models`."""
        ...

    @property
    def scratch(self) -> str:
        """A private folder, gone when the attempt ends."""
        ...

    @property
    def resumed_from(self) -> str | None:
        """Path of the newest checkpoint, if an earlier attempt made one."""
        ...

    @property
    def done_keys(self) -> frozenset[tuple[str, str]]:
        """(stream, key) of the results that earlier attempts left: not to be made again."""
        ...

    def emit(self, kind: str, value: Mapping[str, Any]) -> None:
        """A metric, a log line, an output: kept by the server, streamed to readers."""
        ...

    def progress(
        self,
        done: float,
        total: float = 0.0,
        unit: str = "",
        what: str = "",
        counts: Mapping[str, int] | None = None,
    ) -> None:
        """How far it is; the server keeps the newest and tells the time left."""
        ...

    def result(self, stream: str, key: str, order: int, body: bytes) -> None:
        """A keyed result, durable soon after; the first with its key is the one that stays. Blocks
        while too many are on their way."""
        ...

    def gather(self, stream: str) -> str:
        """Path of a file with all results of a stream so far, those of earlier attempts too, by
        their order, as it would be exported. The program's own to read until it ends."""
        ...

    def call(self, request: Generate) -> Answer:
        """One inference with the owner's rights. Raises what it failed with."""
        ...

    def calls(
        self, requests: Iterable[tuple[Any, Generate]], window: int
    ) -> Iterator[tuple[Any, Answer]]:
        """Many inferences, at most `window` at once, answered in the order in which they end, each
        with the key it was given; a failed one has `error` set."""
        ...

    def ask(self, call: msgspec.Struct) -> Any:
        """A system call of `abi.syscall` with the owner's rights, answered by its result. While
        it waits, its place among running jobs is another's.

        Those there are: ListModels, ShowModel, AliasModel, SubmitJob (the job is then this one's
        child, its class at most this one's), ShowJob, RetryJob, WaitProcess. Raises what it failed
        with.
        """
        ...

    def checkpoint(self, path: str) -> None:
        """Make a file of the scratch folder what the next attempt continues from. Durable when it
        returns."""
        ...

    def register(self, folder: str, name: str) -> str:
        """Make a folder of the scratch folder a version of the model `name`; its reference. Once
        it returns the version is there for everybody; equal contents are the version they were."""
        ...

    @property
    def should_yield(self) -> bool:
        """True when the scheduler wants the machine: checkpoint and raise `Yielded` soon."""
        ...

    @property
    def should_stop(self) -> bool:
        """True when the job was cancelled or has expired: leave what is half done, return."""
        ...


class Yielded(Exception):
    """Raised by a program that has made its checkpoint and gives the machine back."""


class Interrupted(Exception):
    """Raised by the context into a program that goes on although its job is over."""


class Program(Protocol):
    """Named by an entry string; one call of `run` per attempt."""

    def run(self, ctx: Context) -> Mapping[str, Any]:
        """The outputs, JSON-able. What it raises is the attempt's failure: an LLMOSError with
        `retryable` set is tried again, anything else fails the job."""
        ...
