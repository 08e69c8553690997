"""One request inside the driver: rows that wait, items that are half done, what was said of it."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from llmos.abi.events import ItemOutput
from llmos.abi.inference import WorkItem
from llmos.drivers.encoder.payload import Item, Payload, Row


@dataclass(slots=True, eq=False)
class Open:
    """An item whose rows are not all computed. `results` are by row."""

    item: Item
    results: list[Any]
    num_left: int


def num_given(opened: Open) -> int:
    """Tokens of the prompt that its text goes on from."""
    about = opened.item.about
    return len(about.get("prompt", ())) if isinstance(about, dict) else 0


@dataclass(slots=True, eq=False)
class Work:
    """One row on its way: whose, and which."""

    request: Request
    open: Open
    at: int

    @property
    def row(self) -> Row:
        return self.open.item.rows[self.at]


@dataclass(slots=True, eq=False)
class Request:
    """`waiting` are its rows, in order; `ready` what was answered and not said yet.

    `order` grows with every request; `num_left` items are not answered; `cost` is all of it;
    `num_made` tokens of text were made.
    """

    item: WorkItem
    order: int
    params: dict[str, Any]
    cost: int
    waiting: deque[Work] = field(default_factory=deque)
    ready: list[ItemOutput] = field(default_factory=list)
    num_left: int = 0
    num_made: int = 0
    is_paused: bool = False

    @property
    def request_id(self) -> str:
        return self.item.request_id

    @property
    def is_over(self) -> bool:
        return self.num_left == 0


def open_request(item: WorkItem, payload: Payload, order: int) -> Request:
    """All its rows wait, but for those of items that were answered before."""
    done = set(array("i", item.generated))
    cost = sum(row.cost for one in payload.items for row in one.rows)
    request = Request(item, order, payload.params, cost)
    for one in payload.items:
        if one.index in done:
            continue
        request.num_left += 1
        if one.error is not None:
            _say(request, ItemOutput(one.index, error=one.error))
            continue
        opened = Open(one, [None] * len(one.rows), len(one.rows))
        request.waiting.extend(Work(request, opened, at) for at in range(len(one.rows)))
    return request


def answer(request: Request, output: ItemOutput) -> None:
    """One item is done."""
    _say(request, output)


def _say(request: Request, output: ItemOutput) -> None:
    request.ready.append(output)
    request.num_left -= 1


def drop_item(request: Request, opened: Open) -> None:
    """Its other rows are not computed: it has failed."""
    kept = [work for work in request.waiting if work.open is not opened]
    request.waiting.clear()
    request.waiting.extend(kept)


def in_turns(requests: Iterable[Request], most: int) -> list[Work]:
    """The first rows that wait: higher classes first, then one of each request in turns."""
    able = [r for r in requests if r.waiting and not r.is_paused]
    able.sort(key=lambda r: (-int(r.item.service_class), r.order))
    found: list[Work] = []
    of_class: dict[int, list[Request]] = {}
    for request in able:
        of_class.setdefault(int(request.item.service_class), []).append(request)
    for group in of_class.values():
        found += _round_robin(group, most - len(found))
        if len(found) >= most:
            break
    return found


def _round_robin(group: list[Request], most: int) -> list[Work]:
    found: list[Work] = []
    rows = [iter(request.waiting) for request in group]
    while rows and len(found) < most:
        left = []
        for waiting in rows:
            work = next(waiting, None)
            if work is not None and len(found) < most:
                found.append(work)
                left.append(waiting)
        rows = left
    return found
