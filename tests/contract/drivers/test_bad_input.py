"""What every driver says of what it cannot take: a typed error, and nothing else happens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi.driver import Driver
from llmos.abi.events import Finished
from llmos.abi.inference import ChatPrompt, Grammar, PrepareItem, Sampling, TextPrompt
from llmos.drivers.catalog import DRIVERS
from llmos.errors import InvalidRequest, LLMOSError, LoadFailed, ModelRejected, UserError
from tests.contract.drivers.conftest import FolderOf
from tests.contract.drivers.kits import KITS
from tests.contract.drivers.subject import TEXT, Subject, check_stream, resolve
from tests.unit.drivers.tiny import make_spec

pytestmark = pytest.mark.verb("bad input")


def load(name: str, folder: Path, **fields: Any) -> Driver:
    driver: Driver = resolve(DRIVERS[name].entry)()
    driver.load(make_spec(folder, **fields), lambda fraction, what: None)
    return driver


def test_an_option_nobody_knows(driver_name: str, folder_of: FolderOf) -> None:
    with pytest.raises(LoadFailed, match="nonsense"):
        load(driver_name, folder_of(driver_name), options={"nonsense": 1})


def test_a_folder_without_a_model(driver_name: str, tmp_path: Path) -> None:
    if KITS[driver_name].reads_files:
        with pytest.raises((LoadFailed, ModelRejected)):
            load(driver_name, tmp_path)
    else:
        load(driver_name, tmp_path).unload()


def test_files_that_are_cut_short(driver_name: str, folder_of: FolderOf, tmp_path: Path) -> None:
    for path in folder_of(driver_name).iterdir():
        data = path.read_bytes()
        cut = path.suffix in KITS[driver_name].cut
        (tmp_path / path.name).write_bytes(data[: len(data) // 2] if cut else data)
    if KITS[driver_name].reads_files:
        with pytest.raises((LoadFailed, ModelRejected)):
            load(driver_name, tmp_path)


def test_after_a_failed_load_it_is_not_well(driver_name: str, tmp_path: Path) -> None:
    driver: Driver = resolve(DRIVERS[driver_name].entry)()
    with pytest.raises(LLMOSError):
        spec = make_spec(tmp_path, options={"nonsense": 1})
        driver.load(spec, lambda fraction, what: None)
    assert driver.memory().rss_bytes > 1_000_000
    driver.unload()


def test_text_that_is_none(subject: Subject) -> None:
    with pytest.raises(InvalidRequest):
        item = PrepareItem("r", "", "", TextPrompt("half a pair: \ud83d"), subject.kit.vocab_size)
        if subject.driver.capabilities.driver == "echo":
            item = msgspec.structs.replace(item, prompt=TextPrompt(""))
        subject.preparer.prepare(item)


def test_a_chat_is_prepared_or_refused(subject: Subject) -> None:
    prompt = ChatPrompt([{"role": "user", "content": TEXT}])
    item = PrepareItem("r", "", "", prompt, subject.kit.vocab_size)
    try:
        assert subject.preparer.prepare(item).num_tokens > 0
    except InvalidRequest as error:
        assert "template" in error.message


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "embed"},
        {"adapter": "nobody"},
        {"grammar": Grammar("nothing", "")},
        {"tokens": b"\1\0\0"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_items_it_cannot_honour(subject: Subject, fields: dict[str, Any]) -> None:
    item = msgspec.structs.replace(subject.item("a", 4), **fields)
    with pytest.raises(UserError):
        subject.driver.submit(item)
    assert subject.driver.wait_s() is None


@pytest.mark.parametrize("outside", ["below", "above"])
def test_tokens_outside_the_vocabulary(subject: Subject, outside: str) -> None:
    token = -1 if outside == "below" else subject.kit.outside
    tokens = (72).to_bytes(4, "little") + (token & 0xFFFFFFFF).to_bytes(4, "little")
    with pytest.raises(InvalidRequest):
        subject.driver.submit(msgspec.structs.replace(subject.item("a", 4), tokens=tokens))
    assert subject.driver.wait_s() is None


def test_the_context_is_a_bound(subject: Subject) -> None:
    bound = subject.report.context_length
    prompt = (72).to_bytes(4, "little") * (bound - 3)
    item = msgspec.structs.replace(subject.item("a", 3), tokens=prompt)
    subject.driver.submit(item)
    last = check_stream(subject.run()["a"])
    assert isinstance(last, Finished)
    assert last.usage.completion_tokens == 3
    longer = msgspec.structs.replace(
        item,
        sampling=Sampling(temperature=0.0, max_tokens=4, ignore_eos=True),
        options=subject.kit.ask(4),
    )
    with pytest.raises(UserError):
        subject.driver.submit(longer)
