"""One request inside the GGUF driver: all that a snapshot of it has to hold."""

from __future__ import annotations

import dataclasses

from llmos.abi.events import Aborted, Event, Failed
from llmos.abi.inference import WorkItem
from llmos.drivers.sampling.rows import RowSampler
from llmos.drivers.text.answer import Answer
from llmos.errors import LLMOSError


@dataclasses.dataclass(slots=True, eq=False)
class Request:
    """`order` is its place in the queue. `exact`: it wants steps of its own; `only_exact`: so far
    it has had no other. `num_cached` tokens of `to_read` and the answer have their keys and values
    in sequence `slot`, or in `parked`. Neither: it has not begun.
    """

    item: WorkItem
    order: int
    to_read: list[int]
    exact: bool
    sampler: RowSampler
    answer: Answer
    num_cached: int = 0
    slot: int | None = None
    parked: memoryview | None = None
    paused: bool = False
    only_exact: bool = True

    @property
    def request_id(self) -> str:
        return self.item.request_id

    @property
    def prefilling(self) -> bool:
        return self.num_cached < len(self.to_read)

    def accept(self, token_id: int) -> list[Event]:
        """Take the drawn token: its tokens event, and the terminal one if it was the last."""
        self.sampler.note(token_id)
        return self.answer.accept(token_id, self.only_exact)

    def fail(self, error: LLMOSError) -> Failed:
        """The terminal event of a request that cannot go on."""
        return Failed(self.request_id, error.to_info(), self.answer.usage)

    def end(self, reason: str) -> Aborted:
        """The terminal event of a request that somebody ended."""
        return Aborted(self.request_id, reason, self.answer.usage)
