"""Processes: watched, suspended, resumed and killed; by two people at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx

from tests.browser.conftest import Visitor
from tests.system.server import Server

SLOWLY = {"tokens": 5000, "delay_ms": 20}


@contextmanager
def _running(server: Server) -> Iterator[str]:
    """A request that takes a while; its id."""
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        body = {
            "model": "echo",
            "messages": [{"role": "user", "content": "word"}],
            "llmos": {"driver": SLOWLY},
        }
        answer = pool.submit(client.post, "/v1/chat/completions", json=body, timeout=120)
        process_id = _live(client)
        try:
            yield process_id
        finally:
            client.delete(f"/os/v1/processes/{process_id}")
            answer.result()


def _live(client: httpx.Client) -> str:
    while True:
        found = client.get("/os/v1/processes?state=live").json()["processes"]
        if found:
            return str(found[0]["process_id"])


def _row(who: Visitor, process_id: str) -> Any:
    return who.page.get_by_role("row").filter(has_text=process_id[-8:])


def test_a_request_is_suspended_and_resumed(me: Visitor) -> None:
    with _running(me.server) as process_id:
        me.go("/processes")
        _row(me, process_id).get_by_role("button").click()
        pane = me.page.get_by_role("complementary", name="Why")
        pane.get_by_role("button", name="Suspend").click()
        _row(me, process_id).get_by_text("suspended").wait_for()
        pane.locator(".stays .chip", has_text="suspended").wait_for()
        pane.get_by_role("button", name="Resume").click()
        _row(me, process_id).get_by_text("running").wait_for()


def test_two_operators_at_once(me: Visitor, visitor: Callable[..., Visitor]) -> None:
    """What one does, the other sees; who comes too late gets a message and no crash."""
    other = visitor().log_in()
    with _running(me.server) as process_id:
        for who in (me, other):
            who.go("/processes")
            _row(who, process_id).get_by_role("checkbox").check()
        me.page.get_by_role("button", name="Suspend").first.click()
        _row(other, process_id).get_by_text("suspended").wait_for()
        other.page.get_by_role("button", name="Suspend").first.click()
        other.page.locator(".q-notification", has_text="conflict").wait_for()
        other.page.get_by_role("button", name="Kill").first.click()
        me.page.get_by_text("Nothing here yet").wait_for()


def test_a_story_is_told_from_a_link(me: Visitor) -> None:
    body = {"model": "pilot", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    with me.server.client() as client:
        made = client.post("/v1/chat/completions", json=body)
    me.go(f"/processes?id={made.headers['x-request-id']}")
    pane = me.page.get_by_role("complementary", name="Why")
    pane.get_by_text("accepted").wait_for()
    assert pane.locator(".life i").count() >= 2
    assert pane.get_by_role("button", name="Kill").is_disabled()


def test_a_process_nobody_knows_is_said_to_be_so(me: Visitor) -> None:
    me.go("/processes?id=req_00000000000000000000000000000000")
    me.page.locator(".q-notification", has_text="no process").wait_for()
