"""What the driver asks of an engine that batches and draws by itself."""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable
from typing import Protocol

from llmos.abi.driver import ReplicaSpec
from llmos.abi.inference import Sampling, WorkItem
from llmos.drivers.resident import Resident
from llmos.drivers.text.answer import Answer
from llmos.errors import LLMOSError
from llmos.weights import ModelFacts

Progress = Callable[[float, str], None]


@dataclasses.dataclass(slots=True, eq=False)
class Row:
    """One request. `unsaid` was drawn, and is not part of the answer yet; `error`: it cannot go on.

    An engine that is given a row reads `known` and draws at most `num_left` tokens.
    """

    item: WorkItem
    prompt: list[int]
    answer: Answer
    seed: int
    unsaid: deque[int] = dataclasses.field(default_factory=deque)
    error: LLMOSError | None = None

    @property
    def request_id(self) -> str:
        return self.item.request_id

    @property
    def known(self) -> list[int]:
        return [*self.prompt, *self.answer.generated, *self.unsaid]

    @property
    def num_left(self) -> int:
        return self.answer.max_new - self._num_drawn

    @property
    def next_seed(self) -> int:
        """Of the draws that come now: an engine that begins anew must not repeat its first ones."""
        return (self.seed + self._num_drawn) & 0x7FFF_FFFF_FFFF_FFFF

    @property
    def _num_drawn(self) -> int:
        return len(self.answer.generated) + len(self.unsaid)


class Engine(Protocol):
    """Called by one thread, as the driver is. Rows are told apart by identity."""

    def check(self, sampling: Sampling, num_new: int) -> None:
        """Raises InvalidRequest for what the engine would not draw by."""
        ...

    def add(self, row: Row) -> None:
        """Join the batch, for the first time or once more."""
        ...

    def drop(self, row: Row) -> None:
        """Leave it. Of one that has ended by itself nothing happens."""
        ...

    def poll(self) -> None:
        """One iteration, or what has come since the last call: fills `unsaid` and `error` of rows.
        Raises EngineFailed: no row can go on, nor could another."""
        ...

    def has_work(self) -> bool:
        """Whether `poll` would find something."""
        ...

    def is_well(self) -> bool: ...

    def close(self) -> None:
        """Idempotent."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Opened:
    """An engine with its model, and what is to be said of it. `resident` counts all of its
    processes; `room_bytes`: what it may come to hold beside that. Of a device with memory of its
    own, weights and keys and values are there, and what it takes besides is not known."""

    engine: Engine
    dtype: str
    device: str
    context_length: int
    num_slots: int
    kv_token_bytes: int
    kv_reserved_bytes: int
    weights_bytes: int
    resident: Callable[[], Resident]
    room_bytes: int
    about: str
    warnings: list[str] = dataclasses.field(default_factory=list)


Open = Callable[[ReplicaSpec, ModelFacts, Progress], Opened]
"""Raises LoadFailed, ModelRejected."""
