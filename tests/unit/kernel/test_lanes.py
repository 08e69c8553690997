"""Long prompts have a tokenizer of their own: nobody else waits for them."""

from __future__ import annotations

import asyncio

import pytest

from llmos.abi import worker as msg
from llmos.abi.blob import BlobRef
from llmos.abi.inference import (
    ChatPrompt,
    ItemsPrompt,
    Prepared,
    PrepareItem,
    Prompt,
    TextPrompt,
    TokensPrompt,
)
from llmos.errors import ShuttingDown, WorkerLost
from llmos.ipc import memory
from llmos.kernel.lanes import LONG_BYTES, Lane, Tokenizers, lane_of

IMAGE = [{"type": "image", "blob": 0, "where": "messages.0.content.0"}]
LONG = TextPrompt("字" * (LONG_BYTES + 1))


class Processes:
    """Workers that are connected as soon as they are asked for; made within a running loop."""

    def __init__(self, timeout_s: float = 5.0) -> None:
        self.tokenizers = Tokenizers(timeout_s, discard=lambda request_id: None)
        self.started: list[Lane] = []
        self.killed: list[Lane] = []
        self.ends: dict[Lane, memory.MemoryChannel] = {}
        self.restarted = asyncio.Event()
        self.tokenizers.start(self)

    def start_tokenizer(self, lane: Lane) -> None:
        if lane in self.started:
            self.restarted.set()
        self.started.append(lane)
        ours, self.ends[lane] = memory.pair()
        self.tokenizers.changed(lane, ours, None)

    def lose(self, lane: Lane) -> None:
        self.tokenizers.changed(lane, None, WorkerLost("killed").to_info())

    def kill_tokenizer(self, lane: Lane) -> None:
        self.killed.append(lane)

    def ask(self, name: str, prompt: Prompt) -> asyncio.Task[Prepared]:
        return asyncio.ensure_future(self.tokenizers.prepare(item(name, prompt)))

    async def answer(self, lane: Lane) -> None:
        for message in await self.ends[lane].receive():
            for one in message.items:
                success = msg.PrepareSuccess(Prepared(one.request_id, b"", 0))
                self.tokenizers.answered(lane, msg.PrepareResults([success]))


def item(name: str, prompt: Prompt) -> PrepareItem:
    return PrepareItem(name, "e", "", prompt, 10)


def test_a_short_prompt_passes_a_long_one() -> None:
    async def main() -> None:
        processes = Processes()
        assert processes.started == [Lane.SHORT]  # the other one costs nothing until it is needed
        long, short = processes.ask("long", LONG), processes.ask("short", TextPrompt("字"))
        await processes.answer(Lane.SHORT)
        assert (await short).request_id == "short"
        assert not long.done()
        await processes.answer(Lane.LONG)
        assert (await long).request_id == "long"
        assert processes.started == [Lane.SHORT, Lane.LONG]

    asyncio.run(main())


def test_a_worker_that_dies_over_a_long_one_is_nobody_elses_end() -> None:
    async def main() -> None:
        processes = Processes()
        long, short = processes.ask("long", LONG), processes.ask("short", TextPrompt("字"))
        await processes.ends[Lane.SHORT].receive()
        await processes.ends[Lane.LONG].receive()
        processes.lose(Lane.LONG)
        with pytest.raises(WorkerLost):
            await long
        assert processes.tokenizers.is_up
        assert not short.done()
        again = processes.ask("again", LONG)
        await processes.restarted.wait()
        await processes.answer(Lane.LONG)
        assert (await again).request_id == "again"
        short.cancel()

    asyncio.run(main())


def test_none_follows_once_all_is_to_end() -> None:
    async def main() -> None:
        processes = Processes()
        asked = [processes.ask(name, LONG) for name in "ab"]
        await asyncio.sleep(0)
        await processes.ends[Lane.LONG].receive()
        processes.tokenizers.close()
        processes.lose(Lane.LONG)
        for answer in asked:
            with pytest.raises((ShuttingDown, WorkerLost)):
                await answer
        assert not processes.restarted.is_set()

    asyncio.run(main())


def test_a_stuck_one_is_killed_in_its_own_lane() -> None:
    async def main() -> None:
        processes = Processes(timeout_s=0.01)
        with pytest.raises(WorkerLost):
            await processes.ask("long", LONG)
        assert processes.killed == [Lane.LONG]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("prompt", "is_long"),
    [
        (TextPrompt("a" * LONG_BYTES), False),
        (LONG, True),
        (TokensPrompt([1] * 100), False),
        (TokensPrompt([100_000] * LONG_BYTES), True),
        (ChatPrompt([{"role": "user", "content": "hello"}] * 10), False),
        (ChatPrompt([{"role": "user", "content": "a" * 1000}] * 100), True),
        (ItemsPrompt("classify", ["a good film"] * 10), False),
        (ItemsPrompt("classify", ["a good film"] * LONG_BYTES), True),
        (ItemsPrompt("transcribe", [{"blob": 0}], blobs=[BlobRef("sha256:0", 1 << 20)]), True),
        (ItemsPrompt("image-classification", [{"blob": 0}], blobs=[BlobRef("sha256:0", 9)]), True),
        (ChatPrompt([{"role": "user", "content": IMAGE}], blobs=[BlobRef("sha256:0", 9)]), True),
    ],
)
def test_what_is_long(prompt: Prompt, is_long: bool) -> None:
    assert (lane_of(item("a", prompt)) is Lane.LONG) is is_long
