"""Who has a row of the native driver: those that wait, urgent ones, paused and aborted ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.abi.events import Aborted
from llmos.abi.inference import Usage
from llmos.abi.principal import ServiceClass
from llmos.drivers.native import eager
from llmos.drivers.native.driver import NativeDriver
from llmos.drivers.native.fused import runner as fused
from llmos.drivers.native.limits import NativeLimits
from tests.contract.native.test_native import Load, counts, engine, load
from tests.unit.drivers.tiny import (
    drive,
    finished,
    make_item,
    random_prompt,
    token_ids,
)

__all__ = ["engine", "load"]  # fixtures


def test_requests_beyond_the_slots_wait_in_order(tiny: Path, load: Load) -> None:
    driver = load(tiny, num_slots=2)
    items = [
        make_item(f"r{i}", random_prompt(i, 5), max_tokens=4, ignore_eos=True) for i in range(6)
    ]
    order = list(drive(driver, items))
    assert order == [f"r{i}" for i in range(6)]


def limited(monkeypatch: pytest.MonkeyPatch, engine: str, load: Load, folder: Path) -> NativeDriver:
    """Eight tokens of a prompt a step, where there is no time for more."""
    if engine == "torch":
        limits = NativeLimits(
            prefill_chunk=8,
            prefill_s_per_step=0.0,
            urgent_prefill_s_per_step=0.0,
            arrival_order_every=4,
        )
        monkeypatch.setattr(eager, "LIMITS", limits)
    else:
        limits = NativeLimits(step_tokens=9, least_prefill=8, arrival_order_every=4)
        monkeypatch.setattr(fused, "LIMITS", limits)
    monkeypatch.setattr("llmos.drivers.native.request.LIMITS", limits)
    return load(folder)


def test_a_long_prompt_does_not_hold_up_the_others(
    tiny: Path, load: Load, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On torch, chunks of a prompt alternate with decode steps, when they take all the time there
    is; our kernels do both in one."""
    driver = limited(monkeypatch, engine, load, tiny)
    driver.submit(make_item("short", [5], max_tokens=40, ignore_eos=True))
    driver.step()
    driver.submit(make_item("long", random_prompt(31, 80), max_tokens=1))
    steps = [[event.request_id for event in driver.step()] for _ in range(11)]
    assert steps[:9] == [["short"]] * 9
    # on torch a first token does not wait for a decode
    assert set(steps[9]) == ({"long"} if engine == "torch" else {"short", "long"})
    assert steps[10] == ["short"]


def test_an_urgent_prompt_is_read_first_but_not_always(
    tiny: Path, load: Load, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before lesser ones that came earlier; those still get a chunk every so many steps."""
    driver = limited(monkeypatch, engine, load, tiny)
    batch, interactive = ServiceClass.BATCH, ServiceClass.INTERACTIVE
    driver.submit(make_item("early", random_prompt(32, 16), max_tokens=1, service_class=batch))
    for number, name in enumerate(("a", "b", "c")):
        prompt = random_prompt(33 + number, 24)
        driver.submit(make_item(name, prompt, max_tokens=1, service_class=interactive))
    order = [event.request_id for _ in range(12) for event in driver.step()][::2]
    # 24 tokens are three steps; every fourth step reads eight of the sixteen tokens of `early`
    assert [name for name in order if name != "early"] == ["a", "b", "c"]
    assert order.index("early") in (1, 2)


def test_an_urgent_prompt_may_hold_up_lesser_requests(
    tiny: Path, load: Load, engine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than a prompt of their own class may."""
    limits = NativeLimits(
        prefill_chunk=8, least_prefill=8, prefill_s_per_step=0.0, urgent_prefill_s_per_step=60.0
    )
    monkeypatch.setattr(eager, "LIMITS", limits)
    monkeypatch.setattr(fused, "LIMITS", limits)
    for service_class, num_steps in ((ServiceClass.INTERACTIVE, 1), (ServiceClass.DEFAULT, 10)):
        driver = load(tiny)
        running, new = f"running {service_class}", f"new {service_class}"
        if engine == "fused":  # how long a token takes is measured on a prompt
            drive(driver, [make_item("measured", random_prompt(30, 40), max_tokens=1)])
        driver.submit(make_item(running, [5], max_tokens=20, ignore_eos=True))
        driver.step()
        prompt = random_prompt(36 + num_steps, 80)
        driver.submit(make_item(new, prompt, max_tokens=1, service_class=service_class))
        steps = [{event.request_id for event in driver.step()} for _ in range(num_steps)]
        last = {new} if engine == "torch" else {running, new}
        assert steps == [{running}] * (num_steps - 1) + [last]
        drive(driver)


def test_pause_frees_the_row_and_changes_nothing(tiny: Path, load: Load) -> None:
    driver = load(tiny, num_slots=1)
    prompt = random_prompt(1, 20)
    expected = token_ids(
        drive(driver, [make_item("a", prompt, max_tokens=20, ignore_eos=True)])["a"]
    )
    driver.submit(make_item("a", prompt, max_tokens=20, ignore_eos=True))
    driver.submit(make_item("b", random_prompt(2, 20), max_tokens=5, ignore_eos=True))
    first = [event for _ in range(7) for event in driver.step()]
    assert {event.request_id for event in first} == {"a"}
    driver.pause("a")
    driver.pause("a")
    assert driver.health().num_paused == 1
    middle = drive(driver)
    assert set(middle) == {"b"}
    assert driver.memory().kv_used_bytes > 0
    driver.unpause("a")
    driver.unpause("a")
    rest = drive(driver)["a"]
    assert token_ids(first) + token_ids(rest) == expected
    assert counts(finished(rest).usage) == (20, 20)


def test_pause_before_the_turn(tiny: Path, load: Load) -> None:
    driver = load(tiny, num_slots=1)
    for name in "abc":
        driver.submit(make_item(name, [5], max_tokens=2, ignore_eos=True))
    driver.pause("b")
    assert list(drive(driver)) == ["a", "c"]
    driver.unpause("b")
    assert list(drive(driver)) == ["b"]


def test_abort_frees_the_slot(tiny: Path, load: Load) -> None:
    driver = load(tiny, num_slots=1)
    driver.submit(make_item("a", [5], ignore_eos=True))
    driver.submit(make_item("b", [6], max_tokens=2, ignore_eos=True))
    driver.step()
    driver.abort("a", "the client left")
    events = driver.step()
    assert events[0] == Aborted("a", "the client left", Usage(1, 1))
    assert {event.request_id for event in events[1:]} == {"b"}
    assert set(drive(driver)) == {"b"}
    assert driver.memory().kv_used_bytes == 0


def test_unknown_ids_are_ignored(tiny: Path, load: Load) -> None:
    driver = load(tiny)
    driver.pause("x")
    driver.unpause("x")
    driver.abort("x", "why")
    assert driver.wait_s() is None
