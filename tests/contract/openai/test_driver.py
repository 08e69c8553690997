"""The driver against remotes that do not behave: typed errors, one end each, nothing lost."""

from __future__ import annotations

import asyncio
import json
import select
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.driver import ReplicaSpec, Secret
from llmos.abi.events import Aborted, Event, Failed, Finished, FinishReason, Outputs, Tokens
from llmos.abi.inference import ChatPrompt, PrepareItem, Sampling, WorkItem
from llmos.abi.remote import REMOTE_FILE
from llmos.drivers.openai.driver import OpenAIDriver
from llmos.drivers.openai.prepare import make
from llmos.errors import LoadFailed
from tests.contract.openai.exchanges import (
    AFTER,
    BEFORE,
    SHORT,
    at_once,
    error_401,
    error_500,
    hang,
    no_usage,
    redirect,
    whole_json,
)
from tests.unit.drivers.openai.fake_remote import Exchange, FakeRemote, Script, go_on

PATIENCE_S = 20.0
Serve = Callable[[Script], FakeRemote]


@pytest.fixture
def serve() -> Iterator[Serve]:
    remotes: list[FakeRemote] = []

    def one(script: Script) -> FakeRemote:
        remotes.append(FakeRemote(script))
        return remotes[-1]

    yield one
    for remote in remotes:
        remote.close()


