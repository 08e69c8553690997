"""Who makes room for whom, over a runner whose room is not that of its slots."""

from __future__ import annotations

from typing import Any

from llmos.drivers.native.queue import Seats
from llmos.drivers.native.request import Request
from llmos.drivers.native.sampling import RowSampler
from llmos.drivers.text.stop import StopStrings
from tests.unit.drivers.tiny import make_item


class Room:
    """A runner of four slots with room for so many."""

    num_slots = 4

    def __init__(self, room: int) -> None:
        self.room = room
        self.aside: list[str] = []

    def seat(self, request: Request, slot: int) -> bool:
        if not self.room:
            return False
        self.room -= 1
        return True

    def set_aside(self, request: Request) -> None:
        self.aside.append(request.request_id)
        self.room += 1

    def leave(self, request: Request, *, broken: bool = False) -> None:
        self.room += 1


def waiting(name: str, order: int) -> Request:
    item = make_item(name, [5])
    return Request(
        item=item,
        order=order,
        prompt=[5],
        max_new=3,
        eos_ids=frozenset(),
        exact=True,
        sampler=RowSampler(item.sampling, [5]),
        stops=StopStrings([]),
        detokenizer=None,
    )


def test_a_paused_one_in_the_first_slot_makes_room_at_once() -> None:
    room: Any = Room(1)
    seats = Seats(room)
    first, second = waiting("a", 1), waiting("b", 2)
    seats.add(first)
    seats.fill()
    assert first.slot == 0
    seats.add(second)
    seats.fill()
    assert (second.slot, room.aside) == (None, [])
    seats.pause(first)
    seats.fill()
    assert room.aside == ["a"]
    assert first.slot is None
    assert second.slot is not None
