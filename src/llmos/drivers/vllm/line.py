"""The thread that vLLM's event loop runs in, and what the driver's own thread hears of it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import socket
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from llmos.drivers.vllm.limits import STOP_TIMEOUT_S


@dataclasses.dataclass(frozen=True, slots=True)
class News:
    """Of the request `key`: tokens that were drawn; `is_last`: no more come; `error`: why."""

    key: str
    token_ids: tuple[int, ...] = ()
    is_last: bool = False
    error: str = ""


class Line:
    """From `open` to `close`. Only `Line`'s methods are called from the other thread; what has
    come is taken by `take`, and `fd` is readable while there is any. `why_dead`: the engine."""

    def __init__(self) -> None:
        self._news: deque[News] = deque()
        self._bell, self._ringer = socket.socketpair()
        for end in (self._bell, self._ringer):
            end.setblocking(False)
        self._loop = asyncio.new_event_loop()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._llm: Any = None
        self._thread = threading.Thread(target=self._run, name="vllm", daemon=True)
        self.why_dead = ""

    @property
    def fd(self) -> int:
        """To be waited on."""
        return self._bell.fileno()

    @property
    def is_well(self) -> bool:
        is_up = self._llm is not None and not self._llm.errored
        return is_up and self._thread.is_alive() and not self.why_dead

    def open(self, make: Callable[[], Any]) -> Any:
        """The engine that `make` makes, in the thread. Raises what `make` raises."""

        async def call() -> Any:
            return make()

        self._thread.start()
        self._llm = asyncio.run_coroutine_threadsafe(call(), self._loop).result()
        return self._llm

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

    def send(self, key: str, prompt: Any, params: Any) -> None:
        """Ask; news of it follow."""
        self._loop.call_soon_threadsafe(self._begin, key, prompt, params)

    def cancel(self, key: str) -> None:
        """Nobody wants it any more. News of it may still come."""
        self._loop.call_soon_threadsafe(self._end, key)

    def close(self) -> None:
        """Whatever is on its way is broken off, and the engine's processes end."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(STOP_TIMEOUT_S)
        self._bell.close()
        self._ringer.close()

    # in the loop's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()
        self._loop.run_until_complete(self._finish())
        self._loop.close()

    async def _finish(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        llm, self._llm = self._llm, None
        if llm is not None:
            llm.shutdown()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _begin(self, key: str, prompt: Any, params: Any) -> None:
        self._tasks[key] = self._loop.create_task(self._carry(key, prompt, params))

    def _end(self, key: str) -> None:
        if task := self._tasks.get(key):
            task.cancel()

    async def _carry(self, key: str, prompt: Any, params: Any) -> None:
        from vllm.exceptions import VLLMError
        from vllm.v1.engine.exceptions import EngineDeadError

        try:
            async for output in self._llm.generate(prompt, params, key):
                self._tell(News(key, tuple(output.outputs[0].token_ids), output.finished))
        except EngineDeadError as error:
            self.why_dead = _why(error)
            self._tell(News(key, is_last=True, error=self.why_dead))
        except (VLLMError, ValueError, RuntimeError) as error:
            self._tell(News(key, is_last=True, error=_why(error)))
        finally:
            self._tasks.pop(key, None)

    def _tell(self, news: News) -> None:
        self._news.append(news)
        with contextlib.suppress(BlockingIOError, OSError):  # it rings already, or nobody is there
            self._ringer.send(b"\0")


def _why(error: BaseException) -> str:
    """Of a chain the first cause: the outer ones only say that something failed."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:400]
