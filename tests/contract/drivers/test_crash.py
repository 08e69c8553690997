"""What is left to the kernel when a worker dies: every driver, over the real socket."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from llmos.abi import worker as msg
from llmos.abi.channel import ChannelClosed
from llmos.abi.events import Event, Failed, Finished, Tokens
from llmos.abi.inference import WorkItem
from tests.contract.drivers.conftest import FolderOf
from tests.contract.drivers.kits import KITS
from tests.contract.drivers.subject import open_subject
from tests.contract.drivers.worker_process import WorkerProcess
from tests.unit.drivers.tiny import make_spec

pytestmark = pytest.mark.verb("crash")

NUM_TOKENS = 40
Start = Callable[[], WorkerProcess]


@pytest.fixture
def start(driver_name: str, folder_of: FolderOf, tmp_path: Path) -> Iterator[Start]:
    """A worker of the driver with its small model."""
    started: list[WorkerProcess] = []
    options = KITS[driver_name].options
    spec = make_spec(folder_of(driver_name), scratch=str(tmp_path), options=options)

    def one() -> WorkerProcess:
        started.append(WorkerProcess(spec, driver_name))
        return started[-1]

    yield one
    for worker in started:
        worker.close()


@pytest.fixture
def items(driver_name: str, folder_of: FolderOf, tmp_path: Path) -> list[WorkItem]:
    subject = open_subject(driver_name, folder_of(driver_name), tmp_path / "here")
    found = [subject.item(f"r{n}", NUM_TOKENS) for n in range(3)]
    subject.driver.unload()
    return found


def tokens_of(events: list[Event]) -> list[int]:
    return [i for event in events if isinstance(event, Tokens) for i in event.token_ids]


def hear(worker: WorkerProcess, items: list[WorkItem], num: int) -> dict[str, list[Event]]:
    """Until every request has said so many tokens, or has ended."""
    said: dict[str, list[Event]] = {item.request_id: [] for item in items}

    def is_done(events: list[Event]) -> bool:
        return len(tokens_of(events)) >= num or bool(events and not isinstance(events[-1], Tokens))

    while not all(map(is_done, said.values())):
        for event in worker.events():
            said[event.request_id].append(event)
    return said


def slowed(item: WorkItem) -> WorkItem:
    """An echo would be at its end before anybody could kill it."""
    return msgspec.structs.replace(item, options=item.options | {"delay_ms": 20})


def test_its_requests_go_on_elsewhere(
    start: Start, items: list[WorkItem], driver_name: str
) -> None:
    """Killed in mid-answer: the tokens that were heard are enough to go on by."""
    first = start()
    first.send(msg.Submit(items))
    expected = {r: tokens_of(e) for r, e in hear(first, items, NUM_TOKENS + 1).items()}
    slow = [slowed(item) if driver_name == "echo" else item for item in items]
    first.send(msg.Submit(slow))
    said = hear(first, slow, 5)
    first.crash()
    with pytest.raises(ChannelClosed):
        for _ in range(1000):  # what was on its way still arrives, in order
            for event in first.events():
                said[event.request_id].append(event)
    second = start()
    left = []
    for item in items:
        heard = array("i", tokens_of(said[item.request_id])).tobytes()
        left.append(msgspec.structs.replace(item, generated=heard))
    second.send(msg.Submit(left))
    rest = hear(second, left, NUM_TOKENS + 1)
    for item in items:
        name = item.request_id
        assert isinstance(rest[name][-1], Finished)
        assert tokens_of(said[name]) + tokens_of(rest[name]) == expected[name]


def test_one_bad_item_does_not_end_it(start: Start, items: list[WorkItem]) -> None:
    worker = start()
    bad = msgspec.structs.replace(items[0], request_id="bad", options={"no such option": 1})
    worker.send(msg.Submit([bad, items[0]]))
    said = hear(worker, [bad, items[0]], NUM_TOKENS + 1)
    assert isinstance(said["bad"][-1], Failed)
    assert isinstance(said[items[0].request_id][-1], Finished)
