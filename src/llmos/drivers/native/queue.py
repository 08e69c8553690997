"""Who sits in which slot, and who waits: the driver's requests and their order."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from llmos.drivers.native.request import Request
from llmos.drivers.native.runner import Runner


class Seats:
    """Requests in slots and requests in line, in order of arrival.

    A paused request keeps its slot until somebody who waits needs it; then its KV is copied out.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._slots: list[Request | None] = [None] * runner.num_slots
        self._waiting: list[Request] = []
        self._by_id: dict[str, Request] = {}

    def __iter__(self) -> Iterator[Request]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, request_id: str) -> Request | None:
        """The request, wherever it is."""
        return self._by_id.get(request_id)

    def running(self) -> list[Request]:
        """Requests that hold a slot and are not paused, by ascending slot."""
        return [r for r in self._slots if r is not None and not r.paused]

    @property
    def idle(self) -> bool:
        """Whether a step would find nothing to do."""
        return not self._waiting and not self.running()

    def add(self, request: Request) -> None:
        """Stand in line."""
        self._by_id[request.request_id] = request
        self._wait(request)

    def remove(self, request: Request, *, broken: bool = False) -> None:
        """Leave, from wherever it is. `broken`: its KV may not be finite."""
        del self._by_id[request.request_id]
        if request.slot is not None:
            self._runner.leave(request, broken=broken)
            self._slots[request.slot] = None
            request.slot = None
        elif not request.paused:
            self._waiting.remove(request)

    def pause(self, request: Request) -> None:
        """Give up the row (or the place in line) and keep the KV."""
        if request.paused:
            return
        request.paused = True
        if request.slot is None:
            self._waiting.remove(request)

    def unpause(self, request: Request) -> None:
        """Go on, or stand in line again, at the place of one's arrival."""
        if not request.paused:
            return
        request.paused = False
        if request.slot is None:
            self._wait(request)

    def _wait(self, request: Request) -> None:
        bisect.insort(self._waiting, request, key=lambda waiting: waiting.order)

    def fill(self) -> None:
        """Seat those who wait, first come first, as far as there is room."""
        while self._waiting:
            slot = self._find_slot()
            if slot is None:
                return
            request = self._waiting[0]
            while not self._runner.seat(request, slot):
                if self._set_one_aside() is None:
                    return
            del self._waiting[0]
            request.slot = slot
            self._slots[slot] = request

    def _find_slot(self) -> int | None:
        for slot, request in enumerate(self._slots):
            if request is None:
                return slot
        return self._set_one_aside()

    def _set_one_aside(self) -> int | None:
        """A paused request makes room: the slot that is free now."""
        for slot, request in enumerate(self._slots):
            if request is not None and request.paused:
                self._runner.set_aside(request)
                request.slot = self._slots[slot] = None
                return slot
        return None
