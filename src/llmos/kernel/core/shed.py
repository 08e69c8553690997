"""A place in a full queue for a higher class: who of a lower one has to give up theirs."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import islice

from llmos.abi.events import Failed
from llmos.abi.principal import ServiceClass
from llmos.errors import QueueFull
from llmos.kernel.core.cost import Fresh
from llmos.kernel.core.lifecycle import close
from llmos.kernel.core.outlook import look
from llmos.kernel.core.replica import ModelFacts
from llmos.kernel.core.request import Request
from llmos.kernel.core.state import State

MOST_SHED = 64
"""Requests that one newcomer may cost at most; so an arrival stays cheap."""

KEPT_SHARE = 0.01
"""The part of a queue that a class keeps, whatever comes: else none of it is ever served."""


class Lack:
    """By how much a newcomer of `tokens` exceeds what its class may fill of each bound.

    `num_free` of those in the queue came just now, and have a row at the end of this step.
    """

    def __init__(
        self, state: State, model: ModelFacts, kind: ServiceClass, tokens: int, num_free: int = 0
    ) -> None:
        limits, share = state.limits, state.limits.share(kind)
        self.model_id = model.model_id
        self.num_here = len(state.queue(model.model_id)) + 1 - num_free
        self.num_here -= math.ceil(limits.max_waiting_per_model * share)
        self.num_in_all = state.num_waiting + 1 - num_free
        self.num_in_all -= math.ceil(limits.max_waiting * share)
        self.tokens = state.backlogs[model.model_id].tokens + tokens
        self.tokens -= math.ceil(limits.max_waiting_tokens * share)

    @property
    def is_here(self) -> bool:
        """Of one of the model's own bounds."""
        return self.num_here > 0 or self.tokens > 0

    @property
    def is_any(self) -> bool:
        return self.is_here or self.num_in_all > 0

    def give(self, request: Request) -> None:
        """As if it had left its queue."""
        self.num_in_all -= 1
        if request.model_id == self.model_id:
            self.num_here -= 1
            self.tokens -= request.queued_tokens


def pick(state: State, lack: Lack, kind: ServiceClass) -> list[Request] | None:
    """Whom of the lower classes to end, lowest and newest first; None: that would not do.

    Only who has never had a row, and no class down to less than its `KEPT_SHARE`. At most
    `MOST_SHED` are looked at in each queue.
    """
    victims: dict[str, Request] = {}
    here = state.backlogs[lack.model_id].fresh
    for service_class in sorted(ServiceClass):
        if service_class >= kind:
            break
        places: tuple[tuple[Fresh, Callable[[], bool]], ...] = (
            (here, lambda: lack.is_here),
            (state.fresh, lambda: lack.is_any),
        )
        spare = _Spare(state, service_class)
        for fresh, is_wanted in places:
            for request_id in islice(reversed(fresh[service_class]), MOST_SHED):
                if not is_wanted() or len(victims) >= MOST_SHED:
                    break
                request = state.requests[request_id]
                if request_id not in victims and spare.take(request.model_id):
                    victims[request_id] = request
                    lack.give(request)
    return None if lack.is_any else list(victims.values())


class _Spare:
    """How many of a class may be shed yet, by model."""

    def __init__(self, state: State, service_class: ServiceClass) -> None:
        limits = state.limits
        bound = min(limits.max_waiting, limits.max_waiting_per_model)
        self._num_kept = math.ceil(KEPT_SHARE * bound)
        self._state, self._class = state, service_class
        self._num_of: dict[str, int] = {}

    def take(self, model_id: str) -> bool:
        """One of the model, if it may be."""
        if model_id not in self._num_of:
            num = len(self._state.backlogs[model_id].fresh[self._class])
            self._num_of[model_id] = num - self._num_kept
        if self._num_of[model_id] <= 0:
            return False
        self._num_of[model_id] -= 1
        return True


def shed(state: State, victims: list[Request], kind: ServiceClass, now_ns: int) -> None:
    """End them, each with when to come again."""
    name = kind.name.lower()
    for request in victims:
        waiting, model = request.waiting, state.models[request.model_id]
        outlook = look(state, model, waiting, now_ns)
        error = QueueFull(
            f"a request of class {name} took its place in the full queue of {model.ref}",
            retry_after_s=max(1.0, round(outlook.wait_s, 1)),
            details={
                "position": outlook.num_ahead + 1,
                "reason": f"shed for class {name}",
                "eta_s": round(outlook.wait_s, 3),
                "waited_s": (now_ns - request.arrived_ns) / 1e9,
            },
        )
        close(state, waiting.request_id, Failed(waiting.request_id, error.to_info()), now_ns)
