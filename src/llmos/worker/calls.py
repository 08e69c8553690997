"""A program's own calls: at most so many on their way, answered as they end."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import msgspec

from llmos.abi import worker as msg
from llmos.abi.program import Answer, Generate
from llmos.errors import InvalidRequest, LLMOSError, PayloadTooLarge, from_info
from llmos.worker.signals import Signals

MAX_CALL_BYTES = 32 << 20
MAX_BATCH_BYTES = 8 << 20
"""Of one message of calls; a longer call goes alone."""

IDLE_PERIOD_S = 1.0
IDLE_SHARE = 0.8
BUSY_SHARE = 0.5
"""Waiting for at least this share of a period is idle, below the second one is work again."""


class IdleMeter:
    """How much of its time the program's own thread does nothing but wait for answers."""

    def __init__(self, send: Callable[[msg.Waits], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._waited_s = 0.0
        self._since_s: float | None = None
        self._period_s = time.monotonic()
        self._idle = False

    def begin(self) -> None:
        with self._lock:
            self._since_s = time.monotonic()

    def end(self) -> None:
        with self._lock:
            self._add(time.monotonic())
            self._since_s = None

    def _add(self, now_s: float) -> None:
        if self._since_s is not None:
            self._waited_s += now_s - max(self._since_s, self._period_s)
            self._since_s = now_s

    def look(self) -> None:
        """At the end of a period: tell the kernel when it has changed."""
        with self._lock:
            now_s = time.monotonic()
            if now_s - self._period_s < IDLE_PERIOD_S:
                return
            self._add(now_s)
            share = self._waited_s / (now_s - self._period_s)
            self._period_s, self._waited_s = now_s, 0.0
            was, self._idle = self._idle, share >= (BUSY_SHARE if self._idle else IDLE_SHARE)
            idle = self._idle
        if idle != was:
            self._send(msg.Waits(idle))


class CallWindow:
    """Numbers calls, sends them in bundles, hands each answer to the loop that asked."""

    def __init__(
        self,
        send: Callable[[Any], None],
        signals: Signals,
        max_in_flight: int,
        meter: IdleMeter,
    ) -> None:
        self._send = send
        self._signals = signals
        self._max_in_flight = max(1, max_in_flight)
        self._meter = meter
        self._metered = threading.get_ident()
        self._numbers = itertools.count(1)
        self._encoder = msgspec.msgpack.Encoder()
        self._encoding = threading.Lock()
        self._in_flight: set[int] = set()
        self._num_reserved = 0
        self._rounds: dict[int, _Round] = {}

    def call(self, request: Generate) -> Answer:
        """Raises what it failed with, Interrupted."""
        answer = next(self.calls([(None, request)], 1))[1]
        if answer.error is not None:
            raise from_info(answer.error)
        return answer

    def calls(
        self, requests: Iterable[tuple[Any, Generate]], window: int
    ) -> Iterator[tuple[Any, Answer]]:
        """As `abi.Context.calls`. Raises Interrupted when the job is over and no answer is left."""
        if type(window) is not int or window < 1:
            raise InvalidRequest("a window holds at least one call", param="window")
        return self._run(_Round(iter(requests), min(window, self._max_in_flight)))

    def _run(self, round_: _Round) -> Iterator[tuple[Any, Answer]]:
        try:
            while True:
                self._fill(round_)
                if not round_.ready and not self._wait(round_):
                    return
                if round_.ready:  # else there is room for more calls
                    number, answer = round_.ready.popleft()
                    yield round_.keys.pop(number), answer
        finally:
            with self._signals.changed:
                for number in round_.keys:
                    self._rounds.pop(number, None)

    def _room(self, round_: _Round) -> int:
        """How many more calls may leave now."""
        if round_.is_exhausted or self._signals.should_stop or len(round_.ready) >= round_.window:
            return 0
        mine = round_.window - round_.num_in_flight
        return max(0, min(mine, self._max_in_flight - len(self._in_flight) - self._num_reserved))

    def _fill(self, round_: _Round) -> None:
        """Ask as many more as may leave; their places are taken first: other threads ask, too."""
        with self._signals.changed:
            round_.num_reserved = self._room(round_)
            self._num_reserved += round_.num_reserved
        try:
            self._ask(round_, round_.num_reserved)
        finally:
            with self._signals.changed:
                self._num_reserved -= round_.num_reserved
                round_.num_reserved = 0
                self._signals.changed.notify_all()

    def _ask(self, round_: _Round, num_calls: int) -> None:
        bundle: list[tuple[int, msgspec.Raw]] = []
        num_bytes = 0
        for _ in range(num_calls):
            try:
                key, request = next(round_.source)
            except StopIteration:
                round_.is_exhausted = True
                break
            number = next(self._numbers)
            round_.keys[number] = key
            try:
                encoded = self._encode(request)
            except LLMOSError as error:
                round_.ready.append((number, Answer(error=error.to_info())))
                continue
            if bundle and num_bytes + len(encoded) > MAX_BATCH_BYTES:
                self._leave(round_, bundle)
                bundle, num_bytes = [], 0
            bundle.append((number, msgspec.Raw(encoded)))
            num_bytes += len(encoded)
        if bundle:
            self._leave(round_, bundle)

    def _encode(self, request: Generate) -> bytes:
        if not isinstance(request, Generate):
            raise InvalidRequest(f"a call is a Generate, not {type(request).__name__}")
        try:
            with self._encoding:
                encoded = self._encoder.encode(request)
        except (OverflowError, UnicodeEncodeError, TypeError) as error:
            raise InvalidRequest(f"the call cannot be encoded: {error}") from None
        if len(encoded) > MAX_CALL_BYTES:
            raise PayloadTooLarge(f"a call of {len(encoded)} bytes is over {MAX_CALL_BYTES}")
        return encoded

    def _leave(self, round_: _Round, bundle: list[tuple[int, msgspec.Raw]]) -> None:
        with self._signals.changed:
            for number, _ in bundle:
                self._in_flight.add(number)
                self._rounds[number] = round_
            round_.num_in_flight += len(bundle)
            round_.num_reserved -= len(bundle)
            self._num_reserved -= len(bundle)
        self._send(msg.Calls(cast(Any, bundle)))  # each is encoded already, once

    def _wait(self, round_: _Round) -> bool:
        """Until there is an answer or room for a call; False when neither will come."""
        metered = threading.get_ident() == self._metered
        with self._signals.changed:
            if metered:
                self._meter.begin()
            try:
                while not round_.ready and not self._room(round_):
                    if not round_.num_in_flight and round_.is_exhausted:
                        return False
                    self._signals.check_stop()
                    self._signals.changed.wait()
            finally:
                if metered:
                    self._meter.end()
        return True

    def on_answers(self, answers: list[tuple[int, Answer]]) -> None:
        """Of the kernel. One that nobody waits for any more is dropped."""
        with self._signals.changed:
            for number, answer in answers:
                self._in_flight.discard(number)
                round_ = self._rounds.pop(number, None)
                if round_ is not None:
                    round_.num_in_flight -= 1
                    round_.ready.append((number, answer))
            self._signals.changed.notify_all()


class _Round:
    """One `calls` loop: what it still has to ask, what is on its way, what has come."""

    def __init__(self, source: Iterator[tuple[Any, Generate]], window: int) -> None:
        self.source = source
        self.window = window
        self.keys: dict[int, Any] = {}
        self.ready: deque[tuple[int, Answer]] = deque()
        self.num_in_flight = 0
        self.num_reserved = 0
        self.is_exhausted = False
