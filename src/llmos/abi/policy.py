"""The Policy seam: in which order the waiting requests of one model get a row. Pure.

Built-in policies are plugins of the entry-point group `llmos.policies`, as anyone's are.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from llmos.abi.principal import ServiceClass


class Waiting(msgspec.Struct, frozen=True):
    """What a policy may know of a request. Times are monotonic ns of the kernel's clock.

    `arrival` counts arrivals at this kernel; `ready_ns` is when it came, or came back after a
    slice, and `ran_ns` how long it had had a row by then. `start_by_ns` is the last moment at
    which starting still meets the request's deadline; None without one.
    """

    request_id: str
    arrival: int
    ready_ns: int
    service_class: ServiceClass
    nice: int
    tenant_id: str
    principal_id: str
    weight: float
    prompt_tokens: int
    expected_tokens: int
    start_by_ns: int | None = None
    ran_ns: int = 0


class Tuning(msgspec.Struct, frozen=True):
    """What an operator may set of any policy.

    `slice_tokens`: a row is not taken from a request of equal class before it made so many; a
    quarter of them, if who waits was due before it.
    `nice_step_ns`: a request waits so much longer per point of nice: with nice from -20 to 19 no
    request is overtaken by one that came more than 39 steps after it. A deadline moves a request no
    further ahead than nice -20 does. One that comes back from a row is due later by as long as it
    ran, 6 steps at most, so then it is by none that came more than 45 steps after its return.
    `lowest_share`: the part of all tokens that a waiting lower class gets in any case.
    """

    slice_tokens: int = 64
    nice_step_ns: int = 500_000_000
    lowest_share: float = 0.01


class Policy(Protocol):
    """Orders what waits, and says when what runs should give way. O(log n) each, no clock.

    A request joins once, may be pushed and popped many times (new, and parked again), and leaves
    once, out of the queue or from its row.
    """

    def join(self, waiting: Waiting) -> None:
        """Accepted: it is in the system from now on, queued or running."""
        ...

    def leave(self, waiting: Waiting) -> None:
        """Ended."""
        ...

    def __len__(self) -> int: ...

    def __contains__(self, request_id: str) -> bool: ...

    def push(self, waiting: Waiting) -> None: ...

    def remove(self, request_id: str) -> None:
        """Out of the queue, not out of the system. Idempotent."""
        ...

    def peek(self) -> Waiting:
        """Who is next. Raises IndexError when nobody waits."""
        ...

    def pop(self) -> Waiting:
        """Who was next leaves. Raises IndexError when nobody waits."""
        ...

    def charge(self, waiting: Waiting, tokens: float) -> None:
        """The request has used so many tokens' worth of service (it is running, not waiting)."""
        ...

    def yields(self, running: Waiting, slice_tokens: int) -> str | None:
        """Why `running` should give its row to `peek()` after `slice_tokens` tokens, or None."""
        ...

    def share_ahead(self, newcomer: Waiting, service_class: ServiceClass) -> float:
        """Of those of the class that wait, the part that has a row before a newcomer, 0 to 1.

        An estimate for what people and clients are told, in O(1).
        """
        ...

    def gives_way(self, running: Waiting, newcomer: Waiting) -> int | None:
        """After how many tokens of a slice `running` gives its row to a newcomer; None: never."""
        ...


class MakePolicy(Protocol):
    """What an entry point of `llmos.policies` names."""

    def __call__(self, tuning: Tuning, /) -> Policy: ...
