"""Answering /v1/responses: live, with a record behind the answer, or by a durable call."""

from __future__ import annotations

import time
from dataclasses import dataclass

import msgspec

from llmos.abi.events import Tokens
from llmos.abi.ids import new_id
from llmos.abi.jobs import ENDED, JobEvent, JobRecord, JobState
from llmos.abi.program import Answer, Generate
from llmos.abi.syscall_jobs import FollowJob, JobReply, RecordJob
from llmos.api.call import Call, ClientGone, watching
from llmos.api.frames import KEEP_ALIVE
from llmos.api.infer import (
    Hear,
    Outcome,
    Pulse,
    as_they_are,
    collect,
    finished,
    report,
    submitted,
)
from llmos.api.response_frames import NOTHING_SEEN, ResponseFrames
from llmos.api.response_output import Output
from llmos.api.routes.jobs import next_or_silence
from llmos.api.streams import FollowStream, InferStream
from llmos.errors import (
    Cancelled,
    InvalidRequest,
    LLMOSError,
    OffsetLost,
    ProtocolViolation,
    UserError,
    from_info,
)
from llmos.shapes.items import Item, has_images
from llmos.shapes.response_object import Facts, response_object, stored_facts
from llmos.shapes.responses import ResponsesBody, output_of, stored_spec, wanted_by
from llmos.shapes.sight import Heard, in_words_of, is_captioner, read_sight

ERROR_PREFIX = b"event: error\ndata: "


@dataclass(frozen=True, slots=True)
class Live:
    """A response that is made while its client waits. `hear`: what the model's events are taken
    for."""

    call: Call
    body: ResponsesBody
    items: list[Item]
    job_id: str
    hear: Hear

    async def answer(self, generate: Generate) -> None:
        """The whole answer, or its events."""
        async with submitted(self.call, [generate]) as (stream,):
            if self.body.stream:
                await self._stream(stream)
            else:
                facts = self._facts(stream, await collect(self.call, stream, self.hear))
                await self._store(facts)
                await self.call.send_json(response_object(facts))

    async def _stream(self, stream: InferStream) -> None:
        frames = ResponseFrames(self.job_id)
        accepted = stream.accepted
        running = Facts(self.job_id, self.body.echo(), "in_progress", accepted.created_ns)
        await self.call.start_sse(ERROR_PREFIX)
        output = Output(frames, self.job_id, accepted.tool_format, wanted_by(self.body.echo()))
        await self.call.write(
            frames.whole("created", running)
            + frames.whole("in_progress", running)
            + output.opening()
        )
        try:
            facts = self._facts(stream, await self._relay(stream, output))
            await self._store(facts)
        except LLMOSError as e:
            failed = running._replace(status="failed", error=e.to_info())
            await self.call.write(frames.end(failed), more=False)
            return
        items = output_of(self.job_id, facts.answer, facts.echo)
        await self.call.write(output.finish(items) + frames.end(facts), more=False)

    async def _relay(self, stream: InferStream, output: Output) -> Outcome:
        """Texts as they come. Raises what the request failed with."""
        outcome = Outcome(accepted_s=time.perf_counter())
        with Pulse(self.call, [stream]):
            async for arrived in stream:
                batch = self.hear(arrived)
                texts = [event for event in batch if type(event) is Tokens]
                out = b"".join(map(output.push, texts))
                for event in texts:
                    outcome.add(event)
                if out or not arrived:
                    await self.call.write(out or KEEP_ALIVE)
                if batch and type(batch[-1]) is not Tokens:
                    outcome.finished = finished(batch[-1])
        return outcome

    def _facts(self, stream: InferStream, outcome: Outcome) -> Facts:
        accepted, end = stream.accepted, outcome.end
        answer = Answer(
            request_id=accepted.request_id,
            model=accepted.model,
            text="".join(outcome.texts),
            token_ids=outcome.token_ids,
            finish_reason=str(end.reason),
            stop=end.stop,
            usage=end.usage,
            created_ns=accepted.created_ns,
            service_class=int(accepted.service_class),
            deterministic=end.deterministic,
            served=end.served,
            tool_format=accepted.tool_format,
            logprobs=outcome.logprobs,
        )
        return Facts(
            self.job_id,
            self.body.echo(),
            "completed",
            accepted.created_ns,
            time.time_ns(),
            answer,
            llmos=report(self.call, stream, outcome),
        )

    async def _store(self, facts: Facts) -> None:
        """On disk before the client is told that it is whole."""
        if not self.body.store:
            return
        principal = self.call.principal
        spec = stored_spec(self.body, self.items, principal.max_class, created_ns=facts.created_ns)
        assert facts.answer is not None
        answer = msgspec.structs.replace(facts.answer, token_ids=[])  # nobody can ask for them
        outputs = {
            "answer": msgspec.to_builtins(answer),
            "llmos": facts.llmos,
            "ended_ns": facts.ended_ns,
        }
        record = RecordJob(spec, outputs, self.job_id)
        await self.call.edge.gate.call(principal, record, self.call.trace_parent)


