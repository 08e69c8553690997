"""Inference routes' common part: submit to the gate, then collect an answer or relay a stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from llmos.abi.events import Aborted, Event, Failed, Finished, Logprobs, Tokens
from llmos.abi.inference import ChatPrompt, Usage
from llmos.abi.program import Generate
from llmos.abi.syscall import Accepted, AttachStream, Infer
from llmos.api.call import Call, ClientGone, watching
from llmos.api.frames import DONE, KEEP_ALIVE, Frames
from llmos.api.resume import NumberedFrames, ResumePoint
from llmos.api.streams import InferStream
from llmos.api.tooldeltas import ToolDeltas
from llmos.errors import Cancelled, InvalidRequest, LLMOSError, UnsupportedParameter, from_info
from llmos.shapes.options import InferenceBody
from llmos.shapes.outcomes import Choice, how_served
from llmos.shapes.toolcalls.stream import Wanted, hear


@dataclass(slots=True)
class Outcome:
    """One choice's tokens (kept for unstreamed answers only), end and timing in seconds."""

    texts: list[str] = field(default_factory=list)
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[Logprobs] | None = None
    first_s: float | None = None
    accepted_s: float = 0.0
    finished: Finished | None = None

    def add(self, event: Tokens) -> None:
        """More of it."""
        if self.first_s is None:
            self.first_s = time.perf_counter()
        self.texts.append(event.text)
        self.token_ids += event.token_ids
        if event.logprobs is not None:
            self.logprobs = self.logprobs or []
            self.logprobs += event.logprobs

    def choice(self, with_ids: bool, accepted: Accepted, wanted: Wanted) -> Choice:
        """As an answer has it. Raises as `end` does."""
        end, text, form = self.end, "".join(self.texts), accepted.tool_format
        ids = self.token_ids if with_ids else None
        choice = Choice(
            text, end.reason, end.stop, end.usage, ids, self.logprobs, end.prompt_logprobs
        )
        if not form:
            return choice
        heard = hear(text, form, wanted)
        return choice._replace(
            heard=heard,
            as_function=wanted.as_function,
            tool_format=form,
            request_id=accepted.request_id,
        )

    @property
    def end(self) -> Finished:
        """Raises when the stream has not ended well."""
        if self.finished is None:
            raise LLMOSError("The stream ended without a terminal event.")
        return self.finished


Hear = Callable[[list[Event]], list[Event]]
"""What a batch of events is taken for."""


def as_they_are(batch: list[Event]) -> list[Event]:
    """The events of a model that writes."""
    return batch


@asynccontextmanager
async def submitted(
    call: Call, wishes: Sequence[Generate], point: ResumePoint | None = None
) -> AsyncIterator[list[InferStream]]:
    """Accepted streams of all wishes, cancelled when the client leaves or the block ends.

    With a `point`, the one stream that goes on there; nothing new is asked for. Raises what the
    first refused one was refused with, ClientGone when the client has left.
    """
    streams: list[InferStream] = []

    def cancel(reason: str = "client left") -> None:
        for stream in streams:
            stream.cancel(reason, ClientGone())

    try:
        for body in _bodies(wishes, point):
            stream = call.edge.gate.start_infer(call.principal, body, call.trace_parent)
            stream.on_terminal = call.on_terminal
            streams.append(stream)
        with watching(call, cancel):
            for stream in streams:
                await stream.accept()
            call.request_id = streams[0].accepted.request_id
            yield streams
    finally:
        cancel("answer ended")


def _bodies(
    wishes: Sequence[Generate], point: ResumePoint | None
) -> list[Infer] | list[AttachStream]:
    if point is not None:
        # calls of tools are read from the beginning, whatever of them the client has
        after = 0 if _has_tools(wishes[0]) else point.after
        return [AttachStream(point.request_id, after)]
    return [Infer(w.model, w.prompt, w.sampling, w.options, w.route) for w in wishes]


def check_count(count: int, most: int) -> None:
    """Raises InvalidRequest for more choices than one request may have."""
    if count > most:
        raise InvalidRequest(f"More than {most} choices.", param="n")


def _has_tools(wish: Generate) -> bool:
    return isinstance(wish.prompt, ChatPrompt) and bool(wish.prompt.tools)


def frames_of(
    streams: list[InferStream],
    body: InferenceBody,
    point: ResumePoint | None,
    wanted: Wanted | None,
) -> list[Frames]:
    """How the choices are written; with ids for a client that may come back. `wanted`: it is a
    chat, and these calls are looked for. Raises UnsupportedParameter."""
    first = streams[0].accepted  # all choices share the answer's id
    is_numbered = point is not None or bool(body.llmos.resume_s)
    if is_numbered and len(streams) > 1:
        raise UnsupportedParameter("Only the stream of a single choice can be kept.", param="n")
    kind = NumberedFrames if is_numbered else Frames
    made = []
    for index, stream in enumerate(streams):
        form = stream.accepted.tool_format
        tools = None
        if wanted is not None and (reader := wanted.reader(form)) is not None:
            request_id = stream.accepted.request_id
            tools = ToolDeltas(reader, form, request_id, as_function=wanted.as_function)
        frames = kind(
            first,
            index,
            is_chat=wanted is not None,
            include_usage=body.include_usage,
            with_ids=body.return_token_ids,
            tools=tools,
        )
        if isinstance(frames, NumberedFrames) and point is not None and tools is not None:
            frames.skip_to(point.after)
        made.append(frames)
    return made


