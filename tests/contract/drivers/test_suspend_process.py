"""Suspended in one process, killed, resumed in another: over the real worker's socket."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from llmos.abi import worker as msg
from llmos.abi.blob import SnapshotRef
from llmos.abi.driver import ReplicaSpec
from llmos.abi.events import Event, Failed, Finished, Tokens
from llmos.abi.inference import WorkItem
from llmos.drivers.native.driver import NativeDriver
from tests.contract.drivers.worker_process import WorkerProcess
from tests.unit.drivers.tiny import drive, finished, make_item, make_spec, text, token_ids


@pytest.fixture
def workers(test_data: Path, tmp_path: Path) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    spec = spec_of(test_data, tmp_path)
    pair = WorkerProcess(spec), WorkerProcess(spec)
    yield pair
    for worker in pair:
        worker.close()


def spec_of(test_data: Path, tmp_path: Path) -> ReplicaSpec:
    return make_spec(
        test_data / "models" / "stories260k",
        scratch=str(tmp_path),
        snapshots=str(tmp_path / "snapshots"),
        num_slots=8,
        context_length=256,
        deterministic=True,
    )


def make_items() -> list[WorkItem]:
    """Of all kinds, more than there are rows."""
    rng = random.Random(8)
    return [
        make_item(
            f"r{n}",
            [rng.randrange(3, 512) for _ in range(rng.choice([1, 30, 130]))],
            seed=n,
            temperature=rng.choice([0.0, 1.0, 8.0]),
            frequency_penalty=rng.choice([0.0, 1.0]),
            max_tokens=100,
            stop=["☃", "e☃"],
            ignore_eos=True,
        )
        for n in range(14)
    ]


def expected_events(spec: ReplicaSpec, items: list[WorkItem]) -> dict[str, list[Event]]:
    num_threads = torch.get_num_threads()
    driver = NativeDriver()
    driver.load(spec, lambda fraction, what: None)
    events = drive(driver, items)
    driver.unload()
    torch.set_num_threads(num_threads)
    return events


def whole(said: dict[str, list[Event]]) -> dict[str, tuple[list[int], str, str]]:
    """Tokens, text and end of every answer."""
    ends = {name: finished(events) for name, events in said.items()}
    return {
        name: (token_ids(events), text(events), f"{ends[name].reason} {ends[name].stop}")
        for name, events in said.items()
    }


def test_a_dead_workers_requests_go_on_in_another(
    workers: tuple[WorkerProcess, WorkerProcess], test_data: Path, tmp_path: Path
) -> None:
    first, second = workers
    items = make_items()
    said: dict[str, list[Event]] = {item.request_id: [] for item in items}

    def hear(events: list[Event]) -> None:
        for event in events:
            said[event.request_id].append(event)

    first.send(msg.Submit(items))
    while sum(map(len, said.values())) < 200:
        hear(first.events())
    first.send(msg.Suspend([*said, "nobody"]))
    references: dict[str, SnapshotRef] = {}
    while len(references) < len(items):
        message = first.until(msg.Step, msg.Suspended)
        if isinstance(message, msg.Step):
            hear(message.events)
        elif isinstance(message, msg.Suspended):
            assert message.snapshot is not None, message.error
            references[message.request_id] = message.snapshot
    unknown = first.until(msg.Suspended)
    assert isinstance(unknown, msg.Suspended)
    assert unknown.error is not None
    assert (unknown.request_id, unknown.error.code) == ("nobody", "not_found")
    first.crash()

    for item in items:
        second.send(msg.Resume(item, references[item.request_id]))
    lost = items[0]
    second.send(msg.Resume(make_item("late", [5]), references[lost.request_id]))
    said["late"] = []
    while any(not events or isinstance(events[-1], Tokens) for events in said.values()):
        hear(second.events())
    (refused,) = said.pop("late")
    assert isinstance(refused, Failed)
    assert refused.error.code == "snapshot_rejected"
    assert all(isinstance(events[-1], Finished) for events in said.values())
    # which tokens share an event depends on who else was in the step
    expected = expected_events(spec_of(test_data, tmp_path), items)
    assert whole(said) == whole(expected)
