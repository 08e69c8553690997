"""Service classes: the higher one first, and a floor under the lower ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from llmos.abi.policy import Tuning, Waiting
from llmos.abi.principal import ServiceClass
from llmos.kernel.core.policies.order import Order

_HIGHEST_FIRST = sorted(ServiceClass, reverse=True)
_LOWEST_FIRST = sorted(ServiceClass)


EARLY_SHARE = 4
"""A row is kept for this part of a slice in any case, also against who was due sooner."""


class _Turn(NamedTuple):
    """Whose turn it is, whether on what its class has earned, and the highest class that waits."""

    head: Waiting
    on_credit: bool
    highest: ServiceClass


class ByClass:
    """One `Order` per class. A `Policy`.

    A lower class that waits earns `lowest_share` of the tokens the higher ones use; when it has
    earned a slice it gets one, and keeps the row for it.
    """

    def __init__(self, make_order: Callable[[], Order], tuning: Tuning) -> None:
        self._tuning = tuning
        self._slice_tokens = tuning.slice_tokens
        self._early_tokens = -(-tuning.slice_tokens // EARLY_SHARE)
        self._orders = {service_class: make_order() for service_class in ServiceClass}
        self._earned = dict.fromkeys(ServiceClass, 0.0)
        self._where: dict[str, ServiceClass] = {}
        self._on_credit: dict[str, None] = {}
        self._turn: _Turn | None = None  # asked for every row of every step

    def __len__(self) -> int:
        return len(self._where)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._where

    def join(self, waiting: Waiting) -> None:
        self._orders[waiting.service_class].join(waiting)

    def leave(self, waiting: Waiting) -> None:
        self._on_credit.pop(waiting.request_id, None)
        self._orders[waiting.service_class].leave(waiting)

    def push(self, waiting: Waiting) -> None:
        self._turn = None
        self._on_credit.pop(waiting.request_id, None)
        self._where[waiting.request_id] = waiting.service_class
        self._orders[waiting.service_class].push(waiting)

    def remove(self, request_id: str) -> None:
        service_class = self._where.pop(request_id, None)
        if service_class is not None:
            self._turn = None
            self._orders[service_class].remove(request_id)
            self._settle(service_class)

    def peek(self) -> Waiting:
        return self._next().head

    def pop(self) -> Waiting:
        head, on_credit, _ = self._next()
        service_class = head.service_class
        self._turn = None
        waiting = self._orders[service_class].pop()
        del self._where[waiting.request_id]
        if on_credit:
            self._earned[service_class] -= self._tuning.slice_tokens
            self._on_credit[waiting.request_id] = None
        self._settle(service_class)
        return waiting

    def _settle(self, service_class: ServiceClass) -> None:
        """What nobody waits for is not saved up."""
        if not len(self._orders[service_class]):
            self._earned[service_class] = 0.0

    def charge(self, waiting: Waiting, tokens: float) -> None:
        self._turn = None
        self._orders[waiting.service_class].charge(waiting, tokens)
        for lower in _LOWEST_FIRST:
            if lower >= waiting.service_class:
                break
            if len(self._orders[lower]):
                self._earned[lower] += tokens * self._tuning.lowest_share

    def yields(self, running: Waiting, slice_tokens: int) -> str | None:
        head, on_credit, highest = self._turn or self._next()
        kind, is_over = running.service_class, slice_tokens >= self._slice_tokens
        if highest <= kind and slice_tokens < self._early_tokens:
            return None  # what is asked most often comes first
        if not is_over and running.request_id in self._on_credit:
            return None
        if highest > kind:  # also when a lower one than both is to go before it
            return f"a request of class {highest.name.lower()} waits"
        if head.service_class == kind:
            return self._orders[kind].prefers(head, running, is_over)
        if is_over and on_credit:
            return f"class {head.service_class.name.lower()} has earned a slice"
        return None

    def share_ahead(self, newcomer: Waiting, service_class: ServiceClass) -> float:
        """Higher classes whole, of its own what its order says, lower ones not at all."""
        if service_class != newcomer.service_class:
            return float(service_class > newcomer.service_class)
        order = self._orders[service_class]
        return order.num_ahead(newcomer) / max(1, len(order))

    def gives_way(self, running: Waiting, newcomer: Waiting) -> int | None:
        """At once to a higher class, unless it runs on what its own has earned."""
        kind = running.service_class
        if kind > newcomer.service_class:
            return None
        if kind == newcomer.service_class and not self._orders[kind].takes_turns:
            return None
        is_kept = kind == newcomer.service_class or running.request_id in self._on_credit
        return self._slice_tokens if is_kept else 0

    def _next(self) -> _Turn:
        """Raises IndexError when nobody waits."""
        if self._turn is None:
            self._turn = self._find_turn()
        return self._turn

    def _find_turn(self) -> _Turn:
        highest = next((c for c in _HIGHEST_FIRST if len(self._orders[c])), None)
        if highest is None:
            raise IndexError("nobody waits")
        for lower in _LOWEST_FIRST:
            if len(self._orders[lower]) and self._earned[lower] >= self._tuning.slice_tokens:
                return _Turn(self._orders[lower].peek(), True, highest)
        return _Turn(self._orders[highest].peek(), False, highest)
