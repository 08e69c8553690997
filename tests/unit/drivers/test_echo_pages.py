"""The echo's prefix cache: what an engine's does, as its events and its memory tell of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.events import Aborted, Event, Failed, Finished
from llmos.abi.inference import Sampling, WorkItem
from llmos.drivers.echo import EchoDriver
from llmos.errors import ContextLengthExceeded
from tests.unit.drivers.tiny import make_spec

PAGE = 4
PAGE_BYTES = PAGE * 4

Load = Callable[..., EchoDriver]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    """An echo with `num_pages` pages of four characters."""

    def loaded(num_pages: int = 16, **fields: Any) -> EchoDriver:
        driver = EchoDriver()
        options = {"kv_pages": num_pages, "page_tokens": PAGE}
        spec = make_spec(tmp_path, scratch=str(tmp_path), options=options, **fields)
        driver.load(spec, lambda fraction, what: None)
        return driver

    return loaded


def item(name: str, text: str, salt: str = "t", **script: Any) -> WorkItem:
    tokens = b"".join(ord(char).to_bytes(4, "little") for char in text)
    return WorkItem(name, tokens, Sampling(), cache_salt=salt, options=script)


def run(driver: EchoDriver, num_steps: int = 1000) -> dict[str, Event]:
    """The last event of each, when nobody has work."""
    last: dict[str, Event] = {}
    for _ in range(num_steps):
        if driver.wait_s() is None:
            return last
        last |= {event.request_id: event for event in driver.step()}
    pytest.fail("it never came to rest")


def cached(driver: EchoDriver, *texts: str, salt: str = "t") -> list[int]:
    """Of one after the other, how many tokens were found."""
    found = []
    for text in texts:
        driver.submit(item("r", text, salt))
        end = run(driver)["r"]
        assert isinstance(end, Finished)
        assert (end.usage.prompt_tokens, end.usage.completion_tokens) == (len(text), len(text))
        found.append(end.usage.cached_tokens)
    return found


def test_a_second_turn_finds_prompt_and_answer_of_the_first(load: Load) -> None:
    driver = load()
    assert cached(driver, "abcdef", "abcdefabcdef?", "abcdXX") == [0, 12, 4]


def test_tenants_find_nothing_of_each_other(load: Load) -> None:
    driver = load()
    assert cached(driver, "abcdefgh", salt="ten_a") == [0]
    assert cached(driver, "abcdefgh", salt="ten_b") == [0]
    assert cached(driver, "abcdefghi", salt="ten_a") == [8]


def test_an_echo_without_pages_finds_nothing(load: Load) -> None:
    driver = load(0)
    assert cached(driver, "abcdefgh", "abcdefgh") == [0, 0]
    assert (driver.memory().kv_reserved_bytes, driver.memory().kv_cached_bytes) == (0, 0)


def test_memory_tells_what_is_used_and_what_is_kept(load: Load) -> None:
    driver = load(16)
    cached(driver, "abcdef")
    now = driver.memory()
    assert now.kv_reserved_bytes == 16 * PAGE_BYTES
    assert (now.kv_used_bytes, now.kv_cached_bytes) == (0, 3 * PAGE_BYTES)
    driver.submit(item("r", "abcdXX", delay_ms=86_400_000))
    driver.step()
    now = driver.memory()  # the first is used and kept, and there is one more
    assert (now.kv_used_bytes, now.kv_cached_bytes) == (2 * PAGE_BYTES, 2 * PAGE_BYTES)
    driver.abort("r", "enough")
    assert isinstance(run(driver)["r"], Aborted)
    assert driver.memory().kv_used_bytes == 0


def test_who_has_no_room_waits_in_the_line_and_costs_nothing(load: Load) -> None:
    driver = load(4, num_slots=4)
    driver.submit(item("a", "abcdefgh", first_delay_ms=86_400_000))  # 16 tokens in the end
    driver.submit(item("b", "12"))
    assert driver.wait_s() == 0.0
    driver.step()
    assert driver.health().num_running == 1
    assert (driver.wait_s() or 0.0) > 1000
    driver.abort("a", "enough")
    ends = run(driver)
    assert isinstance(ends["b"], Finished)


def test_who_is_refused_and_leaves_lets_the_next_one_try(load: Load) -> None:
    driver = load(4, num_slots=4)
    driver.submit(item("a", "abcd", first_delay_ms=86_400_000))
    driver.submit(item("large", "efghijkl"))
    driver.submit(item("small", "12"))
    driver.step()
    assert (driver.wait_s() or 0.0) > 1000
    driver.abort("large", "enough")
    events = driver.step() + driver.step() + driver.step()
    assert {e.request_id for e in events if isinstance(e, Finished)} == {"small"}


def test_a_request_that_never_fits_is_refused_at_once(load: Load) -> None:
    driver = load(2)
    with pytest.raises(ContextLengthExceeded):
        driver.submit(item("r", "abcde"))
    assert cached(driver, "abcd") == [0]


def test_a_failed_request_leaves_nothing_to_be_found(load: Load) -> None:
    driver = load()
    driver.submit(item("r", "abcdefgh", fail_after=2))
    assert isinstance(run(driver)["r"], Failed)
    assert driver.memory().kv_cached_bytes == 0
    assert cached(driver, "abcdefgh") == [0]


def test_a_paused_request_gives_its_room_and_counts_what_it_found_at_first(load: Load) -> None:
    driver = load(8, num_slots=1)
    cached(driver, "abcd")
    driver.submit(item("r", "abcdX", delay_ms=1))
    driver.step()
    driver.pause("r")
    assert driver.memory().kv_used_bytes == 0
    driver.submit(item("other", "1234567890123456"))  # all the room there is
    assert isinstance(run(driver)["other"], Finished)
    driver.unpause("r")
    assert run_slowly(driver)["r"].usage.cached_tokens == 4


def test_a_suspended_request_counts_what_it_found_at_first(load: Load) -> None:
    driver = load()
    cached(driver, "abcd")
    asked = item("r", "abcdXabcdXabcd", first_delay_ms=86_400_000)
    driver.submit(asked)
    driver.step()
    ref = driver.suspend("r")
    assert driver.memory().kv_used_bytes == 0
    driver.resume(asked, ref)  # its own pages lie there now
    driver.step()
    driver.abort("r", "enough")
    assert run(driver)["r"].usage.cached_tokens == 4


def test_one_that_is_aborted_while_suspended_counts_it_too(load: Load) -> None:
    driver = load()
    cached(driver, "abcd")
    driver.submit(item("r", "abcdX", first_delay_ms=86_400_000))
    driver.step()
    driver.suspend("r")
    driver.abort("r", "enough")
    assert run(driver)["r"].usage.cached_tokens == 4


def test_parking_forgets_what_was_kept(load: Load) -> None:
    driver = load()
    cached(driver, "abcdefgh")
    parked = driver.park()
    assert (parked.kv_reserved_bytes, parked.kv_cached_bytes) == (0, 0)
    driver.unpark()
    assert cached(driver, "abcdefghi") == [0]


def run_slowly(driver: EchoDriver) -> dict[str, Any]:
    """As `run`, of one that is due after a delay."""
    last: dict[str, Any] = {}
    while driver.wait_s() is not None:
        last |= {event.request_id: event for event in driver.step()}
    return last
