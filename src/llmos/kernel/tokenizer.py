"""The kernel's side of the tokenizer worker: prompts in, tokens out, nobody left waiting."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable

from llmos.abi import worker as msg
from llmos.abi.channel import Channel, ChannelClosed
from llmos.abi.inference import Prepared, PrepareItem
from llmos.errors import ErrorInfo, ProtocolViolation, ShuttingDown, WorkerLost, from_info

MAX_BACKOFF_S = 5.0
MAX_DOUBLINGS = 10

WINDOW = 16
"""Prompts the worker has at once. The others wait here, where one nobody waits for any more costs
nothing: a socket's buffer has no end and cannot be taken back.
"""


class Tokenizer:
    """Sends prompts in order; the worker answers in order, so the first sent is at work.

    When the worker dies, that one is to blame and fails; the others are sent again to the next
    worker.
    """

    def __init__(
        self,
        timeout_s: float,
        on_stuck: Callable[[], None] = lambda: None,
        discard: Callable[[str], None] = lambda request_id: None,
    ) -> None:
        """`on_stuck`: the prompt at work took `timeout_s`, and those behind it would, too.
        `discard`: of a request that is over, delete what was spilled."""
        self._timeout_s = timeout_s
        self._on_stuck = on_stuck
        self._discard = discard
        self._channel: Channel | None = None
        self._answers: dict[str, asyncio.Future[Prepared]] = {}
        self._unsent: dict[str, PrepareItem] = {}
        self._sent: dict[str, PrepareItem] = {}
        self._is_scheduled = False
        self._num_failures = 0

    def next_start_s(self) -> float:
        """How long to wait before the next worker: not at all after one that had answered."""
        doublings = min(self._num_failures, MAX_DOUBLINGS)
        self._num_failures += 1
        return min(MAX_BACKOFF_S, 0.1 * 2**doublings) if doublings else 0.0

    @property
    def is_up(self) -> bool:
        return self._channel is not None

    async def prepare(self, item: PrepareItem) -> Prepared:
        """Raises what the preparer raised, WorkerLost when it died or took too long."""
        answer: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        self._answers[item.request_id] = answer
        self._unsent[item.request_id] = item
        if not self._is_scheduled:  # together with whatever else is asked in this turn of the loop
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError as late:
            if next(iter(self._sent), None) == item.request_id:
                self._on_stuck()
            raise WorkerLost(f"the prompt was not tokenized in {self._timeout_s:g} s") from late
        finally:
            self._answers.pop(item.request_id, None)
            self._unsent.pop(item.request_id, None)

    def answered(self, results: msg.PrepareResults) -> None:
        """What the worker sent. An answer nobody waits for any more is dropped."""
        self._num_failures = 0
        for result in results.results:
            if isinstance(result, msg.PrepareSuccess):
                request_id = result.prepared.request_id
                answer = self._answers.get(request_id)
                if answer is not None and not answer.done():
                    answer.set_result(result.prepared)
                elif result.prepared.spill:
                    self._discard(request_id)
            else:
                request_id = result.request_id
                if not self._is_awaited(request_id):
                    self._discard(request_id)  # what was spilled until it failed
                self._fail(request_id, result.error)
            self._sent.pop(request_id, None)
        if self._unsent:
            self._flush()

    def connected(self, channel: Channel) -> None:
        """A worker is there."""
        self._channel = channel
        self._flush()

    def lost(self, error: ErrorInfo | None) -> None:
        """The worker died over the first prompt it had; the others go first to the next one."""
        self._channel = None
        sent, self._sent = self._sent, {}
        if first := next(iter(sent), None):
            self._fail(first, error or WorkerLost("the worker stopped").to_info())
        again = {i: item for i, item in sent.items() if self._is_awaited(i)}
        self._unsent = again | self._unsent

    def close(self) -> None:
        """No worker will come any more."""
        for request_id in list(self._answers):
            self._fail(request_id, ShuttingDown("the server is stopping").to_info())

    def _is_awaited(self, request_id: str) -> bool:
        answer = self._answers.get(request_id)
        return answer is not None and not answer.done()

    def _fail(self, request_id: str, error: ErrorInfo) -> None:
        answer = self._answers.get(request_id)
        if answer is not None and not answer.done():
            answer.set_exception(from_info(error))

    def _flush(self) -> None:
        self._is_scheduled = False
        room = WINDOW - len(self._sent)
        if self._channel is None or room <= 0 or not self._unsent:
            return
        taken = dict(itertools.islice(self._unsent.items(), room))
        for request_id in taken:
            del self._unsent[request_id]
        self._sent |= taken
        with contextlib.suppress(ChannelClosed):
            self._send(self._channel, list(taken.values()))

    def _send(self, channel: Channel, items: list[PrepareItem]) -> None:
        """In one message, or each in its own when they don't fit one."""
        try:
            channel.send(msg.Prepare(items))
        except ProtocolViolation as error:
            if len(items) > 1:
                for item in items:
                    self._send(channel, [item])
            else:
                self._sent.pop(items[0].request_id, None)
                self._fail(items[0].request_id, error.to_info())
