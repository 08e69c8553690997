"""Weighted fair shares by service received (virtual token counters).

Source: Sheng et al., "Fairness in Serving Large Language Models", OSDI 2024, algorithm 2: serve the
active member with the smallest counter; a member that comes back is lifted to the smallest counter
among the active, so that idling earns nothing.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass


@dataclass(slots=True)
class _Member:
    """`counter`: service received per unit of weight, in tokens. `active`: some of it waits.

    `on_heap`: an entry of it is on the heap, active or not: there is never a second one.
    """

    counter: float = 0.0
    weight: float = 1.0
    num_open: int = 0
    active: bool = False
    on_heap: bool = False


class Shares:
    """Members by name; O(log n) in the number of active ones.

    Counters only grow, so each active member has one heap entry whose counter may be out of date
    and is put right when it surfaces. Equals are served in the order in which they came.
    """

    def __init__(self) -> None:
        self._members: dict[str, _Member] = {}
        self._heap: list[tuple[float, int, str]] = []
        self._num_pushed = 0
        self._floor = 0.0
        self.num_open = 0

    def __len__(self) -> int:
        return len(self._members)

    def enter(self, name: str, weight: float) -> None:
        """One more request of it is in the system. The first one lifts it to the others' level.

        Of several weights the largest counts, until nothing of it is open.
        """
        lowest = self._lowest()  # may forget the member, so it comes first
        member = self._members.setdefault(name, _Member())
        if member.num_open == 0:
            member.counter = max(member.counter, lowest)
            member.weight = weight
        member.weight = max(member.weight, weight)
        member.num_open += 1
        self.num_open += 1

    def exit(self, name: str) -> None:
        """One fewer. Who has nothing open and is owed nothing is forgotten."""
        member = self._members[name]
        member.num_open -= 1
        self.num_open -= 1
        if member.num_open == 0:
            self._forget(name, member)

    def _forget(self, name: str, member: _Member) -> None:
        """Unless it is owed less than others, or the heap still has its entry."""
        if not member.on_heap and member.counter <= self._lowest():
            self._members.pop(name, None)

    def activate(self, name: str) -> None:
        """Something of it waits. Idempotent."""
        member = self._members[name]
        member.active = True
        if not member.on_heap:
            member.on_heap = True
            self._num_pushed += 1
            heapq.heappush(self._heap, (member.counter, self._num_pushed, name))

    def deactivate(self, name: str) -> None:
        """Nothing of it waits any more; it may still be running."""
        self._members[name].active = False

    def first(self) -> str:
        """The active member that has been served least. Raises IndexError."""
        self._settle()
        return self._heap[0][2]

    def charge(self, name: str, tokens: float) -> None:
        """Service to a member that has entered, active or not."""
        member = self._members[name]
        member.counter += tokens / member.weight

    def counter(self, name: str) -> float:
        """Service so far of a member that has entered."""
        return self._members[name].counter

    def _lowest(self) -> float:
        self._settle()
        return self._floor

    def _settle(self) -> None:
        """Bring the smallest entry up to date; remember how far everyone has come."""
        while self._heap:
            counter, _, name = self._heap[0]
            member = self._members[name]
            if not member.active:
                heapq.heappop(self._heap)
                member.on_heap = False
                if member.num_open == 0 and member.counter <= self._floor:
                    del self._members[name]
            elif member.counter > counter:
                self._num_pushed += 1
                heapq.heapreplace(self._heap, (member.counter, self._num_pushed, name))
            else:
                self._floor = max(self._floor, counter)
                return
