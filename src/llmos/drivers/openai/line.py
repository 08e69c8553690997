"""The thread that talks to remotes, and what the driver's own thread hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import deque

from llmos.abi.remote import RemoteSpec
from llmos.drivers.openai import limits
from llmos.drivers.openai.courier import Call, Courier, News
from llmos.errors import LoadFailed


class Line:
    """From `open` to `close`. Only `Line`'s methods are called from the other thread; what has
    come is taken by `take`, and `fd` is readable while there is any."""

    def __init__(self, spec: RemoteSpec, secrets: dict[str, str]) -> None:
        self._spec = spec
        self._secrets = secrets
        self._news: deque[News] = deque()
        self._bell, self._ringer = socket.socketpair()
        for end in (self._bell, self._ringer):
            end.setblocking(False)
        self._loop = asyncio.new_event_loop()
        self._courier: Courier | None = None
        self._is_up = threading.Event()
        self._thread = threading.Thread(target=self._run, name="remote", daemon=True)

    @property
    def fd(self) -> int:
        """To be waited on."""
        return self._bell.fileno()

    @property
    def is_alive(self) -> bool:
        """Its thread runs."""
        return self._thread.is_alive()

    def open(self) -> None:
        """Returns when requests can be taken. Raises LoadFailed."""
        try:
            self._courier = Courier(self._spec, self._secrets, self._tell)
        except OSError as error:  # certificates that cannot be read
            self.close()
            raise LoadFailed(f"no client for it can be made: {error.strerror or error}") from error
        self._thread.start()
        self._is_up.wait()

    def has_news(self) -> bool:
        return bool(self._news)

    def take(self) -> list[News]:
        """All that has come since."""
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(4096):
                pass
        found = []
        with contextlib.suppress(IndexError):
            while True:
                found.append(self._news.popleft())
        return found

    def send(self, call: Call) -> None:
        """Ask; news of it follow."""
        call.flow.set()
        self._loop.call_soon_threadsafe(self._begin, call)

    def cancel(self, call: Call) -> None:
        """Nobody wants it any more. News of it may still come."""
        self._loop.call_soon_threadsafe(self._end, call)

    def hold(self, call: Call) -> None:
        """Read no more of it for now."""
        self._loop.call_soon_threadsafe(call.flow.clear)

    def release(self, call: Call) -> None:
        """Read on."""
        self._loop.call_soon_threadsafe(call.flow.set)

    def states(self) -> list[str]:
        """Of the endpoints, for people."""
        if self._courier is None or not self.is_alive:
            return []

        async def ask(courier: Courier) -> list[str]:
            return courier.states()

        future = asyncio.run_coroutine_threadsafe(ask(self._courier), self._loop)
        try:
            return future.result(limits.STOP_TIMEOUT_S)
        except TimeoutError:
            return []

    def close(self) -> None:
        """Whatever is on its way is broken off."""
        if self.is_alive:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(limits.STOP_TIMEOUT_S)
        elif not self._loop.is_closed():  # it never ran
            self._loop.close()
        self._bell.close()
        self._ringer.close()

    # in the loop's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.call_soon(self._is_up.set)
        self._loop.run_forever()
        self._loop.run_until_complete(self._finish())
        self._loop.close()

    async def _finish(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        assert self._courier is not None
        await self._courier.close()

    def _begin(self, call: Call) -> None:
        assert self._courier is not None
        call.task = self._loop.create_task(self._courier.carry(call))

    def _end(self, call: Call) -> None:
        if call.task is not None:
            call.task.cancel()

    def _tell(self, news: News) -> None:
        self._news.append(news)
        with contextlib.suppress(BlockingIOError, OSError):  # it rings already, or nobody is there
            self._ringer.send(b"\0")
