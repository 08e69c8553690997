"""The loop alone, over engines made up here: whose rows share a batch, and what a queue costs."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from llmos.abi.events import Aborted, Event, Finished, ItemOutput, Outputs
from llmos.abi.inference import Sampling, WorkItem
from llmos.drivers.encoder import payload
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.loop import ItemLoop
from llmos.drivers.encoder.payload import Item, Payload, Row
from llmos.drivers.encoder.work import Open, Work
from llmos.errors import EngineFailed, InvalidRequest

KIND = "lengths"


class Measuring:
    """An engine that knows how long a row is, and fails on those it dislikes."""

    limits = LIMITS

    def __init__(self, disliked: int = -1) -> None:
        self.batches: list[list[Row]] = []
        self._disliked = disliked

    def run(self, batch: Sequence[Work]) -> list[Any]:
        self.batches.append([work.row for work in batch])
        if any(work.row.length == self._disliked for work in batch):
            raise EngineFailed("it is broken")
        return [work.row.length for work in batch]


def finish(kind: str, opened: Open, params: dict[str, Any]) -> ItemOutput:
    if len(opened.results) > 3:
        raise InvalidRequest("too many rows")
    return ItemOutput(opened.item.index, {"lengths": opened.results})


def text(length: int) -> Row:
    return Row(length, array("i", range(length)).tobytes())


def work_item(name: str, items: list[list[Row]]) -> WorkItem:
    made = Payload([Item(i, rows) for i, rows in enumerate(items)], {})
    return WorkItem(name, b"", Sampling(), kind=KIND, payload=payload.encode(made))


def run(loop: ItemLoop) -> list[Event]:
    events: list[Event] = []
    while loop.can_move():
        events += loop.step()
    return events


def said(events: list[Event]) -> dict[int, Any]:
    outputs = [event for event in events if isinstance(event, Outputs)]
    return {one.index: one.error or one.value["lengths"] for e in outputs for one in e.items}


class Watched(deque[Work]):
    """A queue that counts how many of it were looked at."""

    num_seen = 0

    def __iter__(self) -> Iterator[Work]:
        for work in super().__iter__():
            self.num_seen += 1
            yield work


def test_a_batch_costs_no_look_at_the_whole_queue() -> None:
    engine = Measuring()
    loop = ItemLoop(engine, finish, [KIND])
    many = LIMITS.look_rows + 100
    loop.submit(work_item("req_a", [[text(1 + i % 7)] for i in range(many)]))
    (request,) = loop._requests.values()
    request.waiting = watched = Watched(request.waiting)
    loop.step()
    assert 0 < watched.num_seen <= LIMITS.look_rows + 1
    assert len(watched) == many - len(engine.batches[0])
    assert len(said(run(loop))) == many - len(engine.batches[0])


def test_what_is_left_stays_in_its_order() -> None:
    engine = Measuring()
    loop = ItemLoop(engine, finish, [KIND])
    loop.submit(work_item("req_a", [[text(20 if i % 3 else 400)] for i in range(60)]))
    loop.step()
    (request,) = loop._requests.values()
    left = [work.open.item.index for work in request.waiting]
    assert left == sorted(left)
    assert len(left) == 60 - len(engine.batches[0])


def test_rows_of_different_shapes_share_no_batch() -> None:
    """Equally long in their last direction all the same: that is no reason to put them together."""
    engine = Measuring()
    loop = ItemLoop(engine, finish, [KIND])
    shapes = [[3, 8, 8], [3, 4, 8], [3, 8, 8], [8]]
    loop.submit(work_item("req_a", [[Row(1, shape=shape)] for shape in shapes]))
    events = run(loop)
    assert isinstance(events[-1], Finished)
    assert [[row.shape for row in batch] for batch in engine.batches] == [
        [[3, 8, 8], [3, 8, 8]],
        [[3, 4, 8]],
        [[8]],
    ]


def test_an_engines_own_bounds_hold() -> None:
    engine = Measuring()
    engine.limits = msgspec.structs.replace(LIMITS, batch_rows=3, batch_tokens=20)
    loop = ItemLoop(engine, finish, [KIND])
    loop.submit(work_item("req_a", [[text(n)] for n in (5, 5, 5, 5, 9, 9, 9, 40)]))
    run(loop)
    assert [len(batch) for batch in engine.batches] == [3, 2, 2, 1]


def test_one_row_that_breaks_the_engine_takes_its_item_with_it() -> None:
    loop = ItemLoop(Measuring(disliked=6), finish, [KIND])
    items = [[text(5)], [text(5), text(6), text(5)], [text(6), text(6)], [text(5)] * 2]
    loop.submit(work_item("req_a", items))
    found = said(run(loop))
    assert found[0] == [5]
    assert found[3] == [5, 5]
    assert found[1].code == found[2].code == "engine_failed"
    assert len(found) == 4


def test_an_answer_that_cannot_be_made_is_its_items_alone() -> None:
    loop = ItemLoop(Measuring(), finish, [KIND])
    loop.submit(work_item("req_a", [[text(5)] * 4, [text(5)]]))
    found = said(run(loop))
    assert (found[0].code, found[1]) == ("invalid_request", [5])


def test_who_is_ended_is_told_so_once() -> None:
    loop = ItemLoop(Measuring(), finish, [KIND])
    loop.submit(work_item("req_a", [[text(5)]]))
    loop.submit(work_item("req_b", [[text(5)]]))
    loop.set_paused("req_b", True)
    assert loop.counts() == (1, 1)
    loop.abort("req_a", "the client left")
    loop.abort("req_a", "again")
    (end,) = run(loop)
    assert isinstance(end, Aborted)
    assert loop.counts() == (0, 1)


@pytest.mark.parametrize("kind", ["", "generate"])
def test_other_kinds_are_refused(kind: str) -> None:
    loop = ItemLoop(Measuring(), finish, [KIND])
    item = msgspec.structs.replace(work_item("req_a", [[text(5)]]), kind=kind)
    with pytest.raises(InvalidRequest, match="kind"):
        loop.submit(item)
