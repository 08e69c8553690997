"""What every driver owes the worker that runs it: one suite, every driver."""

from __future__ import annotations

import pytest

from llmos.abi.events import Aborted, Finished, FinishReason
from llmos.abi.inference import Sampling, TextPrompt, TokensPrompt, WorkItem
from llmos.boot import driver_entry
from llmos.drivers.catalog import DRIVERS, FORMATS
from llmos.errors import InvalidRequest, LLMOSError, UserError
from tests.contract.drivers.subject import TEXT, Subject, check_stream, num_tokens


@pytest.mark.verb("load")
def test_load_reports(subject: Subject) -> None:
    assert subject.report.num_slots == 4
    assert 0 < subject.report.context_length <= 128
    assert subject.report.memory.rss_bytes > 1_000_000
    assert subject.progress == sorted(subject.progress)
    assert subject.progress[-1] == 1.0
    assert subject.driver.capabilities.driver in DRIVERS


@pytest.mark.verb("prepare")
def test_prepare(subject: Subject) -> None:
    prepared = subject.prepare(TextPrompt(TEXT))
    assert len(prepared.tokens) == 4 * prepared.num_tokens > 0
    again = subject.prepare(TokensPrompt([72, 73]))
    assert (again.num_tokens, again.request_id) == (2, "req_2")
    assert len(again.tokens) == 8 or subject.kit.marks
    for wrong in ([-1], [2**31], []):
        with pytest.raises(InvalidRequest):
            subject.prepare(TokensPrompt(wrong))


@pytest.mark.verb("submit")
def test_idle_until_something_is_submitted(subject: Subject) -> None:
    assert subject.driver.wait_s() is None
    assert subject.driver.step() == []
    assert subject.driver.health().num_running == 0


@pytest.mark.verb("submit")
def test_one_request(subject: Subject) -> None:
    subject.submit("a", 5)
    assert subject.driver.wait_s() == 0.0
    first = subject.run(1)
    assert subject.driver.health().num_running == 1
    rest = subject.run()
    assert list(first) == list(rest) == ["a"]
    last = check_stream(first["a"] + rest["a"])
    assert isinstance(last, Finished)
    assert last.reason in FinishReason
    assert last.usage.completion_tokens == 5
    assert last.usage.prompt_tokens == subject.prepare(TextPrompt(TEXT)).num_tokens
    assert subject.driver.health().num_running == 0
    assert subject.driver.step() == []


@pytest.mark.verb("batch")
def test_more_requests_than_slots(subject: Subject) -> None:
    for n in range(9):
        subject.submit(f"r{n}", n + 1)
    events = subject.run()
    assert {r: num_tokens(e) for r, e in events.items()} == {f"r{n}": n + 1 for n in range(9)}
    assert all(isinstance(check_stream(e), Finished) for e in events.values())


@pytest.mark.verb("batch")
def test_requests_join_while_others_run(subject: Subject) -> None:
    subject.submit("a", 30)
    subject.run(3)
    subject.submit("b", 2)
    order = [r for r, e in subject.run().items() for event in e if isinstance(event, Finished)]
    assert sorted(order) == ["a", "b"]
    assert subject.driver.health().num_running == 0


@pytest.mark.verb("pause")
def test_pause_holds_one_request_only(subject: Subject) -> None:
    subject.submit("a", 6)
    subject.submit("b", 6)
    before = subject.run(2)
    subject.driver.pause("a")
    assert subject.driver.health().num_paused == 1
    during = subject.run()
    assert set(during) == {"b"}
    assert subject.driver.wait_s() is None
    subject.driver.unpause("a")
    assert subject.driver.wait_s() == 0.0
    after = subject.run()
    assert isinstance(check_stream(before["a"] + after["a"]), Finished)
    assert num_tokens(before["a"] + after["a"]) == 6


@pytest.mark.verb("pause")
def test_pause_gives_the_row_to_who_waits(subject: Subject) -> None:
    names = ["a", "b", "c", "d", "e"]  # more than there are rows
    for name in names:
        subject.submit(name, 6)
    before = subject.run(2)
    assert "e" not in before
    for name in names[:4]:
        subject.driver.pause(name)
    assert subject.driver.health().num_paused == 4
    during = subject.run()
    assert set(during) == {"e"}
    assert isinstance(check_stream(during["e"]), Finished)
    for name in names[:4]:
        subject.driver.unpause(name)
    after = subject.run()
    for name in names[:4]:
        assert isinstance(check_stream(before[name] + after[name]), Finished)
        assert num_tokens(before[name] + after[name]) == 6


