"""The kernel's side of the tokenizer worker: prompts in, tokens out, nobody left waiting."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from llmos.abi import worker as msg
from llmos.abi.channel import Channel, ChannelClosed
from llmos.abi.inference import Prepared, PrepareItem
from llmos.errors import ErrorInfo, WorkerLost, from_info

MAX_BACKOFF_S = 5.0


@dataclass(slots=True, eq=False)
class _Asked:
    item: PrepareItem
    answer: asyncio.Future[Prepared]


class Tokenizer:
    """Keeps what is unanswered in order; the worker answers in order, so the first is at work.

    When the worker dies, the first one is to blame and fails; the others are sent again to the
    next worker.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._channel: Channel | None = None
        self._unanswered: dict[str, _Asked] = {}
        self._outbox: list[PrepareItem] = []
        self._num_failures = 0

    def next_start_s(self) -> float:
        """How long to wait before the next worker: not at all after one that had answered."""
        delay_s = min(MAX_BACKOFF_S, 0.1 * 2**self._num_failures) if self._num_failures else 0.0
        self._num_failures += 1
        return delay_s

    @property
    def is_up(self) -> bool:
        return self._channel is not None

    async def prepare(self, item: PrepareItem) -> Prepared:
        """Raises what the preparer raised, WorkerLost when it died or took too long."""
        answer: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        self._unanswered[item.request_id] = _Asked(item, answer)
        self._send(item)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except TimeoutError as late:
            raise WorkerLost(f"the prompt was not tokenized in {self._timeout_s:g} s") from late
        finally:
            self._unanswered.pop(item.request_id, None)

    def answered(self, results: msg.PrepareResults) -> None:
        """What the worker sent. An answer nobody waits for any more is dropped."""
        self._num_failures = 0
        for result in results.results:
            if isinstance(result, msg.PrepareSuccess):
                asked = self._unanswered.get(result.prepared.request_id)
                if asked is not None and not asked.answer.done():
                    asked.answer.set_result(result.prepared)
            else:
                self._fail(result.request_id, result.error)

    def connected(self, channel: Channel) -> None:
        """A worker is there: it gets everything unanswered."""
        self._channel = channel
        items = [asked.item for asked in self._unanswered.values() if not asked.answer.done()]
        if items:
            channel.send(msg.Prepare(items))

    def lost(self, error: ErrorInfo | None) -> None:
        """The worker died over the first unanswered prompt."""
        self._channel = None
        first = next((i for i, a in self._unanswered.items() if not a.answer.done()), None)
        if first is not None:
            self._fail(first, error or WorkerLost("the server stops").to_info())

    def _fail(self, request_id: str, error: ErrorInfo) -> None:
        asked = self._unanswered.get(request_id)
        if asked is not None and not asked.answer.done():
            asked.answer.set_exception(from_info(error))

    def _send(self, item: PrepareItem) -> None:
        """Together with whatever else is asked in this turn of the loop."""
        if not self._outbox:
            asyncio.get_running_loop().call_soon(self._flush)
        self._outbox.append(item)

    def _flush(self) -> None:
        items, self._outbox = self._outbox, []
        if self._channel is not None:
            with contextlib.suppress(ChannelClosed):
                self._channel.send(msg.Prepare(items))
