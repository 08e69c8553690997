"""Which tokenizer worker a prompt goes to: what is short never waits behind what is long."""

from __future__ import annotations

import asyncio
import enum
import functools
from collections.abc import Callable
from typing import Protocol

import msgspec

from llmos.abi import worker as msg
from llmos.abi.channel import Channel
from llmos.abi.inference import ChatPrompt, ItemsPrompt, Prepared, PrepareItem, TextPrompt
from llmos.errors import ErrorInfo
from llmos.kernel.tokenizer import Tokenizer

LONG_BYTES = 64 * 1024
"""Of a prompt: one more is long. So many are tokenized in some 20 ms; the 8 MiB that a body may
have take seconds, and 16 of them would be a minute and a half of everybody's first token."""


class Lane(enum.StrEnum):
    SHORT = "short"
    LONG = "long"


class TokenizerWorkers(Protocol):
    """Who has the processes; each one's start and end come back as `changed`."""

    def start_tokenizer(self, lane: Lane) -> None: ...

    def kill_tokenizer(self, lane: Lane) -> None: ...


class Tokenizers:
    """A tokenizer and a worker for each lane. The long one's begins with the first long prompt."""

    _workers: TokenizerWorkers

    def __init__(self, timeout_s: float, discard: Callable[[str], None]) -> None:
        """As `Tokenizer`."""
        self._lanes = {
            lane: Tokenizer(timeout_s, functools.partial(self._kill, lane), discard)
            for lane in Lane
        }
        self._started: set[Lane] = set()
        self._is_closing = False

    @property
    def is_up(self) -> bool:
        """Whether a usual prompt would be answered."""
        return self._lanes[Lane.SHORT].is_up

    def start(self, workers: TokenizerWorkers) -> None:
        self._workers = workers
        self._start(Lane.SHORT)

    async def prepare(self, item: PrepareItem) -> Prepared:
        """As `Tokenizer.prepare`."""
        lane = lane_of(item)
        if lane not in self._started:
            self._start(lane)
        return await self._lanes[lane].prepare(item)

    def answered(self, lane: Lane, results: msg.PrepareResults) -> None:
        self._lanes[lane].answered(results)

    def changed(self, lane: Lane, channel: Channel | None, error: ErrorInfo | None) -> None:
        """The lane's worker is there, or (no channel) gone: another follows."""
        tokenizer = self._lanes[lane]
        if channel is not None:
            tokenizer.connected(channel)
            return
        tokenizer.lost(error)
        if self._is_closing:
            tokenizer.close()
        else:
            asyncio.get_running_loop().call_later(tokenizer.next_start_s(), self._start, lane)

    def close(self) -> None:
        """No worker follows any more. What waits fails once the worker it waits for is gone."""
        self._is_closing = True

    def _kill(self, lane: Lane) -> None:
        self._workers.kill_tokenizer(lane)

    def _start(self, lane: Lane) -> None:
        if not self._is_closing:
            self._started.add(lane)
            self._workers.start_tokenizer(lane)


def size_bytes(item: PrepareItem) -> int:
    """About what there is to read of a prompt, its files aside."""
    prompt = item.prompt
    if isinstance(prompt, TextPrompt):
        return len(prompt.text)
    return len(msgspec.msgpack.encode(prompt))


def lane_of(item: PrepareItem) -> Lane:
    """One with files is long whatever their size: a few bytes may be very many pixels."""
    prompt = item.prompt
    has_files = isinstance(prompt, ItemsPrompt | ChatPrompt) and bool(prompt.blobs)
    return Lane.LONG if has_files or size_bytes(item) > LONG_BYTES else Lane.SHORT
