"""The log of a server elsewhere: asked for, followed, and only by who may."""

from __future__ import annotations

import threading

import httpx
import pytest

from llmos.errors import PermissionDenied, QuotaExceeded, ServerUnreachable, ShuttingDown
from llmos.sdk import Client
from tests.system.server import Server


def test_it_is_read_by_administrators_and_holds_no_secret(server: Server) -> None:
    with Client(server.url, server.token) as client:
        entries = client.logs(1000)
        assert entries
        assert all({"time", "level", "logger", "message"} <= entry.keys() for entry in entries)
        assert len(client.logs(2)) == 2
        assert len(client.logs(0)) == 0
        key = client.keys.add("reader", "shop")
    assert server.token not in str(entries)
    assert server.token not in repr(entries)
    with Client(server.url, key.secret) as client:
        with pytest.raises(PermissionDenied):
            client.logs()
        with pytest.raises(PermissionDenied):
            client.follow_logs()
    with server.client() as http:
        assert http.get("/os/v1/logs?lines=100000").status_code == 400
        assert http.get("/os/v1/logs?line=1").json()["error"]["code"] == "unknown_parameter"
    assert httpx.get(server.url + "/os/v1/logs").status_code == 401


def test_what_comes_is_followed_and_a_stop_is_not_held_up(own_server: Server) -> None:
    own_server.options = ("--preload", "echo", "--set", "api.max_log_followers=1")
    own_server.start()
    heard = threading.Event()
    with Client(own_server.url, own_server.token) as client:
        stream = client.follow_logs(0)
        with pytest.raises(QuotaExceeded):
            client.follow_logs(0)
        client.models.load("sentiment")  # it is told of in the log
        first = next(stream)
        assert first["message"]

        def read() -> None:
            with pytest.raises((ShuttingDown, ServerUnreachable)):
                for _ in stream:
                    pass
            heard.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert own_server.stop() == 0, own_server.log
        assert heard.wait(10)
        reader.join()
    assert "answers under way" not in own_server.log
