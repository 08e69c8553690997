"""What every driver owes that answers item by item: one suite, every such driver."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi import worker as msg
from llmos.abi.driver import Driver, LoadReport, Preparer
from llmos.abi.events import Aborted, Event, Finished, ItemOutput, Outputs
from llmos.abi.inference import ItemsPrompt, Prepared, PrepareItem, Sampling, TextPrompt, WorkItem
from llmos.boot import driver_entry
from llmos.drivers.catalog import DRIVERS, FORMATS
from llmos.errors import InvalidRequest, LLMOSError, LoadFailed, ModelRejected, UserError
from tests.contract.drivers.kits import ITEM_KITS, ItemKit
from tests.contract.drivers.subject import resolve
from tests.contract.drivers.worker_process import WorkerProcess
from tests.unit.drivers.tiny import make_spec

TEXTS = ["the cat sat", "it is good", "who lives in new york and where is it", "bad"]


@dataclass
class Items:
    """A loaded driver, its preparer, and what it is asked for."""

    driver: Driver
    preparer: Preparer
    report: LoadReport
    kit: ItemKit
    folder: Path
    progress: list[float]

    def prepare(self, items: list[Any], params: dict[str, Any] | None = None) -> Prepared:
        prompt = ItemsPrompt(self.kit.kind, items, params or {})
        asked = PrepareItem(
            "r", "", str(self.folder), prompt, 1 << 20, kind=self.kit.kind, context_length=64
        )
        return self.preparer.prepare(asked)

    def item(self, name: str, items: list[Any], **fields: Any) -> WorkItem:
        made = self.prepare(items)
        return WorkItem(
            name, made.tokens, Sampling(), kind=self.kit.kind, payload=made.payload, **fields
        )

    def run(self, *asked: WorkItem) -> dict[str, list[Event]]:
        for one in asked:
            self.driver.submit(one)
        events: dict[str, list[Event]] = {one.request_id: [] for one in asked}
        while self.driver.wait_s() is not None:
            for event in self.driver.step():
                events.setdefault(event.request_id, []).append(event)
        return events


def said(events: list[Event]) -> list[ItemOutput]:
    """Each item once, by index; then exactly one end."""
    *outputs, last = events
    assert isinstance(last, Finished), last
    assert all(isinstance(event, Outputs) for event in outputs)
    found = [one for event in outputs if isinstance(event, Outputs) for one in event.items]
    assert len({one.index for one in found}) == len(found)
    return sorted(found, key=lambda one: one.index)


@pytest.fixture(scope="session")
def item_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(f"items-{name}")
            ITEM_KITS[name].make_model(made[name])
        return made[name]

    return folder


@pytest.fixture(params=sorted(ITEM_KITS))
def items(
    request: pytest.FixtureRequest,
    require: Callable[[str], None],
    item_folder: Callable[[str], Path],
    tmp_path: Path,
) -> Iterator[Items]:
    import torch

    name: str = request.param
    require(name)
    num_threads = torch.get_num_threads()
    driver: Driver = resolve(DRIVERS[name].entry)()
    folder, progress = item_folder(name), list[float]()
    report = driver.load(
        make_spec(folder, scratch=str(tmp_path)), lambda fraction, what: progress.append(fraction)
    )
    preparer = resolve(DRIVERS[name].prepare)(str(folder))
    yield Items(driver, preparer, report, ITEM_KITS[name], folder, progress)
    driver.unload()
    torch.set_num_threads(num_threads)


@pytest.mark.verb("load")
def test_load_reports(items: Items) -> None:
    assert items.progress == sorted(items.progress)
    assert items.progress[-1] == 1.0
    assert items.report.memory.weights_bytes > 0
    items.driver.unload()
    items.driver.unload()
    assert not items.driver.health().ok


@pytest.mark.verb("prepare")
def test_prepare(items: Items) -> None:
    made = items.prepare(TEXTS)
    assert made.num_tokens > 0
    assert made.payload
    for wrong in ([], None):
        with pytest.raises(InvalidRequest):
            items.prepare(wrong or [])
    with pytest.raises(InvalidRequest):
        asked = PrepareItem(
            "r", "", "", TextPrompt("a"), 300, kind=items.kit.kind, context_length=64
        )
        items.preparer.prepare(asked)


@pytest.mark.verb("submit")
def test_each_item_is_answered_once(items: Items) -> None:
    assert items.driver.wait_s() is None
    found = said(items.run(items.item("a", TEXTS))["a"])
    assert [one.index for one in found] == [0, 1, 2, 3]
    assert all(one.data and one.error is None for one in found)
    assert len({one.data for one in found}) == 4
    assert items.driver.health().num_running == 0


@pytest.mark.verb("batch")
def test_neighbours_change_nothing(items: Items) -> None:
    alone = [vector(said(items.run(items.item("a", [text]))["a"])[0]) for text in TEXTS]
    asked = [items.item(f"r{n}", [text, *TEXTS]) for n, text in enumerate(TEXTS)]
    together = items.run(*asked)
    for n in range(4):
        assert vector(said(together[f"r{n}"])[0]) == pytest.approx(alone[n], abs=1e-5)


@pytest.mark.verb("batch")
def test_many(items: Items) -> None:
    events = items.run(*(items.item(f"r{n}", TEXTS[: 1 + n % 4]) for n in range(80)))
    assert {name: len(said(of)) for name, of in events.items()} == {
        f"r{n}": 1 + n % 4 for n in range(80)
    }


@pytest.mark.verb("pause")
def test_a_paused_one_waits(items: Items) -> None:
    items.driver.submit(items.item("a", TEXTS))
    items.driver.pause("a")
    assert items.driver.health().num_paused == 1
    assert set(items.run(items.item("b", TEXTS))) == {"b"}
    items.driver.unpause("a")
    assert len(said(items.run()["a"])) == 4


@pytest.mark.verb("abort")
def test_abort(items: Items) -> None:
    items.driver.submit(items.item("a", TEXTS))
    items.driver.submit(items.item("b", TEXTS))
    items.driver.abort("a", "no more")
    items.driver.abort("a", "twice")
    events = items.run()
    last = events["a"][-1]
    assert isinstance(last, Aborted)
    assert last.reason == "no more"
    assert len(said(events["b"])) == 4


@pytest.mark.verb("recompute")
def test_it_goes_on_after_items_that_are_answered(items: Items) -> None:
    whole = said(items.run(items.item("a", TEXTS))["a"])
    rest = items.item("a", TEXTS, generated=array("i", [0, 2]).tobytes())
    found = said(items.run(rest)["a"])
    assert [one.index for one in found] == [1, 3]
    for one in found:
        assert vector(one) == pytest.approx(vector(whole[one.index]), abs=1e-5)


@pytest.mark.verb("recompute")
def test_it_takes_no_snapshots(items: Items) -> None:
    items.driver.submit(items.item("a", TEXTS))
    with pytest.raises(LLMOSError):
        items.driver.suspend("a")
    assert len(said(items.run()["a"])) == 4


@pytest.mark.verb("crash")
def test_its_requests_go_on_elsewhere(items: Items, tmp_path: Path) -> None:
    """Killed in mid-request: the items that were answered are enough to go on by."""
    name = items.driver.capabilities.driver
    item, spec = items.item("a", TEXTS * 100), make_spec(items.folder, scratch=str(tmp_path))
    first = WorkerProcess(spec, name)
    try:
        first.send(msg.Submit([item]))
        done = {one.index for e in first.events() if isinstance(e, Outputs) for one in e.items}
        first.crash()
    finally:
        first.close()
    assert 0 < len(done) < 400
    second = WorkerProcess(spec, name)
    try:
        again = msgspec.structs.replace(item, generated=array("i", sorted(done)).tobytes())
        second.send(msg.Submit([again]))
        rest: list[Event] = []
        while not rest or isinstance(rest[-1], Outputs):
            rest += second.events()
    finally:
        second.close()
    assert [one.index for one in said(rest)] == [n for n in range(400) if n not in done]


@pytest.mark.verb("memory")
def test_bounds_hold(items: Items) -> None:
    memory = items.driver.memory()
    assert memory.bound_bytes >= memory.rss_bytes
    assert memory.peak_bytes >= memory.rss_bytes
    items.run(items.item("a", TEXTS * 50))
    assert items.driver.memory().rss_bytes <= memory.bound_bytes


@pytest.mark.verb("capabilities")
def test_the_catalog_knows_the_capabilities(items: Items) -> None:
    can = items.driver.capabilities
    entry = driver_entry(can.driver)
    assert (entry.snapshots, entry.parks) == (can.snapshots, can.parks)
    assert can.formats == FORMATS[can.driver]
    assert items.kit.kind in can.kinds
    for verb in (items.driver.park, items.driver.unpark):
        with pytest.raises(LLMOSError):
            verb()
    with pytest.raises(LLMOSError):
        items.driver.attach("x", {})


@pytest.mark.verb("bad input")
def test_one_bad_item_fails_alone(items: Items) -> None:
    found = said(items.run(items.item("a", ["the cat", {"text": 5}, [10**9], "good"]))["a"])
    assert [one.error is not None for one in found] == [False, True, True, False]
    assert all(one.error.code == "invalid_request" for one in found if one.error)


@pytest.mark.verb("bad input")
@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "generate"},
        {"adapter": "nobody"},
        {"options": {"no such option": 1}},
        {"payload": b"\xff"},
        {"payload": b""},
    ],
    ids=str,
)
def test_items_it_cannot_honour(items: Items, fields: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        items.driver.submit(msgspec.structs.replace(items.item("a", TEXTS), **fields))
    assert items.driver.wait_s() is None


@pytest.mark.verb("bad input")
def test_folders_that_are_none(items: Items, tmp_path: Path) -> None:
    driver: Driver = resolve(DRIVERS[items.driver.capabilities.driver].entry)()
    for spec in (make_spec(tmp_path), make_spec(items.folder, options={"nonsense": 1})):
        with pytest.raises((LoadFailed, ModelRejected)):
            driver.load(spec, lambda fraction, what: None)
    for path in items.folder.iterdir():
        data = path.read_bytes() if path.is_file() else b""
        cut = path.suffix in (".onnx", ".safetensors")
        (tmp_path / path.name).write_bytes(data[: len(data) // 2] if cut else data)
    with pytest.raises((LoadFailed, ModelRejected)):
        driver.load(make_spec(tmp_path), lambda fraction, what: None)


def vector(output: ItemOutput) -> list[float]:
    return array("f", output.data).tolist()
