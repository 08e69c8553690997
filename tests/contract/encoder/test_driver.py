"""The contract: who is ended, paused, computed again; what of a batch fails, and what does not."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.events import Aborted, Finished, Outputs
from llmos.abi.principal import ServiceClass
from llmos.drivers.encoder.compute import Computer
from llmos.drivers.encoder.driver import EncoderDriver
from llmos.drivers.encoder.limits import LIMITS
from llmos.errors import (
    Conflict,
    EngineFailed,
    InvalidRequest,
    LoadFailed,
    ModelRejected,
    UnsupportedParameter,
)
from tests.contract.encoder.conftest import MakeFolder
from tests.unit.drivers.encoder.folders import load, outputs, prepared, work_item
from tests.unit.drivers.tiny import drive, make_spec

KIND = "text-classification"
MANY = [f"the cat sat on {'a ' * (i % 9)}mat" for i in range(3 * LIMITS.batch_rows)]


@pytest.fixture
def folder(folder_of: MakeFolder) -> Path:
    return folder_of("classes")


@pytest.fixture
def driver(folder: Path) -> EncoderDriver:
    return load(folder)


def _item(folder: Path, name: str, texts: list[Any], **fields: Any) -> Any:
    return work_item(name, KIND, prepared(folder, KIND, texts), **fields)


def test_requests_share_batches_and_each_item_is_said_once(
    folder: Path, driver: EncoderDriver
) -> None:
    items = [_item(folder, f"req_{i}", MANY[i::4]) for i in range(4)]
    steps = 0

    def count(_: int) -> None:
        nonlocal steps
        steps += 1

    events = drive(driver, items, count)
    for i in range(4):
        said = outputs(events[f"req_{i}"])
        assert [item.index for item in said] == list(range(len(MANY[i::4])))
        end = events[f"req_{i}"][-1]
        assert isinstance(end, Finished)
        assert end.usage.prompt_tokens == prepared(folder, KIND, MANY[i::4]).num_tokens
    assert steps < len(MANY) / 8
    assert driver.wait_s() is None


def test_one_that_is_ended_says_no_more(folder: Path, driver: EncoderDriver) -> None:
    driver.submit(_item(folder, "req_a", MANY))
    driver.submit(_item(folder, "req_b", MANY[:2]))
    before = driver.step()
    driver.abort("req_a", "the client left")
    driver.abort("req_unknown", "nobody")
    events = [*before, *(event for of_one in drive(driver).values() for event in of_one)]
    assert [type(e) for e in events if e.request_id == "req_a"] == [Outputs, Aborted]
    assert [type(e) for e in events if e.request_id == "req_b"] == [Outputs, Finished]


def test_one_that_is_paused_waits(folder: Path, driver: EncoderDriver) -> None:
    driver.submit(_item(folder, "req_a", MANY[:3]))
    driver.pause("req_a")
    assert driver.wait_s() is None
    assert driver.health().num_paused == 1
    assert driver.step() == []
    driver.unpause("req_a")
    assert len(outputs(drive(driver)["req_a"])) == 3


def test_one_computed_again_answers_the_rest_alone(folder: Path, driver: EncoderDriver) -> None:
    whole = outputs(drive(driver, [_item(folder, "req_a", MANY[:5])])["req_a"])
    done = array("i", [0, 3]).tobytes()
    rest = outputs(drive(driver, [_item(folder, "req_a", MANY[:5], generated=done)])["req_a"])
    assert [item.index for item in rest] == [1, 2, 4]
    assert [item.value[0]["score"] for item in rest] == pytest.approx(
        [whole[i].value[0]["score"] for i in (1, 2, 4)], abs=1e-5
    )
    every = array("i", range(5)).tobytes()
    (end,) = drive(driver, [_item(folder, "req_b", MANY[:5], generated=every)])["req_b"]
    assert isinstance(end, Finished)


def test_a_higher_class_runs_first(folder: Path, driver: EncoderDriver) -> None:
    driver.submit(_item(folder, "req_batch", MANY, service_class=ServiceClass.BATCH))
    driver.submit(_item(folder, "req_now", MANY[:1], service_class=ServiceClass.INTERACTIVE))
    first = driver.step()
    assert any(isinstance(e, Finished) and e.request_id == "req_now" for e in first)


def test_small_requests_are_not_behind_a_large_one(folder: Path, driver: EncoderDriver) -> None:
    driver.submit(_item(folder, "req_large", MANY))
    driver.submit(_item(folder, "req_small", MANY[:1]))
    first = driver.step()
    assert any(isinstance(e, Finished) and e.request_id == "req_small" for e in first)


def test_bad_items_fail_alone(folder: Path, driver: EncoderDriver) -> None:
    texts = ["good", 3, {"text": "x", "more": 1}, "half \ud800 pair", {"text": "bad"}]
    said = outputs(drive(driver, [_item(folder, "req_a", texts)])["req_a"])
    assert [item.error is None for item in said] == [True, False, False, False, True]
    assert {item.error.code for item in said if item.error} == {"invalid_request"}


def test_the_engine_fails_on_one_row_alone(
    folder: Path, driver: EncoderDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A batch that fails is tried row by row, so neighbours are answered all the same."""
    run = Computer.run
    broken = prepared(folder, KIND, ["bad bad bad"])

    def fail(self: Computer, batch: Any) -> Any:
        if any(work.row.length == 5 for work in batch):
            raise EngineFailed("it is broken")
        return run(self, batch)

    monkeypatch.setattr(Computer, "run", fail)
    assert broken.num_tokens == 5
    said = outputs(drive(driver, [_item(folder, "req_a", ["bad bad bad", "good", "it"])])["req_a"])
    assert [item.error and item.error.code for item in said] == ["engine_failed", None, None]


