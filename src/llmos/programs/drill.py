"""A program that does what its inputs say: the double by which jobs are tested.

`inputs["steps"]` is a list of objects, each with `do` and the fields of the step of that name
below. A step with `until_attempt` is left out from the attempt after that one on, so that a job can
fail twice and then succeed. It ships, as the echo driver does.
"""

from __future__ import annotations

import builtins
import hashlib
import logging
import mmap
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from llmos.abi.inference import ChatPrompt, Options, Sampling
from llmos.abi.program import Answer, Context, Generate, Yielded
from llmos.errors import ERRORS, InvalidRequest, LLMOSError

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86_400.0)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]

NAP_S = 0.02
"""A polite step looks this often whether it should stop."""


class Step(msgspec.Struct, frozen=True, tag_field="do", forbid_unknown_fields=True, kw_only=True):
    """What every step has. `until_attempt` 0: always."""

    until_attempt: Count = 0


class Sleep(Step, frozen=True, tag="sleep"):
    """Wait. `polite`: end with the steps when told to stop, give way when asked to."""

    seconds: Seconds
    polite: bool = True


class Spin(Step, frozen=True, tag="spin"):
    """Keep one processor busy, hashing."""

    seconds: Seconds
    polite: bool = True


class Emit(Step, frozen=True, tag="emit"):
    """`count` events, each with its number as `i` if there are several."""

    kind: str = "metric"
    value: dict[str, Any] = {}
    count: Count = 1


class Print(Step, frozen=True, tag="print"):
    """`count` lines by `way`; `raw_out` and `raw_err` write to the descriptors, as C does."""

    text: str
    way: Literal["stdout", "stderr", "raw_out", "raw_err", "logging", "warning"] = "stdout"
    count: Count = 1


class Progress(Step, frozen=True, tag="progress"):
    done: float
    total: float = 0.0
    unit: str = ""
    what: str = ""
    counts: dict[str, int] = {}


class Raise(Step, frozen=True, tag="raise"):
    """An error of the tree by its `code`, or a Python exception by its name as `code`."""

    code: str = "ValueError"
    message: str = "the drill says so"
    retryable: bool | None = None


class Hang(Step, frozen=True, tag="hang"):
    """For ever. `stopped`: as a process that something has stopped; probes go unanswered."""

    stopped: bool = False


class Allocate(Step, frozen=True, tag="allocate"):
    """Touch and keep that much memory until the attempt ends."""

    size_bytes: Count


class Exit(Step, frozen=True, tag="exit"):
    """By SystemExit, or with `hard` at once (`os._exit`)."""

    status: int = 0
    hard: bool = False


class Kill(Step, frozen=True, tag="kill"):
    """Send itself a signal."""

    signal: int = int(signal.SIGKILL)


class CountUp(Step, frozen=True, tag="count"):
    """Count to `to` in a checkpoint, every `every`: continues exactly where the newest one was.

    The outputs tell `count`, `sum` of what was counted, and `resumed_at`, where each attempt began.
    """

    to: Count
    every: Annotated[int, msgspec.Meta(ge=1)] = 1
    delay_s: Seconds = 0.0


class Call(Step, frozen=True, tag="call"):
    """`num_calls` chats, at most `window` at once. The outputs tell `calls`: text by number."""

    model: str = "echo"
    content: str = "drill {i}"
    num_calls: Count = 1
    window: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 1
    max_tokens: Count = 0
    driver: dict[str, Any] = {}


class Result(Step, frozen=True, tag="result"):
    """Keyed results `prefix`0 … of `size_bytes` each, those left out that are done already."""

    num_results: Count
    stream: str = "output"
    prefix: str = "r"
    size_bytes: Count = 16
    delay_s: Seconds = 0.0


class Return(Step, frozen=True, tag="return"):
    """End with these outputs; `odd` with something that no JSON holds."""

    outputs: dict[str, Any] = {}
    odd: Literal["", "nan", "surrogate", "object", "huge", "deep", "list"] = ""


class Thread(Step, frozen=True, tag="thread"):
    """Leave a thread running for ever that a normal exit would wait for."""


class Fork(Step, frozen=True, tag="fork"):
    """Leave a child process sleeping that inherited all we have."""

    seconds: Seconds = 3600.0