async def collect(call: Call, stream: InferStream, hear: Hear = as_they_are) -> Outcome:
    """The whole of one choice. Raises what it failed with."""
    outcome = Outcome(accepted_s=time.perf_counter())
    async for batch in stream:
        for event in hear(batch):
            if type(event) is Tokens:
                outcome.add(event)
            else:
                outcome.finished = finished(event)
    return outcome


async def collect_all(call: Call, streams: list[InferStream]) -> list[Outcome]:
    """All choices, side by side. Raises what the first of them failed with."""
    if len(streams) == 1:
        return [await collect(call, streams[0])]
    tasks = [asyncio.ensure_future(collect(call, stream)) for stream in streams]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


async def relay(call: Call, stream: InferStream, frames: Frames) -> tuple[bytes, Usage]:
    """Write one choice's events as they come; the last ones are returned unwritten.

    All that has arrived goes out in one write, so a slow socket coalesces by itself.
    """
    outcome = Outcome(accepted_s=time.perf_counter())
    opening = frames.opening
    async for batch in stream:
        out = b"".join([frames.delta(e) for e in batch if type(e) is Tokens])
        if out and outcome.first_s is None:
            outcome.first_s = time.perf_counter()
            out, opening = opening + out, b""
        last = batch[-1] if batch else None
        if last is not None and type(last) is not Tokens:
            if out and type(last) is not Finished:
                await call.write(out)
            outcome.finished = end = finished(last)
            return opening + out + frames.finish(end, report(call, stream, outcome)), end.usage
        if out or not batch:
            await call.write(out or KEEP_ALIVE)
    raise LLMOSError("The stream ended without a terminal event.")


async def stream_choices(
    call: Call, streams: list[InferStream], frames: list[Frames], body: InferenceBody
) -> None:
    """The whole event stream: every choice interleaved, usage, `[DONE]`.

    Raises what a choice failed with; the caller's boundary writes it as the last event.
    """
    await call.start_sse()
    with Pulse(call, streams):
        if len(streams) == 1:
            rest, usage = await relay(call, streams[0], frames[0])
            usages = [usage]
        else:
            usages = await _interleave(call, streams, frames)
            rest = b""
    if body.include_usage:
        rest += frames[0].usage(usages, body.n)
    await call.write(rest + DONE, more=False)


async def _interleave(call: Call, streams: list[InferStream], frames: list[Frames]) -> list[Usage]:
    async def one(stream: InferStream, frame: Frames) -> Usage:
        rest, usage = await relay(call, stream, frame)
        await call.write(rest)
        return usage

    tasks = [asyncio.ensure_future(one(s, f)) for s, f in zip(streams, frames, strict=True)]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class Pulse:
    """Pokes a silent answer's streams so that a comment goes out; no timer per token."""

    def __init__(self, call: Call, streams: list[InferStream]) -> None:
        self._call = call
        self._streams = streams
        self._period_s = call.edge.config.keepalive_comment_s / 2
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(self._period_s, self._tick)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(self._period_s, self._tick)
        if time.perf_counter() - self._call.written_s >= self._period_s:
            waiting = next((s for s in self._streams if s.is_waiting), None)
            if waiting is not None:
                waiting.poke()


def finished(event: Event) -> Finished:
    """The good end. Raises the error of any other."""
    if isinstance(event, Finished):
        return event
    if isinstance(event, Failed):
        raise from_info(event.error)
    if isinstance(event, Aborted):
        raise Cancelled(f"The request was ended: {event.reason}.", details={"reason": event.reason})
    raise LLMOSError("An event after the terminal one.")


def report(call: Call, stream: InferStream, outcome: Outcome) -> dict[str, Any]:
    """The `llmos` object of an answer; times in milliseconds since the headers were read."""
    accepted = stream.accepted
    began_s = call.began_s
    first_s = outcome.first_s
    ran_as, served = outcome.end.deterministic, outcome.end.served
    ended_as = None if served is None else served.service_class
    return {
        "request_id": accepted.request_id,
        "model": accepted.model,
        "deterministic": accepted.deterministic if ran_as is None else ran_as,
        "class": (accepted.service_class if ended_as is None else ended_as).name.lower(),
        "timing": {
            "accepted_ms": _millis(outcome.accepted_s - began_s),
            "first_token_ms": None if first_s is None else _millis(first_s - began_s),
            "queued_ms": None if served is None else _millis(served.queued_s),
            "total_ms": _millis(time.perf_counter() - began_s),
        },
        **how_served(served),
    }


def _millis(seconds: float) -> float:
    return round(seconds * 1000, 3)
