"""Texts that begin at different times side by side: each as `generate` makes it alone."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.events import Event
from llmos.drivers.encoder.driver import EncoderDriver
from llmos.drivers.encoder.kinds import DECODER_FAMILIES
from llmos.drivers.encoder.limits import LIMITS
from llmos.drivers.encoder.writing import WritingLoop
from tests.contract.encoder.test_captions import expected as described
from tests.contract.encoder.test_captions import make_captioner
from tests.contract.encoder.written import KIND, generated
from tests.unit.drivers.encoder.folders import (
    WORDS,
    load,
    make_writer,
    outputs,
    prepared,
    work_item,
)
from tests.unit.drivers.encoder.media import blob, png
from tests.unit.drivers.tiny import drive

TEXTS = [
    "the cat",
    "who lives in new york and paris?",
    "it is good or bad, the cat sat on a mat",
    "where is new york",
    "paris",
    "a cat sat on it and who lives where",
]
MOST = [19, 11, 23, 7, 17, 13]
"""Tokens, so that they end at different times too."""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for others to begin with."""
    monkeypatch.setattr("llmos.drivers.encoder.writing.PATIENCE", 1)


def _groups(driver: EncoderDriver) -> list[Any]:
    assert isinstance(driver._loop, WritingLoop)
    return driver._loop.writers.groups


def _one_by_one(
    driver: EncoderDriver, items: list[Any], between: Callable[[int], None] = lambda _: None
) -> dict[str, list[Event]]:
    """One more in every third step; at the end, what was said of each."""
    events: dict[str, list[Event]] = {item.request_id: [] for item in items}
    waiting, steps = [*items], 0
    while waiting or driver.wait_s() is not None:
        if steps % 3 == 0 and waiting:
            driver.submit(waiting.pop(0))
        for event in driver.step():
            events[event.request_id].append(event)
        between(steps)
        steps += 1
    return events


def _check(events: dict[str, list[Event]], i: int, wanted: tuple[str, int]) -> None:
    (one,) = outputs(events[f"req_{i}"])
    assert one.error is None
    assert (one.value["text"], one.value["num_tokens"]) == wanted


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("family", DECODER_FAMILIES)
def test_who_joins_writes_as_alone(family: str, num_beams: int, tmp_path: Path) -> None:
    folder = make_writer(tmp_path, family, scale=3 if "T5" in family else 8)
    driver = load(folder)
    items = []
    for i, (text, most) in enumerate(zip(TEXTS, MOST, strict=True)):
        params = {"max_new_tokens": most, "num_beams": num_beams}
        items.append(work_item(f"req_{i}", KIND, prepared(folder, KIND, [text], params)))
    widths: list[int] = []

    def look(_: int) -> None:
        widths.extend(len(group.rows) for group in _groups(driver))
        assert len(_groups(driver)) <= 1

    events = _one_by_one(driver, items, look)
    assert max(widths) >= 3
    for i, (text, most) in enumerate(zip(TEXTS, MOST, strict=True)):
        _check(events, i, generated(folder, family, text, max_new_tokens=most, num_beams=num_beams))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("family", ["vit-gpt2", "blip"])
def test_images_join(family: str, tmp_path: Path) -> None:
    """With prompts and without, which are unequally long."""
    folder = make_captioner(tmp_path / "model", family)
    driver = load(folder)
    prompts = ["", "a cat", "", "the mat is good, and"]
    items = []
    for i, prompt in enumerate(prompts):
        given = blob(tmp_path, f"{i}.png", png(40, 30, seed=i))
        asked = {"blob": 0, "text": prompt} if prompt else {"blob": 0}
        params, spill = {"max_new_tokens": 9 + i}, str(tmp_path / f"spill{i}")
        made = prepared(folder, "image-to-text", [asked], params, blobs=[given], spill=spill)
        items.append(work_item(f"req_{i}", "image-to-text", made))
    widths: list[int] = []
    events = _one_by_one(
        driver, items, lambda _: widths.extend(len(group.rows) for group in _groups(driver))
    )
    assert max(widths) >= 3
    for i, prompt in enumerate(prompts):
        image = png(40, 30, seed=i)
        _check(events, i, described(folder, family, image, prompt, max_new_tokens=9 + i))


