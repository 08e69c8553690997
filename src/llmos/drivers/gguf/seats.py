"""Who sits in which sequence, and who waits: the driver's requests and their order."""

from __future__ import annotations

import bisect
from collections.abc import Iterator

from llmos.drivers.gguf.engine import Engine
from llmos.drivers.gguf.request import Request
from llmos.errors import EngineFailed


class Seats:
    """Requests in sequences and requests in line, in order of arrival.

    A paused request keeps its sequence until somebody who waits needs it; then its keys and values
    are copied out of it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._slots: list[Request | None] = [None] * engine.num_slots
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
        """Requests that hold a sequence and are not paused, in order of sequence."""
        return [r for r in self._slots if r is not None and not r.paused]

    def taken(self) -> list[int]:
        """Sequences with keys and values that are somebody's."""
        return [n for n, r in enumerate(self._slots) if r is not None and r.num_cached]

    @property
    def idle(self) -> bool:
        """Whether a step would find nothing to do."""
        return not self._waiting and not self.running()

    def add(self, request: Request) -> None:
        """Stand in line."""
        self._by_id[request.request_id] = request
        self._wait(request)

    def remove(self, request: Request) -> None:
        """Leave, from wherever it is."""
        del self._by_id[request.request_id]
        if request.slot is not None:
            self._free(request)
        elif not request.paused:
            self._waiting.remove(request)

    def _free(self, request: Request) -> None:
        assert request.slot is not None
        self._slots[request.slot] = None
        self._engine.forget(request.slot)
        request.slot = None

    def pause(self, request: Request) -> None:
        """Give up the row (or the place in line) and keep the keys and values."""
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

    def fill(self) -> list[tuple[Request, EngineFailed]]:
        """Seat those who wait, first come first, as far as there are sequences. Those whose keys
        and values could not be put back are gone from here."""
        failed = []
        while self._waiting and (slot := self._find_slot()) is not None:
            request = self._waiting.pop(0)
            request.slot = slot
            self._slots[slot] = request
            if request.parked is None:
                continue
            try:
                self._engine.restore(slot, request.parked)
                request.parked = None
            except EngineFailed as error:
                self.remove(request)
                failed.append((request, error))
        return failed

    def _find_slot(self) -> int | None:
        for slot, request in enumerate(self._slots):
            if request is None:
                return slot
        for slot, request in enumerate(self._slots):
            if request is not None and request.paused:
                if request.num_cached:
                    request.parked = self._engine.state(slot)
                self._free(request)
                return slot
        return None
