"""One text, however it came about: cached, cut, moved, recomputed, guessed, beside others."""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi.events import Event
from llmos.abi.inference import WorkItem
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.fused import runner as module
from llmos.drivers.native.fused.lookup import Lookup
from llmos.drivers.native.limits import NativeLimits
from tests.unit.drivers.tiny import drive, finished, make_item, make_spec, token_ids

NUM = 199
DTYPES = ["float32", "bfloat16", "float16", "int8", "int4"]
Open = Callable[..., NativeDriver]


class Story:
    """The text of a model in one type, as it comes alone, unguessed, on a driver of its own."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.dtype = dtype
        self._folder = folder
        driver = self.open(guesses=False)
        self.ids = token_ids(drive(driver, [self.item("alone")])["alone"])
        assert len(self.ids) == NUM
        driver.unload()

    def open(self, *, guesses: bool = True, **fields: Any) -> NativeDriver:
        driver = NativeDriver()
        options = {"engine": "fused", "guesses": guesses}
        given = {"context_length": 256, "num_slots": 16, "dtype": self.dtype, "options": options}
        driver.load(make_spec(self._folder, **(given | fields)), lambda fraction, what: None)
        return driver

    def item(self, name: str, num_read: int = 0, num: int = 0, salt: str = "") -> WorkItem:
        """Asks for the text after its first `num_read` tokens."""
        prompt = [1, *(self.ids[:num_read] if num_read else [])]
        asked = make_item(name, prompt, max_tokens=num or NUM - num_read, ignore_eos=True)
        return msgspec.structs.replace(asked, cache_salt=salt)

    def check(self, events: list[Event], num_read: int = 0, num: int = 0) -> int:
        """It is the text. How much of the prompt was cached."""
        assert token_ids(events) == self.ids[num_read : num_read + num if num else NUM]
        end = finished(events)
        assert end.deterministic
        return end.usage.cached_tokens


@pytest.fixture(scope="module")
def stories() -> dict[str, Story]:
    return {}


@pytest.fixture(params=DTYPES)
def story(request: pytest.FixtureRequest, test_data: Path, stories: dict[str, Story]) -> Story:
    dtype: str = request.param
    if dtype not in stories:
        stories[dtype] = Story(test_data / "models" / "stories260k", dtype)
    return stories[dtype]


def test_float32_is_the_golden_text(test_data: Path, story: Story) -> None:
    path = test_data / "models" / "stories260k" / "golden.json"
    golden = json.loads(path.read_text(encoding="utf-8"))["ids_after_bos_numpy_reference"][:NUM]
    assert (story.ids == golden) or story.dtype != "float32"
    # what others say begins like it
    assert sum(a == b for a, b in zip(story.ids, golden, strict=True)) > 3


def test_a_beginning_that_is_cached(story: Story) -> None:
    driver = story.open()
    for salt in ("ten_1", "ten_2"):  # who has another salt finds nothing
        assert story.check(drive(driver, [story.item("a", 0, 0, salt)])["a"]) == 0
        for num_read in (15, 16, 100, 101):
            item = story.item("b", num_read, 20, salt)
            cached = story.check(drive(driver, [item])["b"], num_read, 20)
            assert cached == num_read // 16 * 16
    assert story.check(drive(driver, [story.item("c", 100, 20, "ten_3")])["c"], 100, 20) == 0
    driver.unload()


def test_a_prompt_cut_at_every_size(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = story.open()
    for size in range(1, 50):
        monkeypatch.setattr(module, "LIMITS", NativeLimits(step_tokens=size))
        events = drive(driver, [story.item("a", 48, 6, f"size {size}")])["a"]
        assert story.check(events, 48, 6) == 0
    driver.unload()


@pytest.mark.parametrize("guesses", [True, False])
def test_resumed_and_recomputed_at_random(
    story: Story, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, guesses: bool
) -> None:
    monkeypatch.setattr(module, "LIMITS", NativeLimits(step_tokens=30))
    own = {"scratch": str(tmp_path)}
    drivers = [story.open(guesses=guesses, num_threads=n, num_slots=n, **own) for n in (1, 3)]
    rng = random.Random(story.dtype)
    item, said = story.item("a", 70), list[Event]()
    drivers[0].submit(item)
    here, there = drivers
    num_moves = 0
    while not said or not hasattr(said[-1], "reason"):
        for _ in range(rng.randrange(9)):
            said += here.step()
            if said and hasattr(said[-1], "reason"):
                break
        else:
            num_moves += 1
            if rng.random() < 0.5:
                there.resume(item, here.suspend("a"))
            else:  # as when the worker is lost
                here.abort("a", "lost")
                here.step()
                drawn = array("i", token_ids(said)).tobytes()
                item = msgspec.structs.replace(item, generated=drawn)
                there.submit(item)
            here, there = there, here
    story.check(said, 70)
    assert num_moves > 5
    for driver in drivers:
        assert driver.memory().kv_used_bytes == 0
        driver.unload()


def test_guessed(story: Story, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text itself stands in the prompt, so guesses come true; and where they do not."""
    counts: list[tuple[int, int]] = []
    note = Lookup.note

    def counting(self: Lookup, num_guessed: int, num_right: int) -> None:
        counts.append((num_guessed, num_right))
        note(self, num_guessed, num_right)

    monkeypatch.setattr(Lookup, "note", counting)
    driver, silent = story.open(), story.open(guesses=False)
    story.check(drive(driver, [story.item("a")])["a"])
    repeated = [1, *story.ids[:60], *story.ids[:60], *story.ids[:9]]
    for params in ({}, {"temperature": 0.3, "seed": 3}, {"temperature": 1.5, "seed": 4}):
        counts.clear()
        item = make_item("b", repeated, max_tokens=100, ignore_eos=True, **params)
        guessed = drive(driver, [item])["b"]
        assert counts
        num_guessed, num_right = (sum(of) for of in zip(*counts, strict=True))
        assert num_right < num_guessed or not params
        assert num_right > 0 or params
        counts.clear()
        plain = drive(silent, [item])["b"]
        assert not counts
        assert token_ids(guessed) == token_ids(plain)
        assert finished(guessed).usage.completion_tokens == 100
        # an accepted guess is an event with several tokens
        assert (len(guessed) < len(plain)) == (num_right > 0)
    driver.unload()
    silent.unload()