@pytest.mark.verb("abort")
@pytest.mark.parametrize("state", ["running", "waiting", "paused"])
def test_abort(subject: Subject, state: str) -> None:
    names = ["a", "b", "c", "d", "e"]
    for name in names:
        subject.submit(name, 20)
    before = subject.run(3)
    victim = "e" if state == "waiting" else "a"
    if state == "paused":
        subject.driver.pause(victim)
    subject.driver.abort(victim, "no more")
    subject.driver.abort(victim, "twice")
    events = subject.run()
    last = check_stream(before.get(victim, []) + events[victim])
    assert isinstance(last, Aborted)
    assert last.reason == "no more"
    for name in set(names) - {victim}:
        assert isinstance(check_stream(before.get(name, []) + events[name]), Finished)
    assert subject.driver.health().num_running == subject.driver.health().num_paused == 0


@pytest.mark.verb("pause")
def test_unknown_ids_are_ignored(subject: Subject) -> None:
    subject.submit("a", 3)
    for call in (subject.driver.pause, subject.driver.unpause):
        call("nobody")
    subject.driver.abort("nobody", "why")
    events = subject.run()
    assert list(events) == ["a"]


@pytest.mark.verb("bad input")
def test_a_refused_item_leaves_the_others_alone(subject: Subject) -> None:
    subject.submit("a", 4)
    with pytest.raises(UserError):
        subject.submit("b", 10_000)
    with pytest.raises(UserError):
        item = WorkItem("c", b"", Sampling())
        subject.driver.submit(item)
    with pytest.raises(UserError):
        tokens = subject.prepare(TextPrompt(TEXT)).tokens
        subject.driver.submit(WorkItem("d", tokens, Sampling(), options={"no such option": 1}))
    events = subject.run()
    assert list(events) == ["a"]
    assert isinstance(check_stream(events["a"]), Finished)


@pytest.mark.verb("capabilities")
def test_the_catalog_knows_the_capabilities(subject: Subject) -> None:
    can = subject.driver.capabilities
    entry = driver_entry(can.driver)
    assert (entry.snapshots, entry.parks) == (can.snapshots, can.parks)
    assert entry.features == can.features
    assert DRIVERS[can.driver].adapters == can.adapters
    assert [name for name in can.formats if name != "none"] == FORMATS[can.driver]


@pytest.mark.verb("capabilities")
def test_capabilities_are_honest(subject: Subject) -> None:
    if not subject.driver.capabilities.parks:
        for verb in (subject.driver.park, subject.driver.unpark):
            with pytest.raises(LLMOSError):
                verb()
    if not subject.driver.capabilities.snapshots:
        with pytest.raises(LLMOSError):
            subject.driver.suspend("a")
    if not subject.driver.capabilities.attach:
        with pytest.raises(LLMOSError):
            subject.driver.attach("x", {})


@pytest.mark.verb("memory")
def test_health_and_memory_any_time(subject: Subject) -> None:
    for _ in range(3):
        subject.submit(f"m{_}", 3)
        subject.driver.step()
        assert subject.driver.health().ok
        assert subject.driver.memory().rss_bytes > 1_000_000
    subject.run()


@pytest.mark.verb("load")
def test_unload_twice(subject: Subject) -> None:
    subject.submit("a", 3)
    subject.driver.unload()
    subject.driver.unload()


@pytest.mark.verb("memory")
def test_bounds_hold(subject: Subject) -> None:
    memory = subject.driver.memory()
    assert memory.bound_bytes >= memory.rss_bytes
    assert memory.peak_bytes >= memory.rss_bytes
    assert memory.device_bytes == 0
    for number in range(6):
        subject.submit(f"r{number}", 40)
    subject.run()
    assert subject.driver.memory().rss_bytes <= memory.bound_bytes


@pytest.mark.verb("memory")
def test_used_memory_is_counted_and_comes_back(subject: Subject) -> None:
    before = subject.driver.memory()
    assert before.kv_used_bytes == 0
    subject.submit("a", 30)
    subject.run(10)
    during = subject.driver.memory()
    assert during.kv_used_bytes <= during.kv_reserved_bytes
    assert bool(during.kv_used_bytes) == bool(before.kv_reserved_bytes)
    subject.run()
    assert subject.driver.memory().kv_used_bytes == 0
    assert subject.driver.memory().kv_reserved_bytes == before.kv_reserved_bytes
