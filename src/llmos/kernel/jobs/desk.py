"""A job's own front end at the gate: its calls go in as its owner's, tokens are collected here."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from llmos.abi import syscall as sc
from llmos.abi.channel import Channel, ChannelClosed
from llmos.abi.events import Aborted, Failed, Finished, ItemOutput, Logprobs, Outputs, Tokens
from llmos.abi.jobs import JobRecord, JobSpec
from llmos.abi.program import Answer, Generate
from llmos.abi.syscall_jobs import SubmitJob
from llmos.abi.worker import Asks, Replied
from llmos.errors import (
    Cancelled,
    ErrorInfo,
    ProtocolViolation,
    QueueFull,
    QuotaExceeded,
    ShuttingDown,
)

AGAIN = frozenset({QueueFull.code, QuotaExceeded.code})
"""Refused or shed for want of room: the call waits here instead, a job has time."""

MAX_WAIT_S = 10.0


@dataclass(slots=True)
class _Open:
    """A call on its way: the program's number, what it asks, what has come."""

    number: int
    generate: Generate
    num_refusals: int = 0
    accepted: sc.Accepted | None = None
    token_ids: list[int] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    logprobs: list[Logprobs] | None = None
    outputs: list[ItemOutput] = field(default_factory=list)


class Desk:
    """Every call is answered once by `answer(number, Answer)`, unless the server stops first: then
    it is as if it had not been asked."""

    def __init__(
        self,
        channel: Channel,
        job: JobRecord,
        answer: Callable[[int, Answer], None],
        max_open: int,
        on_text: Callable[[str], None] | None = None,
    ) -> None:
        self._channel = channel
        self._job = job
        self._answer = answer
        self._max_open = max_open
        self._on_text = on_text
        self._numbers = itertools.count(1)
        self._open: dict[int, _Open] = {}
        self._later: dict[int, asyncio.TimerHandle] = {}
        self._asked: dict[int, Callable[[sc.Result | None, ErrorInfo | None], None]] = {}
        self._task = asyncio.get_running_loop().create_task(self._listen())

    def ask(self, number: int, generate: Generate) -> None:
        """Raises ProtocolViolation for more than may be open."""
        if len(self._open) + len(self._later) >= self._max_open:
            raise ProtocolViolation("the worker has more calls open than it may")
        self._send(_Open(number, generate))

    def ask_system(self, asks: Asks, answer: Callable[[Replied], None]) -> None:
        """Answered once, as `ask` is. What it submits is the job's child.

        Raises ProtocolViolation for more than may be open.
        """
        if len(self._asked) >= self._max_open:
            raise ProtocolViolation("the worker has more calls open than it may")

        def replied(result: sc.Result | None, error: ErrorInfo | None) -> None:
            answer(Replied(asks.number, result, error))

        body = asks.body
        if isinstance(body, SubmitJob):
            body = msgspec.structs.replace(body, spec=self._child(body.spec))
        number = next(self._numbers)
        self._asked[number] = replied
        self._channel.send(sc.Syscall(number, self._job.principal, body))

    def _child(self, spec: JobSpec) -> JobSpec:
        """Never more urgent than its parent."""
        highest = self._job.spec.service_class
        return msgspec.structs.replace(
            spec,
            parent_id=self._job.job_id,
            service_class=min(spec.service_class, highest),
        )

    def close(self) -> None:
        """What is open is cancelled by the gate: its front end is gone."""
        for timer in self._later.values():
            timer.cancel()
        self._later.clear()
        self._channel.close()
        self._task.cancel()

    def _send(self, call: _Open) -> None:
        number = next(self._numbers)
        self._open[number] = call
        generate, job = call.generate, self._job
        highest = min(job.spec.service_class, job.principal.max_class)
        wanted = generate.options.service_class
        options = msgspec.structs.replace(
            generate.options,
            service_class=highest if wanted is None else min(wanted, highest),
            resume_s=None,
        )
        body = sc.Infer(generate.model, generate.prompt, generate.sampling, options, generate.route)
        self._channel.send(sc.Syscall(number, job.principal, body))

    async def _listen(self) -> None:
        try:
            while True:
                for message in await self._channel.receive():
                    self._take(message)
        except ChannelClosed:
            return

    def _take(self, message: sc.FromGate) -> None:
        if message.call in self._asked:
            self._replied(message)
            return
        call = self._open.get(message.call)
        if call is None:
            return
        if isinstance(message, sc.Emit):
            self._events(message, call)
        elif isinstance(message, sc.Refused):
            del self._open[message.call]
            self._refused(call, message.error)
        elif isinstance(message.result, sc.Accepted):
            call.accepted = message.result

    def _replied(self, message: sc.FromGate) -> None:
        if isinstance(message, sc.Reply):
            self._asked.pop(message.call)(message.result, None)
        elif isinstance(message, sc.Refused):
            answer = self._asked.pop(message.call)
            if message.error.code != ShuttingDown.code:
                answer(None, message.error)

    def _events(self, message: sc.Emit, call: _Open) -> None:
        for event in message.events:
            if isinstance(event, Tokens):
                call.token_ids += event.token_ids
                call.texts.append(event.text)
                if event.logprobs is not None:
                    call.logprobs = [*(call.logprobs or ()), *event.logprobs]
                if self._on_text is not None:
                    self._on_text(event.text)
            elif isinstance(event, Outputs):
                call.outputs += event.items
            elif isinstance(event, Finished | Failed | Aborted):
                del self._open[message.call]
                self._ended(call, event)
                return
        self._channel.send(sc.Ack(message.call, len(message.events)))

    def _ended(self, call: _Open, event: Finished | Failed | Aborted) -> None:
        error: ErrorInfo | None = None
        if isinstance(event, Failed):
            error = event.error
        elif isinstance(event, Aborted):
            error = Cancelled(event.reason).to_info()
        if error is not None and error.code == ShuttingDown.code:
            return
        has_begun = bool(call.token_ids or call.outputs)
        if error is not None and error.code in AGAIN and not has_begun:
            self._refused(call, error)  # shed from its queue for a higher class
            return
        accepted = call.accepted
        done = event if isinstance(event, Finished) else None
        answer = Answer(
            request_id=event.request_id,
            model=accepted.model if accepted else call.generate.model,
            text="".join(call.texts),
            token_ids=call.token_ids,
            finish_reason=str(done.reason) if done else "",
            stop=done.stop if done else None,
            usage=event.usage,
            created_ns=accepted.created_ns if accepted else 0,
            service_class=int(accepted.service_class) if accepted else 0,
            deterministic=done.deterministic if done else None,
            served=done.served if done else None,
            outputs=sorted(call.outputs, key=lambda item: item.index),
            error=error,
            tool_format=accepted.tool_format if accepted else "",
            logprobs=call.logprobs,
            kind=accepted.kind if accepted else "",
            prompt_logprobs=done.prompt_logprobs if done else None,
        )
        self._answer(call.number, answer)

    def _refused(self, call: _Open, error: ErrorInfo) -> None:
        if error.code == ShuttingDown.code:
            return
        if error.code not in AGAIN:
            self._answer(call.number, Answer(model=call.generate.model, error=error))
            return
        call.num_refusals += 1
        wait_s = min(MAX_WAIT_S, max(error.retry_after_s or 0.0, 0.1 * call.num_refusals))
        wait_s *= random.uniform(0.5, 1.0)  # not all at once
        timer = asyncio.get_running_loop().call_later(wait_s, self._again, call.number, call)
        self._later[call.number] = timer

    def _again(self, number: int, call: _Open) -> None:
        del self._later[number]
        self._send(call)
