"""The text of a streamed durable call reaches its log whole, in order and in few lines."""

from __future__ import annotations

import asyncio
from typing import Any

from llmos.abi.worker import Told
from llmos.kernel.jobs.teller import Teller


class Lines:
    """A writer that keeps what it is told."""

    def __init__(self) -> None:
        self.values: list[dict[str, Any]] = []
        self.come = asyncio.Event()

    def told(self, message: Told) -> None:
        assert [event.kind for event in message.events] == ["text"]
        self.values += [event.value for event in message.events]
        self.come.set()


def test_texts_that_come_together_are_one_line() -> None:
    async def scene() -> None:
        lines = Lines()
        teller = Teller(lines, 2, 0.01)  # type: ignore[arg-type]
        for text in ("你", "", "好"):
            teller.tell(text)
        assert not lines.values
        await asyncio.wait_for(lines.come.wait(), 5)
        teller.tell("!")
        teller.flush()
        teller.flush()
        assert lines.values == [
            {"text": "你好", "attempt": 2},
            {"text": "!", "attempt": 2},
        ]

    asyncio.run(scene())