@pytest.mark.usefixtures("patient")
def test_rules_count_each_texts_own_tokens(tmp_path: Path) -> None:
    folder = make_writer(tmp_path, "Bart", scale=8)
    path = folder / "generation_config.json"
    rules = {"no_repeat_ngram_size": 1, "min_length": 5, "forced_bos_token_id": 9}
    path.write_text(json.dumps(json.loads(path.read_text()) | rules))
    driver = load(folder)
    items = [
        work_item(f"req_{i}", KIND, prepared(folder, KIND, [text], {"max_new_tokens": most}))
        for i, (text, most) in enumerate(zip(TEXTS, MOST, strict=True))
    ]
    events = _one_by_one(driver, items)
    for i, (text, most) in enumerate(zip(TEXTS, MOST, strict=True)):
        _check(events, i, generated(folder, "Bart", text, max_new_tokens=most))


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("family", ["T5", "Bart"])
def test_who_is_paused_stands_aside_and_comes_back(family: str, tmp_path: Path) -> None:
    folder = make_writer(tmp_path, family, scale=3 if family == "T5" else 8)
    driver = load(folder)
    items = [
        work_item(f"req_{i}", KIND, prepared(folder, KIND, [text], {"max_new_tokens": most}))
        for i, (text, most) in enumerate(zip(TEXTS, MOST, strict=True))
    ]
    kept: list[int] = []

    def turn(step: int) -> None:
        tokens = [
            len(row.tokens)
            for group in _groups(driver)
            for row in group.rows
            if row.work.request.request_id == "req_2"
        ]
        if step == 10:
            driver.pause("req_2")
        if 10 <= step < 14:
            kept.extend(tokens)
        if step == 14:
            driver.unpause("req_2")

    events = _one_by_one(driver, items, turn)
    assert len(kept) == 4
    assert len(set(kept)) == 1
    for i, (text, most) in enumerate(zip(TEXTS, MOST, strict=True)):
        _check(events, i, generated(folder, family, text, max_new_tokens=most))


@pytest.mark.usefixtures("patient")
def test_a_group_that_never_ends_stays_small(tmp_path: Path) -> None:
    """Whoever comes and goes: columns that are nobody's any more are given up."""
    folder = make_writer(tmp_path, "T5", scale=3)
    driver = load(folder)
    params = {"max_new_tokens": 20}
    made = [prepared(folder, KIND, [text], params) for text in TEXTS]
    items = [work_item(f"req_{i}", KIND, made[i % len(TEXTS)]) for i in range(60)]
    most_columns, most_room = 0, 0

    def look(_: int) -> None:
        nonlocal most_columns, most_room
        for group in _groups(driver):
            most_columns = max(most_columns, group.num_columns)
            layer = group.cache.self_attention_cache.layers[0]
            most_room = max(most_room, layer._k_BHTD.shape[2])

    events = _one_by_one(driver, items, look)
    assert most_columns <= 20 + 1 + 32
    assert most_room <= 20 + 1 + 2 * 32
    for i in range(60):
        alike = outputs(events[f"req_{i % len(TEXTS)}"])[0].value
        assert outputs(events[f"req_{i}"])[0].value == alike


def test_who_comes_alone_begins_at_once_and_others_wait_for_company(tmp_path: Path) -> None:
    folder = make_writer(tmp_path, "T5", scale=3)
    driver = load(folder)
    many = prepared(folder, KIND, TEXTS * 4, {"max_new_tokens": 30})
    one = prepared(folder, KIND, TEXTS[:1], {"max_new_tokens": 30})
    driver.submit(work_item("req_many", KIND, many))
    driver.step()
    assert [len(group.rows) for group in _groups(driver)] == [24]
    driver.submit(work_item("req_one", KIND, one))
    widths = []
    for _ in range(5):
        driver.step()
        widths.append(sum(len(group.rows) for group in _groups(driver)))
    assert widths == [24, 24, 24, 25, 25]


