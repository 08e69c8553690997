"""What keeps others out: the policy, the origin, the session."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

from llmos.console import session
from llmos.console.guard import Sealed, is_same_origin, policy
from llmos.console.login import _next_of

NOW_S = 1_800_000_000.0


def _scope(path: str = "/", method: str = "GET", **headers: str) -> dict[str, Any]:
    pairs = {"host": "127.0.0.1:8400", **{k.replace("_", "-"): v for k, v in headers.items()}}
    raw = [(k.encode(), v.encode()) for k, v in pairs.items()]
    return {"type": "http", "path": path, "method": method, "headers": raw, "query_string": b""}


def test_a_session_comes_back_as_it_was_given() -> None:
    cookie = session.login_cookie(_scope(), "llmos_a-b", 60, NOW_S).decode()
    assert "HttpOnly; SameSite=Strict" in cookie
    assert "Max-Age=60" in cookie
    scope = _scope(cookie=cookie.split(";")[0])
    assert session.find_session(scope, NOW_S + 59) == session.Session("llmos_a-b", int(NOW_S) + 60)
    assert session.find_session(scope, NOW_S + 60) is None


def test_servers_on_other_ports_have_other_cookies() -> None:
    assert session.cookie_name(_scope()) == "llmos_session_8400"
    assert session.cookie_name(_scope(host="[::1]:9000")) == "llmos_session_9000"
    assert session.cookie_name(_scope(host="llm.example")) == "llmos_session_default"


@pytest.mark.parametrize("key", ["", "a b", "a;b", 'a"b', "ä", "x" * 600, "a\r\nset-cookie: b=c"])
def test_what_can_be_no_key_makes_no_cookie(key: str) -> None:
    with pytest.raises(ValueError, match="no key"):
        session.login_cookie(_scope(), key, 60)


@pytest.mark.parametrize("value", ["", "x", "12", "12.", ".k", "x.k", "99999999999999.k", "1.k;"])
def test_a_broken_cookie_is_no_session(value: str) -> None:
    assert session.find_session(_scope(cookie=f"llmos_session_8400={value}"), 0.0) in {
        None,
        session.Session("k", 1),
    }
    assert session.find_session(_scope(cookie=f"llmos_session_8400={value}"), NOW_S) is None


@pytest.mark.parametrize(
    ("headers", "language"),
    [
        ({}, "en"),
        ({"accept_language": "zh-CN,zh;q=0.9,en;q=0.8"}, "zh"),
        ({"accept_language": "fr,zh;q=0.5"}, "zh"),
        ({"accept_language": "zh", "cookie": "llmos_language=en"}, "en"),
        ({"cookie": "llmos_language=xx"}, "en"),
    ],
)
def test_the_language_is_chosen_or_asked_for(headers: dict[str, str], language: str) -> None:
    assert session.language_of(_scope(**headers)) == language


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({}, True),
        ({"origin": "http://127.0.0.1:8400"}, True),
        ({"origin": "http://127.0.0.1:8401"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://127.0.0.1:8400.evil.example"}, False),
        ({"sec_fetch_site": "cross-site"}, False),
        ({"sec_fetch_site": "same-site"}, False),
        ({"sec_fetch_site": "same-origin"}, True),
    ],
)
def test_only_our_own_pages_ask(headers: dict[str, str], same: bool) -> None:
    assert is_same_origin(_scope(**headers)) is same


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/models", "/models"),
        ("/processes?id=1", "/processes?id=1"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("https://evil.example", "/"),
        ("/a\r\nset-cookie: b=c", "/"),
        ("", "/"),
    ],
)
def test_logging_in_leads_nowhere_else(path: str, kept: str) -> None:
    assert _next_of({"next": [path]}) == kept


def test_the_policy_names_no_other_host() -> None:
    rules = policy("abc").decode()
    assert "http" not in rules
    assert "*" not in rules
    assert "script-src 'self' 'nonce-abc' 'unsafe-eval'" in rules
    assert "'unsafe-inline'" not in rules.split("style-src")[0]


def _answer(kind: bytes, *pieces: bytes) -> tuple[dict[str, Any], bytes]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", kind), (b"content-length", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces[:-1]:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": pieces[-1]})

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(Sealed(app)(_scope(), None, send))  # type: ignore[arg-type]
    head = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    return head, b"".join(message["body"] for message in sent[1:])


def test_every_script_of_a_page_is_marked_as_ours() -> None:
    head, body = _answer(
        b"text/html; charset=utf-8", b"<script>a</scr", b"ipt><script src=x><scripts>"
    )
    nonce = re.search(r"nonce-([^']+)'", head["content-security-policy"])
    assert nonce is not None
    mark = f' nonce="{nonce[1]}"'
    assert body.decode() == f"<script{mark}>a</script><script{mark} src=x><scripts>"
    assert head["content-length"] == str(len(body))
    again, _ = _answer(b"text/html", b"<script>")
    assert again["content-security-policy"] != head["content-security-policy"]


def test_what_is_no_page_passes_as_it_is() -> None:
    head, body = _answer(b"text/javascript", b"'<script>'", b"x")
    assert body == b"'<script>'x"
    assert "content-security-policy" not in head
    assert head["x-frame-options"] == "DENY"
