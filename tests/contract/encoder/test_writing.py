"""Texts that are made: token for token what `generate` makes greedily, whoever shares the group."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.events import Aborted, Finished, Outputs
from llmos.drivers.encoder.driver import EncoderDriver
from llmos.drivers.encoder.kinds import DECODER_FAMILIES
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.writing import WritingLoop
from llmos.errors import InvalidRequest
from tests.contract.encoder.written import KIND, TEXTS, generated
from tests.unit.drivers.encoder.folders import (
    PIECES,
    infer,
    load,
    make_writer,
    outputs,
    prepared,
    work_item,
)
from tests.unit.drivers.tiny import drive


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_writer(tmp_path_factory.mktemp("t5"), "T5", scale=3)


@pytest.fixture
def driver(folder: Path) -> EncoderDriver:
    return load(folder)


@pytest.mark.parametrize("family", DECODER_FAMILIES)
def test_it_writes_what_generate_writes(family: str, tmp_path: Path) -> None:
    scale = 3 if "T5" in family else 8
    folder = make_writer(tmp_path, family, scale=scale)
    ours = infer(folder, KIND, TEXTS, params={"max_new_tokens": 12})
    for text, output in zip(TEXTS, ours, strict=True):
        assert output.error is None, output.error
        expected, num_tokens = generated(folder, family, text, num_beams=1, max_new_tokens=12)
        assert (output.value["text"], output.value["num_tokens"]) == (expected, num_tokens)
        assert output.value["finish_reason"] == ("stop" if num_tokens < 12 else "length")


def test_the_folders_rules_hold(tmp_path: Path) -> None:
    folder = make_writer(tmp_path, "Bart", scale=8)
    path = folder / "generation_config.json"
    rules = {"no_repeat_ngram_size": 1, "min_length": 5, "forced_bos_token_id": 9, "max_length": 9}
    path.write_text(json.dumps(json.loads(path.read_text()) | rules))
    ours = infer(folder, KIND, TEXTS)
    for text, output in zip(TEXTS, ours, strict=True):
        expected, num_tokens = generated(folder, "Bart", text)
        assert output.value["text"] == expected
        assert output.value["num_tokens"] == num_tokens <= 8


def test_later_requests_need_not_wait_for_earlier_ones(folder: Path, driver: EncoderDriver) -> None:
    """One of fifty tokens, then one of two: the second is done while the first still writes."""
    long = prepared(folder, KIND, TEXTS[:1], {"max_new_tokens": 50})
    short = prepared(folder, KIND, TEXTS[1:2], {"max_new_tokens": 2})
    driver.submit(work_item("req_long", KIND, long))
    driver.step()
    driver.submit(work_item("req_short", KIND, short))
    for _ in range(3):
        events = driver.step()
        if events:
            break
    assert [e.request_id for e in events] == ["req_short", "req_short"]
    end = events[-1]
    assert isinstance(end, Finished)
    assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (short.num_tokens, 2)
    assert outputs(drive(driver)["req_long"])[0].value["num_tokens"] == 50


def test_one_that_is_ended_leaves_its_group(folder: Path, driver: EncoderDriver) -> None:
    alone = outputs(
        drive(driver, [work_item("req_0", KIND, prepared(folder, KIND, TEXTS[1:]))])["req_0"]
    )
    driver.submit(work_item("req_a", KIND, prepared(folder, KIND, TEXTS[:1])))
    driver.submit(work_item("req_b", KIND, prepared(folder, KIND, TEXTS[1:])))
    driver.step()
    driver.abort("req_a", "the client left")
    events = drive(driver)
    assert [type(e) for e in events["req_a"]] == [Aborted]
    assert [o.value for o in outputs(events["req_b"])] == [o.value for o in alone]
    assert driver.wait_s() is None


def test_one_that_is_paused_writes_no_token(folder: Path, driver: EncoderDriver) -> None:
    made = prepared(folder, KIND, TEXTS[:1], {"max_new_tokens": 5})
    driver.submit(work_item("req_a", KIND, made))
    driver.step()
    driver.pause("req_a")
    assert driver.wait_s() is None
    for _ in range(20):
        assert driver.step() == []
    driver.unpause("req_a")
    assert outputs(drive(driver)["req_a"])[0].value["num_tokens"] == 5


def test_more_than_fit_the_reserve_take_turns(folder: Path, driver: EncoderDriver) -> None:
    """Groups are bounded in number, and each in rows; everybody is answered all the same."""
    many = [TEXTS[i % 4] for i in range(200)]
    made = prepared(folder, KIND, many, {"max_new_tokens": 3})
    most = 0

    def look(_: int) -> None:
        nonlocal most
        assert isinstance(driver._loop, WritingLoop)
        groups = driver._loop.writers.groups
        assert len(groups) <= LIMITS.groups
        most = max([most, *(len(group.rows) for group in groups)])

    events = drive(driver, [work_item("req_a", KIND, made)], look)
    assert len(outputs(events["req_a"])) == 200
    assert most <= LIMITS.batch_rows
    assert all(isinstance(e, Outputs) for e in events["req_a"][:-1])


def test_the_prefix_of_a_task_is_the_folders(tmp_path: Path) -> None:
    tasks: dict[str, Any] = {
        "summarization": {"prefix": "the cat "},
        "translation_en_to_de": {"prefix": "who "},
    }
    folder = make_writer(tmp_path, "T5", scale=3, task_specific_params=tasks)
    plain = {"max_new_tokens": 6, "prefix": ""}
    for kind, prefix in ((KIND, "the cat "), ("translation", "who ")):
        ours = infer(folder, kind, ["sat on"], params={"max_new_tokens": 6})
        (said,) = infer(folder, kind, [prefix + "sat on"], params=plain)
        assert ours[0].value == said.value


def test_a_language_is_the_token_an_answer_begins_with(folder: Path) -> None:
    (ours,) = infer(folder, "translation", TEXTS[:1], params={"target_lang": "paris"})
    assert ours.value["text"].startswith("paris")
    assert "paris" in PIECES
    with pytest.raises(InvalidRequest, match="no token for 'xx'"):
        prepared(folder, "translation", TEXTS[:1], {"target_lang": "xx"})
