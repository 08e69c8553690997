"""The one door from a program worker to the kernel: many threads, one message at a time."""

from __future__ import annotations

import threading
from typing import Any

from llmos.abi.channel import ChannelClosed
from llmos.ipc.blocking import BlockingChannel


class Outlet:
    """Guards a channel's sending end. After `finish` nothing passes but answers to probes."""

    def __init__(self, channel: BlockingChannel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._is_finished = False

    def send(self, message: Any) -> None:
        """Of the program: dropped after its last word, and when the kernel is gone (whoever
        listens notices that)."""
        with self._lock:
            if not self._is_finished:
                self._pass(message)

    def finish(self, message: Any) -> None:
        """The program's last word. Only the first one is sent."""
        with self._lock:
            if not self._is_finished:
                self._is_finished = True
                self._pass(message)

    def report(self, message: Any) -> None:
        """Of the worker itself: passes always."""
        with self._lock:
            self._pass(message)

    def _pass(self, message: Any) -> None:
        try:
            self._channel.send(message)
        except ChannelClosed:
            self._is_finished = True
