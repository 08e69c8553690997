"""A program's own system calls: each is asked, and waited for, by the thread that makes it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from typing import Any

import msgspec

from llmos.abi import worker as msg
from llmos.errors import InvalidRequest, from_info
from llmos.worker.calls import IdleMeter
from llmos.worker.signals import Signals


class Questions:
    """Made by the program's own thread, whose waiting `meter` counts."""

    def __init__(
        self, send: Callable[[msg.Asks], None], signals: Signals, meter: IdleMeter
    ) -> None:
        self._send = send
        self._signals = signals
        self._meter = meter
        self._metered = threading.get_ident()
        self._numbers = itertools.count(1)
        self._replies: dict[int, msg.Replied | None] = {}

    def ask(self, body: msgspec.Struct) -> Any:
        """As `abi.Context.ask`. Raises Interrupted when the job is over before there is a reply."""
        if not isinstance(body, msg.Askable):
            text = f"a program does not make the call {type(body).__name__}"
            raise InvalidRequest(text, param="call")
        self._signals.check_stop()
        number = next(self._numbers)
        with self._signals.changed:
            self._replies[number] = None
        self._send(msg.Asks(number, body))
        reply = self._wait(number)
        if reply.error is not None:
            raise from_info(reply.error)
        return reply.result

    def _wait(self, number: int) -> msg.Replied:
        metered = threading.get_ident() == self._metered
        with self._signals.changed:
            if metered:
                self._meter.begin()
            try:
                while (reply := self._replies[number]) is None:
                    self._signals.check_stop()
                    self._signals.changed.wait()
                return reply
            finally:
                del self._replies[number]
                if metered:
                    self._meter.end()

    def on_replied(self, reply: msg.Replied) -> None:
        """Of the kernel. One that nobody waits for any more is dropped."""
        with self._signals.changed:
            if reply.number in self._replies:
                self._replies[reply.number] = reply
                self._signals.changed.notify_all()
