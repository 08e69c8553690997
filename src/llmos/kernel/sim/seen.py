"""What a witness has seen of a request and of a replica."""

from __future__ import annotations

from dataclasses import dataclass, field

from llmos.abi.policy import Waiting
from llmos.kernel.core.replica import ModelFacts

MAX_RESUMES = 2
"""Of a snapshot, without a token in between."""


@dataclass(slots=True)
class Seen:
    """An accepted request. `replica_id` None: it is on no worker. `since_ns`: when it came (back).

    `has_snapshot`: one that still holds. `is_held`: an operator wants it off the machine.
    `num_taken`: rows that higher classes took from it; `comes_first` for that, or for its model's
    giving way; `may_come_first`: perhaps. `is_on_credit`: it ran while a higher class waited.
    """

    waiting: Waiting
    model: ModelFacts
    since_ns: int
    is_reniced: bool = False
    is_stalled: bool = False
    stalled_ns: int | None = None
    is_aborted: bool = False
    is_held: bool = False
    is_leaving: bool = False
    has_run: bool = False
    replica_id: str | None = None
    has_snapshot: bool = False
    memory_owner: str | None = None
    leaving_owner: str | None = None
    num_resumes: int = 0
    num_suspensions: int = 0
    num_tokens: int = 0
    num_taken: int = 0
    comes_first: bool = False
    may_come_first: bool = False
    is_on_credit: bool = False

    @property
    def request_id(self) -> str:
        return self.waiting.request_id

    @property
    def model_id(self) -> str:
        return self.model.model_id

    @property
    def context_tokens(self) -> int:
        return self.waiting.prompt_tokens + self.num_tokens

    @property
    def outlives(self) -> bool:
        """Its worker's death."""
        return self.has_snapshot and self.num_resumes <= MAX_RESUMES and not self.is_aborted


@dataclass(slots=True)
class Host:
    """A replica from its start to the death of its process.

    `ready_ns`: when it was last up or back; `began_ns`: when that was asked for. `leaving`: who is
    being suspended on it. `has_made`: an answer, or a part of one, since then. `free_bytes`: the
    least that was free for what is paused since it last `has_moved`.
    """

    model: ModelFacts
    num_slots: int
    began_ns: int
    is_up: bool = False
    is_stopping: bool = False
    is_parking: bool = False
    is_parked: bool = False
    is_unparking: bool = False
    is_draining: bool = False
    began_draining: bool = False
    has_served: bool = False
    has_made: bool = False
    has_moved: bool = False
    free_bytes: int = -1
    up_ns: int | None = None
    ready_ns: int | None = None
    idle_since_ns: int = 0
    keep_alive_ns: int = 0
    running: set[str] = field(default_factory=set)
    parked: set[str] = field(default_factory=set)
    leaving: set[str] = field(default_factory=set)

    @property
    def model_id(self) -> str:
        return self.model.model_id

    @property
    def takes_new(self) -> bool:
        away = self.is_stopping or self.is_parking or self.is_parked or self.is_unparking
        return self.is_up and not away and not self.is_draining

    @property
    def requests(self) -> list[str]:
        return [*self.running, *self.parked, *self.leaving]