@pytest.mark.parametrize(
    "fields",
    [{"adapter": "a"}, {"grammar": "g"}, {"deterministic": True}, {"options": {"x": 1}}],
)
def test_what_it_cannot_do_is_refused(
    folder: Path, driver: EncoderDriver, fields: dict[str, Any]
) -> None:
    with pytest.raises(UnsupportedParameter):
        driver.submit(_item(folder, "req_a", ["good"], **fields))
    assert driver.wait_s() is None


def test_what_is_no_request_of_its_own_is_refused(folder: Path, driver: EncoderDriver) -> None:
    good = _item(folder, "req_a", ["good"])
    with pytest.raises(UnsupportedParameter, match="embeddings"):
        driver.submit(work_item("req_b", "embeddings", prepared(folder, KIND, ["good"])))
    driver.submit(good)
    with pytest.raises(Conflict):
        driver.submit(good)
    import msgspec

    for payload in (b"", b"\x93", b"\xff" * 20):
        with pytest.raises(InvalidRequest, match="not prepared"):
            driver.submit(msgspec.structs.replace(good, request_id="req_c", payload=payload))


def test_loading_what_is_broken(folder: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folder, tmp_path / "m")
    broken = tmp_path / "m" / "config.json"
    text = broken.read_text()
    driver = EncoderDriver()

    def fail(wanted: type[Exception], match: str) -> None:
        with pytest.raises(wanted, match=match):
            driver.load(make_spec(tmp_path / "m"), lambda *_: None)
        assert not driver.health().ok

    broken.write_text(text.replace('"num_hidden_layers": 2', '"num_hidden_layers": 3'))
    fail(ModelRejected, "missing from the files")
    broken.write_text(text.replace('"hidden_size": 32', '"hidden_size": 64'))
    fail(ModelRejected, "wrong shape")
    broken.write_text(text.replace("BertForSequence", "LlamaForSequence"))
    fail(ModelRejected, "does not read")
    broken.write_text("[]")
    fail(ModelRejected, "expected an object")
    broken.write_text(text)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"\x08")
    fail(LoadFailed, "m: ")


def test_unloading_forgets_everything(folder: Path, driver: EncoderDriver) -> None:
    driver.submit(_item(folder, "req_a", MANY))
    driver.unload()
    driver.unload()
    assert not driver.health().ok
    with pytest.raises(EngineFailed):
        driver.submit(_item(folder, "req_b", MANY))


def test_memory_is_bounded_by_what_it_says(folder: Path, driver: EncoderDriver) -> None:
    drive(driver, [_item(folder, "req_a", MANY)])
    report = driver.memory()
    assert 0 < report.weights_bytes < report.rss_bytes <= report.bound_bytes
    assert isinstance(drive(driver, [_item(folder, "req_b", MANY[:1])])["req_b"][0], Outputs)
