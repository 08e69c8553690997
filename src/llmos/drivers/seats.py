"""Who sits in which slot, and who waits: a driver's requests and their order. Light: no engine."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from llmos.errors import EngineFailed


class Seated(Protocol):
    """What of a request the seats know: its place in line, and in which slot it is, if in one."""

    order: int
    paused: bool
    slot: int | None

    @property
    def request_id(self) -> str: ...


R = TypeVar("R", bound=Seated)
R_contra = TypeVar("R_contra", bound=Seated, contravariant=True)


class Room(Protocol[R_contra]):
    """Where the keys and values of requests lie."""

    num_slots: int

    def seat(self, request: R_contra, slot: int) -> bool:
        """Room for the KV of a request, that of its copy put into it. False: not now. Raises
        EngineFailed, and then nothing of the request is in the slot."""
        ...

    def leave(self, request: R_contra, *, broken: bool = False) -> None:
        """It has ended. `broken`: its KV may not be finite."""
        ...

    def set_aside(self, request: R_contra) -> None:
        """Copy its KV out, to free its room for another. Raises EngineFailed; it keeps its room."""
        ...


class Seats(Generic[R]):
    """Requests in slots and requests in line, in order of arrival.

    A paused request keeps its slot until somebody who waits needs it; then its KV is copied out.
    """

    def __init__(self, room: Room[R]) -> None:
        self._room = room
        self._slots: list[R | None] = [None] * room.num_slots
        self._waiting: list[R] = []
        self._by_id: dict[str, R] = {}

    def __iter__(self) -> Iterator[R]:
        return iter(self._by_id.values())

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, request_id: str) -> R | None:
        """The request, wherever it is."""
        return self._by_id.get(request_id)

    def running(self) -> list[R]:
        """Requests that hold a slot and are not paused, by ascending slot."""
        return [r for r in self._slots if r is not None and not r.paused]

    @property
    def idle(self) -> bool:
        """Whether a step would find nothing to do."""
        return not self._waiting and not self.running()

    def add(self, request: R) -> None:
        """Stand in line."""
        self._by_id[request.request_id] = request
        self._wait(request)

    def remove(self, request: R, *, broken: bool = False) -> None:
        """Leave, from wherever it is. `broken`: its KV may not be finite."""
        del self._by_id[request.request_id]
        if request.slot is not None:
            self._room.leave(request, broken=broken)
            self._slots[request.slot] = None
            request.slot = None
        elif not request.paused:
            self._waiting.remove(request)

    def pause(self, request: R) -> None:
        """Give up the row (or the place in line) and keep the KV."""
        if request.paused:
            return
        request.paused = True
        if request.slot is None:
            self._waiting.remove(request)

    def unpause(self, request: R) -> None:
        """Go on, or stand in line again, at the place of one's arrival."""
        if not request.paused:
            return
        request.paused = False
        if request.slot is None:
            self._wait(request)

    def _wait(self, request: R) -> None:
        bisect.insort(self._waiting, request, key=lambda waiting: waiting.order)

    def fill(self) -> list[tuple[R, EngineFailed]]:
        """Seat those who wait, first come first, as far as there is room. Those whose KV could not
        be put back, or not be copied out for another, are gone from here."""
        failed: list[tuple[R, EngineFailed]] = []
        while self._waiting:
            slot = self._find_slot(failed)
            if slot is None:
                break
            request = self._waiting[0]
            try:
                while not self._room.seat(request, slot):
                    if self._make_room(failed) is None:
                        return failed
            except EngineFailed as error:
                self.remove(request)
                failed.append((request, error))
                continue
            del self._waiting[0]
            request.slot = slot
            self._slots[slot] = request
        return failed

    def _find_slot(self, failed: list[tuple[R, EngineFailed]]) -> int | None:
        for slot, request in enumerate(self._slots):
            if request is None:
                return slot
        return self._make_room(failed)

    def _make_room(self, failed: list[tuple[R, EngineFailed]]) -> int | None:
        """A paused request's slot, which is free now: it was set aside, or could not be and has
        failed."""
        for slot, request in enumerate(self._slots):
            if request is not None and request.paused:
                try:
                    self._room.set_aside(request)
                except EngineFailed as error:
                    self.remove(request)
                    failed.append((request, error))
                else:
                    request.slot = self._slots[slot] = None
                return slot
        return None
