"""Logging in, staying in, being out."""

from __future__ import annotations

import time
from collections.abc import Callable

import httpx

from tests.browser.conftest import Visitor
from tests.system.server import Server


def test_a_wrong_key_opens_nothing(visitor: Callable[..., Visitor], server: Server) -> None:
    who = visitor()
    who.page.goto(server.url + "/models")
    assert "/login?next=%2Fmodels" in who.page.url
    who.page.fill("#key", "llmos_wrong")
    who.page.click("button[type=submit]")
    who.page.get_by_role("alert").wait_for()
    assert who.page.get_by_role("alert").inner_text() == "This key opens nothing here."
    who.problems.clear()  # the browser tells of the 401
    who.page.fill("#key", server.token)
    who.page.click("button[type=submit]")
    who.settle()


def test_the_key_is_where_no_script_reads_it(me: Visitor) -> None:
    assert me.server.token not in me.page.evaluate("document.cookie")
    assert me.server.token not in me.page.content()
    assert me.server.token not in me.page.url
    cookie = next(c for c in me.context.cookies() if c["name"].startswith("llmos_session"))
    assert cookie["httpOnly"]
    assert cookie["sameSite"] == "Strict"


def test_logging_out_ends_it(me: Visitor) -> None:
    me.page.get_by_role("button", name="Log out").click()
    me.page.wait_for_url("**/login")
    me.page.goto(me.server.url + "/models")
    assert "/login" in me.page.url


def test_a_session_that_runs_out_is_said_so(visitor: Callable[..., Visitor]) -> None:
    me = visitor().log_in()
    cookie = next(c for c in me.context.cookies() if c["name"].startswith("llmos_session"))
    key = cookie["value"].partition(".")[2]
    soon = int(time.time()) + 3
    me.context.add_cookies([{**cookie, "value": f"{soon}.{key}"}])
    me.page.goto(me.server.url + "/overview")
    me.page.wait_for_url("**/login?expired=1*")
    me.page.get_by_text("Your session has ended. Log in again.").wait_for()


def test_a_revoked_key_leads_to_the_login(visitor: Callable[..., Visitor], server: Server) -> None:
    with server.client() as client:
        made = client.post("/os/v1/keys", json={"name": "cy", "tenant": "shop"}).json()
        who = visitor().log_in(made["secret"])
        who.go("/processes")
        client.delete("/os/v1/keys/cy")
    who.page.wait_for_url("**/login?expired=1*")


def test_other_origins_are_kept_out(server: Server) -> None:
    """A page of somebody else's, in a browser with our cookie."""
    with httpx.Client(base_url=server.url) as client:
        entered = client.post("/login", data={"key": server.token})
        assert entered.status_code == 303
        theirs = {"origin": "http://evil.example"}
        assert client.post("/login", data={"key": server.token}, headers=theirs).status_code == 403
        assert client.post("/logout", headers=theirs).status_code == 403
        handshake = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
        upgrade = {
            "connection": "Upgrade",
            "upgrade": "websocket",
            "sec-websocket-version": "13",
            "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
        assert client.get(handshake, headers=upgrade | theirs).status_code == 403
        assert client.get(handshake, headers=upgrade).status_code == 403  # no browser at all
        client.cookies.clear()
        ours = {"origin": server.url}
        assert client.get(handshake, headers=upgrade | ours).status_code == 403