AnyStep = (
    Sleep
    | Spin
    | Emit
    | Print
    | Progress
    | Raise
    | Hang
    | Allocate
    | Exit
    | Kill
    | CountUp
    | Call
    | Result
    | Return
    | Thread
    | Fork
)


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs."""

    steps: list[AnyStep] = []


class Counter(msgspec.Struct):
    """The checkpoint of `count`."""

    count: int = 0
    sum: int = 0
    resumed_at: list[int] = []


class _Enough(Exception):
    """It was told to stop."""


class _Done(Exception):
    """The script ends here."""


class Drill:
    """Behind `abi.Program`."""

    def __init__(self) -> None:
        self._outputs: dict[str, Any] = {}
        self._odd: Any = {}
        self._kept: list[bytearray] = []
        self._steps: dict[type, Callable[[Context, Any], None]] = {
            Sleep: self._sleep,
            Spin: self._spin,
            Emit: self._emit,
            Print: self._print,
            Progress: self._progress,
            Raise: self._raise,
            Hang: self._hang,
            Allocate: self._allocate,
            Exit: self._exit,
            Kill: lambda ctx, step: os.kill(os.getpid(), step.signal),
            CountUp: self._count,
            Call: self._call,
            Result: self._result,
            Return: self._return,
            Thread: self._thread,
            Fork: self._fork,
        }

    def run(self, ctx: Context) -> Mapping[str, Any]:
        """Raises InvalidRequest for inputs that are no script, and whatever the script says."""
        try:
            script = msgspec.convert(dict(ctx.inputs), Script)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"drill: {error}", param="inputs") from None
        try:
            for step in script.steps:
                if not step.until_attempt or ctx.attempt <= step.until_attempt:
                    self._steps[type(step)](ctx, step)
        except _Enough:
            self._outputs["stopped"] = True
        except _Done:
            return self._odd or self._outputs
        return self._outputs

    # time

    def _nap(self, ctx: Context, seconds: float, polite: bool = True) -> None:
        end_s = time.monotonic() + seconds
        while (left_s := end_s - time.monotonic()) > 0:
            if polite:
                self._look(ctx)
            time.sleep(min(left_s, NAP_S) if polite else left_s)

    @staticmethod
    def _look(ctx: Context) -> None:
        if ctx.should_stop:
            raise _Enough
        if ctx.should_yield:
            raise Yielded

    def _sleep(self, ctx: Context, step: Sleep) -> None:
        self._nap(ctx, step.seconds, step.polite)

    def _spin(self, ctx: Context, step: Spin) -> None:
        end_s = time.monotonic() + step.seconds
        digest = b""
        while time.monotonic() < end_s:
            digest = hashlib.sha256(digest * 64).digest()
            if step.polite:
                self._look(ctx)

    def _hang(self, ctx: Context, step: Hang) -> None:
        if step.stopped:
            os.kill(os.getpid(), signal.SIGSTOP)
        threading.Event().wait()

    # telling

    def _emit(self, ctx: Context, step: Emit) -> None:
        for i in range(step.count):
            ctx.emit(step.kind, step.value if step.count == 1 else {**step.value, "i": i})

    def _print(self, ctx: Context, step: Print) -> None:
        say = _WAYS[step.way]
        for i in range(step.count):
            say(step.text.replace("{i}", str(i)))

    def _progress(self, ctx: Context, step: Progress) -> None:
        ctx.progress(step.done, step.total, step.unit, step.what, step.counts)

    # ends

    def _raise(self, ctx: Context, step: Raise) -> None:
        kind = ERRORS.get(step.code)
        if kind is not None:
            error: LLMOSError = kind(step.message)
            error.retryable = kind.retryable if step.retryable is None else step.retryable
            raise error
        builtin = getattr(builtins, step.code, None)
        if not (isinstance(builtin, type) and issubclass(builtin, BaseException)):
            raise InvalidRequest(f"no error is called {step.code!r}", param="steps.code")
        raise builtin(step.message)

    def _exit(self, ctx: Context, step: Exit) -> None:
        if step.hard:
            os._exit(step.status)
        sys.exit(step.status)

    def _return(self, ctx: Context, step: Return) -> None:
        self._outputs.update(step.outputs)
        self._odd = _odd(step.odd)
        raise _Done

    # work

    def _allocate(self, ctx: Context, step: Allocate) -> None:
        memory = bytearray(step.size_bytes)
        for at in range(0, len(memory), mmap.PAGESIZE):
            memory[at] = 1
        self._kept.append(memory)

    def _count(self, ctx: Context, step: CountUp) -> None:
        counter = Counter()
        if ctx.resumed_from is not None:
            counter = msgspec.json.decode(Path(ctx.resumed_from).read_bytes(), type=Counter)
        counter.resumed_at.append(counter.count)
        while counter.count < step.to:
            if ctx.should_yield and not ctx.should_stop:
                self._save(ctx, counter)
            self._look(ctx)
            counter.count += 1
            counter.sum += counter.count
            if counter.count % step.every == 0:
                self._save(ctx, counter)
                ctx.progress(counter.count, step.to, "steps", "counting")
            self._nap(ctx, step.delay_s, polite=False)
        self._outputs |= msgspec.to_builtins(counter)

    @staticmethod
    def _save(ctx: Context, counter: Counter) -> None:
        path = Path(ctx.scratch) / f"count-{counter.count}.json"
        path.write_bytes(msgspec.json.encode(counter))
        ctx.checkpoint(str(path))

    def _call(self, ctx: Context, step: Call) -> None:
        answers: dict[str, Any] = self._outputs.setdefault("calls", {})
        for i, answer in ctx.calls(_requests(step), step.window):
            answers[str(i)] = _told(answer)

    def _result(self, ctx: Context, step: Result) -> None:
        for i in range(step.num_results):
            key = f"{step.prefix}{i}"
            if (step.stream, key) not in ctx.done_keys:
                self._look(ctx)
                ctx.result(step.stream, key, i, _body(key, step.size_bytes))
                self._nap(ctx, step.delay_s)

    def _thread(self, ctx: Context, step: Thread) -> None:
        threading.Thread(target=threading.Event().wait, name="left-running").start()

    def _fork(self, ctx: Context, step: Fork) -> None:
        if os.fork() == 0:
            time.sleep(step.seconds)
            os._exit(0)


def _say(stream: str) -> Callable[[str], None]:
    return lambda text: print(text, file=getattr(sys, stream))


def _raw(fd: int) -> Callable[[str], object]:
    return lambda text: os.write(fd, text.encode("utf-8", "replace") + b"\n")


_WAYS: dict[str, Callable[[str], object]] = {
    "stdout": _say("stdout"),
    "stderr": _say("stderr"),
    "raw_out": _raw(1),
    "raw_err": _raw(2),
    "logging": logging.getLogger("drill").info,
    "warning": lambda text: warnings.warn(text, stacklevel=3),
}


def _odd(kind: str) -> Any:
    """What `return` returns instead of its outputs; nothing for no kind."""
    deep: list[Any] = []
    deep.append(deep)
    odd = {
        "nan": {"loss": float("nan"), "bound": float("-inf")},
        "surrogate": {"text": "half \ud83d of it", "键\udc00": 1},
        "object": {"it": {"is": object()}},
        "huge": {"text": "x" * (8 << 20)} if kind == "huge" else None,
        "deep": {"deep": deep},
        "list": [1, 2],
    }
    return odd.get(kind)


def _requests(step: Call) -> Iterator[tuple[int, Generate]]:
    for i in range(step.num_calls):
        prompt = ChatPrompt([{"role": "user", "content": step.content.replace("{i}", str(i))}])
        sampling = Sampling(max_tokens=step.max_tokens)
        yield i, Generate(step.model, prompt, sampling, Options(driver=step.driver))


def _told(answer: Answer) -> Any:
    """The text of an answer, or the code of its error in an object."""
    return answer.text if answer.error is None else {"error": answer.error.code}


def _body(key: str, size_bytes: int) -> bytes:
    """A line of JSON of that length, the same for the same key."""
    line = b'{"key":"%s"' % key.encode()
    return line + b" " * max(0, size_bytes - len(line) - 1) + b"}"