def test_a_guess_beyond_the_end_is_nobodys(story: Story) -> None:
    driver = story.open()
    repeated = [1, *story.ids[:60], *story.ids[:60]]
    asked = {"max_tokens": 30, "ignore_eos": True}
    ids = token_ids(drive(driver, [make_item("a", repeated, **asked)])["a"])
    for number in range(1, 30):
        for end in ({"max_tokens": number}, {"stop_token_ids": [ids[number]]}):
            events = drive(driver, [make_item("b", repeated, **(asked | end))])["b"]
            count = number if "max_tokens" in end else ids.index(ids[number]) + 1
            assert token_ids(events) == ids[:count]
            assert finished(events).usage.completion_tokens == count
    assert driver.memory().kv_used_bytes == 0
    driver.unload()


def test_among_as_many_as_there_are_slots(story: Story) -> None:
    driver = story.open()
    rng = random.Random(5)
    for num_others in range(16):
        others = [
            make_item(
                f"o{n}",
                [rng.randrange(3, 512) for _ in range(rng.choice([1, 9, 60]))],
                temperature=rng.choice([0.0, 1.0]),
                seed=n,
                max_tokens=rng.randrange(1, 12),
                ignore_eos=True,
            )
            for n in range(num_others)
        ]
        at = rng.randrange(num_others + 1)
        num_read = 10 * num_others
        item = story.item("t", num_read, 12, f"salt {num_others}")
        for other in others[: at // 2]:
            driver.submit(other)
        driver.step()
        events = drive(driver, [*others[at // 2 : at], item, *others[at:]])
        story.check(events["t"], num_read, 12)
    driver.unload()