async def answer_live(
    call: Call, body: ResponsesBody, items: list[Item], generate: Generate
) -> None:
    """Make it now. What is too long to be kept is refused before it is made. About images a model
    that chats is asked first; one that only captions answers in its own way."""
    if body.store:
        stored_spec(body, items, call.principal.max_class)
    job_id = new_id("job")
    try:
        await Live(call, body, items, job_id, as_they_are).answer(generate)
    except InvalidRequest as error:
        if not (has_images(items) and is_captioner(error)) or call.is_started:
            raise
    else:
        return
    wish, where = read_sight(body, generate)
    try:
        await Live(call, body, items, job_id, Heard(where)).answer(wish)
    except UserError as error:
        raise in_words_of(wish.route, error) from None


async def answer_ended(call: Call, job: JobRecord) -> None:
    """Wait for a durable call that is not in the background. Raises what it failed with."""
    if job.state not in ENDED:
        stream = _follow(call, job, ["state"])
        try:
            with watching(call, lambda: stream.cancel("client left", ClientGone())):
                while await next_or_silence(call, stream) is not None:
                    pass
            job = _followed(stream)
        finally:
            stream.cancel("answer ended", ClientGone())
    if job.state is not JobState.SUCCEEDED:
        raise _failure(job)
    await call.send_json(response_object(stored_facts(job)))


def _failure(job: JobRecord) -> LLMOSError:
    return Cancelled(job.reason or "cancelled") if job.error is None else from_info(job.error)


async def stream_stored(call: Call, job: JobRecord, after: int = NOTHING_SEEN) -> None:
    """The events of a durable call, from its log, after event number `after`.

    Raises OffsetLost when the log does not go back that far; once begun, that is its last event.
    """
    telling = Telling(job, ResponseFrames(job.job_id, after))
    if job.state in ENDED and job.attempt > 1 and after <= telling.last_before_text:
        await call.start_sse(ERROR_PREFIX)
        await call.write(telling.opening() + telling.ending(job), more=False)
        return
    stream = _follow(call, job, ["state", "text"])
    try:
        with watching(call, lambda: stream.cancel("client left", ClientGone())):
            await call.start_sse(ERROR_PREFIX)
            await call.write(telling.opening())
            while (batch := await next_or_silence(call, stream)) is not None:
                await call.write(b"".join(map(telling.event, batch)) or KEEP_ALIVE)
        last = telling.ending(_followed(stream))
        if not last:
            raise OffsetLost(f"The last event of this response is number {telling.frames.number}.")
    except LLMOSError as e:
        last = telling.frames.error(e)
    finally:
        stream.cancel("answer ended", ClientGone())
    await call.write(last, more=False)


class Telling:
    """The story of a durable call as its log has it: numbers are the same for every reader."""

    last_before_text = 4
    """The number of the event before the first text."""

    def __init__(self, job: JobRecord, frames: ResponseFrames) -> None:
        self.frames = frames
        self._job_id = job.job_id
        self._queued = stored_facts(job)._replace(
            status="queued", ended_ns=None, answer=None, error=None, llmos=None
        )
        self._told = ""
        self._attempt = 0
        self._output: Output | None = None
        self._echo = job.spec.inputs["request"]
        # calls are found once the model's format is known, which is at the end
        self._at_once = bool(wanted_by(self._echo).names) or asks_logprobs(job)

    def opening(self) -> bytes:
        """Before it runs."""
        frames = self.frames
        return frames.whole("created", self._queued) + frames.whole("queued", self._queued)

    def event(self, event: JobEvent) -> bytes:
        """What one line of the log adds. Raises OffsetLost when the text begins anew."""
        if event.kind != "text" or self._at_once:
            return b""
        attempt, text = event.value.get("attempt", 0), str(event.value.get("text", ""))
        if self._told and attempt != self._attempt:
            raise OffsetLost("The response was begun anew; retrieve it once it has ended.")
        self._attempt = attempt
        self._told += text
        opening, output = self._open("")
        return opening + output.push(Tokens("", [], text))

    def ending(self, job: JobRecord) -> bytes:
        """What is left to tell of an ended one. Raises OffsetLost when its text is another one."""
        facts = stored_facts(job)
        if facts.answer is None:
            return self.frames.end(facts)
        text = facts.answer.text
        if not text.startswith(self._told):
            raise OffsetLost("The response was begun anew; retrieve it.")
        items = output_of(job.job_id, facts.answer, self._echo)
        opening, output = self._open(facts.answer.tool_format)
        rest = Tokens("", [], text[len(self._told) :], facts.answer.logprobs)
        return opening + output.push(rest) + output.finish(items) + self.frames.end(facts)

    def _open(self, form: str) -> tuple[bytes, Output]:
        """The events before the first text, once, and who tells what follows."""
        if self._output is not None:
            return b"", self._output
        job_id, wanted = self._job_id, wanted_by(self._echo)
        self._output = Output(self.frames, job_id, form, wanted)
        running = self._queued._replace(status="in_progress")
        return self.frames.whole("in_progress", running) + self._output.opening(), self._output


def asks_logprobs(job: JobRecord) -> bool:
    """Which are told together with the text, and known at the end."""
    generate = job.spec.inputs.get("generate") or {}
    return generate.get("sampling", {}).get("logprobs") is not None


def _follow(call: Call, job: JobRecord, kinds: list[str]) -> FollowStream:
    body = FollowJob(job.job_id, 0, kinds)
    return call.edge.gate.follow(call.principal, body, call.trace_parent)


def _followed(stream: FollowStream) -> JobRecord:
    if not isinstance(stream.result, JobReply):
        raise ProtocolViolation("a log ended without its job")
    return stream.result.job