def test_texts_of_unlike_length_are_not_side_by_side(tmp_path: Path) -> None:
    folder = make_writer(tmp_path, "T5", scale=3, max_position_embeddings=512)
    driver = load(folder)
    long = "the cat sat on a mat. " * 30
    made = prepared(folder, KIND, [TEXTS[0], long, TEXTS[1], long], {"max_new_tokens": 5})
    driver.submit(work_item("req_a", KIND, made))
    driver.step()
    short, read = sorted([row.num_read for row in group.rows] for group in _groups(driver))
    assert max(short) < LIMITS.near_tokens < min(read)
    assert (len(short), len(read)) == (2, 2)


def test_who_is_paused_keeps_nobody_from_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though they hold all that is reserved."""
    monkeypatch.setattr("llmos.drivers.encoder.writers.DECODED_TOKENS", 300)
    folder = make_writer(tmp_path, "T5", scale=3)
    driver = load(folder)
    many = prepared(folder, KIND, TEXTS * 4, {"max_new_tokens": 30})
    one = prepared(folder, KIND, TEXTS[:2], {"max_new_tokens": 5})
    driver.submit(work_item("req_many", KIND, many))
    for _ in range(3):
        driver.step()
    driver.pause("req_many")
    driver.submit(work_item("req_one", KIND, one))
    said: list[Event] = []
    while driver.wait_s() is not None:
        said += driver.step()
    assert {event.request_id for event in said} == {"req_one"}
    assert len(outputs(said)) == 2
    driver.unpause("req_many")
    assert len(outputs(drive(driver)["req_many"])) == 24


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("seed", range(3))
def test_whoever_comes_goes_and_waits(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Texts of any length, with beams and without, paused and ended, in what little room there is:
    each is what it is alone, and what is reserved suffices."""
    reserved = 1200
    monkeypatch.setattr("llmos.drivers.encoder.writers.DECODED_TOKENS", reserved)
    rng = random.Random(seed)
    folder = make_writer(tmp_path, "T5", scale=3, max_position_embeddings=512)
    driver, alone = load(folder), load(folder)
    items, wanted = [], {}
    for i in range(30):
        text = " ".join(rng.choices(WORDS, k=rng.choice([2, 9, 30, 110])))
        params = {"max_new_tokens": rng.randrange(1, 40), "num_beams": rng.choice([1, 1, 1, 2])}
        items.append(work_item(f"req_{i}", KIND, prepared(folder, KIND, [text], params)))
        wanted[f"req_{i}"] = drive(alone, [items[-1]])[f"req_{i}"]
    gone: set[str] = set()
    paused: set[str] = set()

    def turn(_: int) -> None:
        groups = _groups(driver)
        going = [group for group in groups if not group.is_paused]
        assert len(going) <= LIMITS.groups + 1
        held = [
            len(group.ids_BT) * (group.num_read + group.num_columns)
            for group in groups
            if len(groups) > 1
        ]
        assert sum(held) <= reserved
        name = f"req_{rng.randrange(30)}"
        act = rng.randrange(12)
        if act == 0 and not gone:
            driver.abort(name, "the client left")
            gone.add(name)
        elif act < 3:
            driver.pause(name)
            paused.add(name)
        elif paused:
            driver.unpause(paused.pop())

    events: dict[str, list[Event]] = {item.request_id: [] for item in items}
    waiting = [*items]
    while waiting or paused or driver.wait_s() is not None:
        for _ in range(rng.randrange(3)):
            if waiting:
                driver.submit(waiting.pop(0))
        for event in driver.step():
            events[event.request_id].append(event)
        turn(0)
    for name, said in events.items():
        if name not in gone:
            assert outputs(said)[0].value == outputs(wanted[name])[0].value