class Rig:
    """A loaded driver, and what its requests said."""

    def __init__(self, folder: Path, *urls: str, **fields: Any) -> None:
        retries = {"rounds": 3, "first_delay_s": 0.01, "max_delay_s": 0.05}
        spec = {
            "endpoints": [{"url": u, "model": f"m{n}", "key": "KEY"} for n, u in enumerate(urls)],
            "timeouts": {"connect_s": 5, "first_token_s": 5, "between_tokens_s": 5},
            "retries": retries,
            "breaking": {"failures": 100},
        }
        folder.mkdir(exist_ok=True)
        (folder / REMOTE_FILE).write_text(json.dumps(spec | fields))
        self.preparer = make(str(folder))
        self.driver = OpenAIDriver()
        self.spec = ReplicaSpec(
            "mdl_1", str(folder), str(folder), "d", 1000, 8, 0, secrets={"KEY": Secret("sk-very")}
        )
        self.report = self.driver.load(self.spec, lambda fraction, what: None)
        self.events: dict[str, list[Event]] = {}

    def ask(self, name: str, text: str = "hello", **sampling: Any) -> None:
        prompt = ChatPrompt([{"role": "user", "content": text}])
        tokens = self.preparer.prepare(PrepareItem(name, "", "", prompt, 0)).tokens
        self.events[name] = []
        self.driver.submit(WorkItem(name, tokens, Sampling(**{"max_tokens": 4} | sampling)))

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Until all have ended, or as said; waiting as the worker does."""
        deadline_s = time.monotonic() + PATIENCE_S
        while not (until() if until else all(map(is_over, self.events.values()))):
            assert time.monotonic() < deadline_s, self.events
            wait_s = self.driver.wait_s()
            assert wait_s in (None, 0.0)
            select.select([self.driver.wake_fd()], [], [], 0.5 if wait_s is None else 0.0)
            for event in self.driver.step():
                assert not is_over(self.events[event.request_id]), "one end each"
                self.events[event.request_id].append(event)

    def end(self, name: str) -> Event:
        return self.events[name][-1]

    def text(self, name: str) -> str:
        return "".join(e.text for e in self.events[name] if isinstance(e, Tokens))


def is_over(events: list[Event]) -> bool:
    return bool(events) and not isinstance(events[-1], Tokens | Outputs)


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def one(*urls: str, **fields: Any) -> Rig:
        made.append(Rig(tmp_path / f"m{len(made)}", *urls, **fields))
        return made[-1]

    yield one
    for each in made:
        each.driver.unload()


Make = Callable[..., Rig]


def test_an_answer(serve: Serve, rig: Make) -> None:
    remote = serve(at_once)
    one = rig(remote.url)
    one.ask("a")
    one.run()
    assert one.text("a") == "good"
    last = one.end("a")
    assert isinstance(last, Finished)
    assert last.reason is FinishReason.STOP
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (5, 4)
    (seen,) = remote.seen
    assert (seen.path, seen.body["model"]) == ("/v1/chat/completions", "m0")
    assert seen.headers["authorization"] == "Bearer sk-very"


def test_the_connection_is_used_again(serve: Serve, rig: Make) -> None:
    remote = serve(at_once)
    one = rig(remote.url)
    for name in "abc":
        one.ask(name)
        one.run()
    assert len(remote.seen) == 3
    assert remote.num_connections == 1


@pytest.mark.parametrize("script", BEFORE, ids=lambda script: script.__name__)
def test_the_next_one_answers(serve: Serve, rig: Make, script: Script) -> None:
    """Whatever the first one does before its first token, the request is not lost."""
    bad, good = serve(script), serve(at_once)
    one = rig(bad.url, good.url, timeouts=SHORT)
    one.ask("a")
    one.run()
    assert isinstance(one.end("a"), Finished)
    assert one.text("a") == "good"
    assert len(bad.seen) == 1
    assert good.seen[0].body["model"] == "m1"


@pytest.mark.parametrize("script", BEFORE, ids=lambda script: script.__name__)
def test_nobody_else_is_there(serve: Serve, rig: Make, script: Script) -> None:
    bad = serve(script)
    one = rig(bad.url, timeouts=SHORT)
    one.ask("a")
    one.run()
    last = one.end("a")
    assert isinstance(last, Failed)
    assert last.error.code == "remote_failed"
    assert last.error.details["begun"] is False
    assert last.error.details["host"] == f"127.0.0.1:{bad.port}"
    assert "sk-very" not in last.error.message
    is_final = script in (error_401, redirect)
    assert len(bad.seen) == (1 if is_final else 3)
    assert last.error.retryable is not is_final


@pytest.mark.parametrize("script", AFTER, ids=lambda script: script.__name__)
def test_in_mid_answer_it_fails(serve: Serve, rig: Make, script: Script) -> None:
    """What was said was said: nobody else is asked."""
    bad, good = serve(script), serve(at_once)
    one = rig(bad.url, good.url, timeouts=SHORT)
    one.ask("a")
    one.run()
    last = one.end("a")
    assert isinstance(last, Failed)
    assert (last.error.code, last.error.details["begun"]) == ("remote_failed", True)
    assert one.text("a") == "ab"
    assert last.usage.completion_tokens > 0
    assert (len(bad.seen), len(good.seen)) == (1, 0)


def test_it_comes_back_after_some_failures(serve: Serve, rig: Make) -> None:
    remote = serve(error_500)

    async def at_last(exchange: Exchange) -> None:
        await (at_once if len(remote.seen) == 3 else error_500)(exchange)

    remote.script = at_last
    one = rig(remote.url)
    one.ask("a")
    one.run()
    assert one.text("a") == "good"


def test_retry_after_is_waited_for(serve: Serve, rig: Make) -> None:
    remote = serve(at_once)
    at: list[float] = []

    async def busy(exchange: Exchange) -> None:
        at.append(time.monotonic())
        if len(at) == 1:
            await exchange.whole(429, b"{}", more="Retry-After: 0.4\r\n")
        else:
            await at_once(exchange)

    remote.script = busy
    one = rig(remote.url)
    one.ask("a")
    one.run()
    assert one.text("a") == "good"
    assert at[1] - at[0] >= 0.4


def test_retry_after_beyond_patience_is_told(serve: Serve, rig: Make) -> None:
    async def busy(exchange: Exchange) -> None:
        await exchange.whole(429, b"{}", more="Retry-After: 900\r\n")

    one = rig(serve(busy).url)
    one.ask("a")
    one.run()
    last = one.end("a")
    assert isinstance(last, Failed)
    assert (last.error.retry_after_s, last.error.details["cause"]) == (900.0, "busy")


def test_what_the_caller_must_change(serve: Serve, rig: Make) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.whole(400, b'{"error": {"message": "max_tokens is too large"}}')

    bad, good = serve(refuse), serve(at_once)
    one = rig(bad.url, good.url)
    one.ask("a")
    one.run()
    last = one.end("a")
    assert isinstance(last, Failed)
    assert last.error.code == "invalid_request"
    assert "max_tokens is too large" in last.error.message
    assert not good.seen


def test_the_circuit_opens_and_closes(serve: Serve, rig: Make) -> None:
    """Failures of one request spare the next ones the first endpoint, until it is tried again."""
    first, second = serve(error_500), serve(at_once)
    one = rig(first.url, second.url, breaking={"failures": 2, "open_s": 0.5})
    for name in "abcd":
        one.ask(name)
        one.run()
    assert len(first.seen) == 2
    assert "open" in one.driver.health().detail
    first.script = at_once
    begun_s = time.monotonic()
    while len(first.seen) == 2:
        assert time.monotonic() - begun_s < PATIENCE_S
        one.ask("again")
        one.run()
    assert all(isinstance(events[-1], Finished) for events in one.events.values())
    assert f"127.0.0.1:{first.port} closed" in one.driver.health().detail


def test_all_circuits_open(serve: Serve, rig: Make) -> None:
    remote = serve(error_500)
    one = rig(remote.url, breaking={"failures": 1, "open_s": 1000.0})
    for name in "ab":
        one.ask(name)
        one.run()
    last = one.end("b")
    assert isinstance(last, Failed)
    assert last.error.retry_after_s is not None
    assert last.error.retry_after_s > 900
    assert len(remote.seen) == 1


@pytest.mark.parametrize("script", [whole_json, no_usage], ids=lambda script: script.__name__)
def test_lesser_answers(serve: Serve, rig: Make, script: Script) -> None:
    one = rig(serve(script).url)
    one.ask("a")
    one.run()
    last = one.end("a")
    assert isinstance(last, Finished)
    assert one.text("a") == "good"
    assert last.usage.completion_tokens == len(one.events["a"]) - 1 or script is no_usage
    assert last.usage.prompt_tokens > 0


def test_an_abort_closes_the_connection(serve: Serve, rig: Make) -> None:
    closed: list[bool] = []

    async def listen(exchange: Exchange) -> None:
        await exchange.head()
        await exchange.say("a")
        closed.append(await exchange.reader.read(1) == b"")

    one = rig(serve(listen).url)
    one.ask("a")
    one.run(until=lambda: one.text("a") == "a")
    one.driver.abort("a", "no more")
    one.run()
    last = one.end("a")
    assert isinstance(last, Aborted)
    assert last.usage.completion_tokens == 1
    deadline_s = time.monotonic() + PATIENCE_S
    while not closed:
        assert time.monotonic() < deadline_s
        one.driver.step()
    assert closed == [True]


def test_a_paused_request_is_not_read(serve: Serve, rig: Make) -> None:
    """The remote is held back by its own socket, and no timer runs meanwhile."""
    num_sent = 0

    async def flood(exchange: Exchange) -> None:
        nonlocal num_sent
        await exchange.head()
        for _ in range(15_000):
            await exchange.say("x" * 1000)
            num_sent += 1
        await exchange.end("stop", 1)

    one = rig(serve(flood).url, timeouts={"between_tokens_s": 0.2, "first_token_s": 5})
    one.ask("a")
    one.run(until=lambda: bool(one.text("a")))
    one.driver.pause("a")
    num_before = -1
    while num_before != num_sent:
        num_before = num_sent
        select.select([], [], [], 0.3)
        assert one.driver.step() == []
    assert num_sent < 15_000
    assert one.driver.health().num_paused == 1
    one.driver.unpause("a")
    one.run()
    assert isinstance(one.end("a"), Finished)
    assert len(one.text("a")) == 15_000_000


def test_many_at_once_are_bounded(serve: Serve, rig: Make) -> None:
    now = most = 0

    async def count(exchange: Exchange) -> None:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.01)
        await at_once(exchange)
        now -= 1

    one = rig(serve(count).url, max_concurrency=3)
    assert one.report.num_slots == 3
    for number in range(20):
        one.ask(f"r{number}")
    one.run()
    assert all(one.text(name) == "good" for name in one.events)
    assert most <= 3


def test_one_that_hangs_holds_nobody_up(serve: Serve, rig: Make) -> None:
    async def some(exchange: Exchange) -> None:
        await (hang if exchange.text == "bad" else at_once)(exchange)

    one = rig(serve(some).url)
    one.ask("bad", "bad")
    for number in range(10):
        one.ask(f"r{number}")
    one.run(until=lambda: all(is_over(e) for name, e in one.events.items() if name != "bad"))
    assert not one.events["bad"]


def test_what_it_costs(serve: Serve, rig: Make) -> None:
    bad, good = serve(error_500), serve(at_once)
    cheap = {"price": {"input": 1.0, "output": 4.0}, "extra": {"service_tier": "flex"}}
    endpoints = [
        {"url": bad.url, "model": "m", "price": {"input": 100, "output": 100}},
        {"url": good.url, "model": "m", **cheap},
    ]
    one = rig(endpoints=endpoints)
    one.ask("a")
    one.run()
    assert good.seen[0].body["service_tier"] == "flex"
    assert "service_tier" not in bad.seen[0].body
    assert one.end("a").usage.cost == pytest.approx((5 * 1.0 + 4 * 4.0) / 1e6)  # type: ignore[union-attr]


def priced(letter: str) -> dict[str, Any]:
    one = {"token": letter, "logprob": -0.5, "bytes": list(letter.encode())}
    return {**one, "top_logprobs": [one]}


def test_log_probabilities_come_with_the_text(serve: Serve, rig: Make) -> None:
    async def tell(exchange: Exchange) -> None:
        await exchange.head()
        for letters in ("go", "od"):
            delta = {"index": 0, "delta": {"content": letters}, "finish_reason": None}
            found = {"content": [priced(letter) for letter in letters]}
            await exchange.event({"choices": [delta | {"logprobs": found}]})
        await exchange.end("stop", 4, has_usage=False)

    silent, telling = serve(at_once), serve(tell)
    one = rig(silent.url, telling.url)
    one.ask("a", logprobs=1)
    one.run()
    assert one.text("a") == "good"
    assert telling.seen[0].body["top_logprobs"] == 1
    told = [one for e in one.events["a"] if isinstance(e, Tokens) for one in e.logprobs or ()]
    assert [one.drawn.piece for one in told] == [b"g", b"o", b"o", b"d"]
    last = one.end("a")
    assert isinstance(last, Finished)
    assert last.usage.completion_tokens == 4  # a piece is as many tokens as it tells of
    assert len(silent.seen) == 1


def test_nobody_tells_log_probabilities(serve: Serve, rig: Make) -> None:
    remote = serve(at_once)
    one = rig(remote.url)
    one.ask("a", logprobs=0)
    one.run()
    last = one.end("a")
    assert isinstance(last, Failed)
    assert (last.error.code, last.error.param) == ("unsupported_parameter", "logprobs")
    assert len(remote.seen) == 1


def test_a_secret_that_is_not_set(tmp_path: Path, serve: Serve) -> None:
    rig = Rig(tmp_path, serve(at_once).url)
    rig.driver.unload()
    spec = ReplicaSpec("m", rig.spec.folder, "", "", 1000, 8, 0)
    with pytest.raises(LoadFailed, match="KEY"):
        OpenAIDriver().load(spec, lambda fraction, what: None)


def test_what_it_reaches_out_to_is_declared(serve: Serve, rig: Make) -> None:
    remote = serve(at_once)
    can = rig(remote.url).driver.capabilities
    assert (can.egress, can.secrets) == ([f"127.0.0.1:{remote.port}"], ["KEY"])


def test_a_secret_says_nothing() -> None:
    spec = ReplicaSpec("m", "", "", "", 1, 1, 0, secrets={"KEY": Secret("sk-very")})
    assert "sk-very" not in f"{spec} {spec!r}"


def test_load_under_way_ends_with_it(serve: Serve, rig: Make) -> None:
    one = rig(serve(go_on).url)
    one.ask("a", max_tokens=500)
    one.run(until=lambda: bool(one.text("a")))
    one.driver.unload()
    assert one.driver.health().ok is False
