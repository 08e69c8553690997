"""Who gets which slot, who makes room for whom, and what becomes of one that can't be put back."""

from __future__ import annotations

import dataclasses

import pytest

from llmos.drivers.seats import Seats
from llmos.errors import EngineFailed


@dataclasses.dataclass
class Request:
    request_id: str
    order: int
    paused: bool = False
    slot: int | None = None


class Room:
    """Slots, and room for so many, which need not be as many. What is of `broken` is neither put
    back nor copied out."""

    def __init__(self, room: int, num_slots: int = 4) -> None:
        self.num_slots = num_slots
        self.room = room
        self.aside: list[str] = []
        self.broken: set[str] = set()

    def seat(self, request: Request, slot: int) -> bool:
        if request.request_id in self.broken:
            raise EngineFailed("its copy does not go back")
        if not self.room:
            return False
        self.room -= 1
        return True

    def set_aside(self, request: Request) -> None:
        if request.request_id in self.broken:
            raise EngineFailed("no room for its copy")
        self.aside.append(request.request_id)
        self.room += 1

    def leave(self, request: Request, *, broken: bool = False) -> None:
        self.room += 1


def seated(room: Room, *names: str) -> tuple[Seats[Request], list[Request]]:
    seats: Seats[Request] = Seats(room)
    requests = [Request(name, order) for order, name in enumerate(names)]
    for request in requests:
        seats.add(request)
    assert seats.fill() == []
    return seats, requests


def test_a_paused_one_in_the_first_slot_makes_room_at_once() -> None:
    room = Room(1)
    seats, (first, second) = seated(room, "a", "b")
    assert (first.slot, second.slot, room.aside) == (0, None, [])
    seats.pause(first)
    seats.fill()
    assert room.aside == ["a"]
    assert first.slot is None
    assert second.slot is not None


def test_a_paused_one_keeps_its_slot_while_nobody_wants_it() -> None:
    room = Room(2, num_slots=2)
    seats, (first, second) = seated(room, "a", "b")
    seats.pause(first)
    seats.fill()
    assert (first.slot, room.aside, seats.running()) == (0, [], [second])
    seats.unpause(first)
    assert seats.running() == [first, second]


def test_who_goes_on_stands_where_it_came() -> None:
    room = Room(1, num_slots=1)
    seats, (first, second, third) = seated(room, "a", "b", "c")
    seats.pause(first)
    seats.fill()
    assert (first.slot, second.slot) == (None, 0)
    seats.unpause(first)
    seats.remove(second)
    seats.fill()
    assert (first.slot, third.slot) == (0, None)
    assert seats.find("b") is None


def test_one_that_cannot_be_put_back_is_gone_and_the_others_sit() -> None:
    room = Room(2, num_slots=2)
    room.broken = {"b"}
    seats: Seats[Request] = Seats(room)
    requests = [Request(name, order) for order, name in enumerate("abc")]
    for request in requests:
        seats.add(request)
    failed = seats.fill()
    assert [(request.request_id, str(error)) for request, error in failed] == [
        ("b", "its copy does not go back")
    ]
    assert [request.request_id for request in seats.running()] == ["a", "c"]
    assert seats.find("b") is None
    assert room.room == 0


@pytest.mark.parametrize("room", [Room(1), Room(1, num_slots=1)], ids=["no room", "no slot"])
def test_one_that_cannot_be_copied_out_fails_and_nobody_else(room: Room) -> None:
    seats, (first, second) = seated(room, "a", "b")
    room.broken = {"a"}
    seats.pause(first)
    failed = seats.fill()
    assert [(request.request_id, str(error)) for request, error in failed] == [
        ("a", "no room for its copy")
    ]
    assert seats.running() == [second]
    assert (first.slot, len(seats), room.room) == (None, 1, 0)


def test_idle_is_when_a_step_finds_nothing() -> None:
    seats, (first,) = seated(Room(1), "a")
    assert not seats.idle
    seats.pause(first)
    assert seats.idle
    seats.remove(first)
    assert (seats.idle, len(seats), list(seats)) == (True, 0, [])
