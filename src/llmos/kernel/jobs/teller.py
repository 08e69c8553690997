"""The text of a durable call on its way into the job's log: gathered for a moment, so that fast
tokens do not cost a line each."""

from __future__ import annotations

import asyncio
import time

from llmos.abi import worker as msg
from llmos.abi.jobs import NewEvent
from llmos.kernel.jobs.writer import Writer


class Teller:
    """Of one attempt, number `attempt`. After `flush` the writer has all of it."""

    def __init__(self, writer: Writer, attempt: int, period_s: float) -> None:
        self._writer = writer
        self._attempt = attempt
        self._period_s = period_s
        self._texts: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, text: str) -> None:
        """Some more of it, in its order."""
        if not text:
            return
        self._texts.append(text)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._period_s, self.flush)

    def flush(self) -> None:
        """What was gathered goes on."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._texts:
            value = {"text": "".join(self._texts), "attempt": self._attempt}
            self._texts.clear()
            self._writer.told(msg.Told([NewEvent(time.time_ns(), "text", value)]))
