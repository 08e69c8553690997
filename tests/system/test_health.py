"""Health that tells the truth: stopped, dead and starved, and back again."""

from __future__ import annotations

import os
import signal
import time

import httpx

from tests.system.server import Server
from tests.system.test_faults import echo, until, worker_of

NOTICED_S = 5.0


def is_ready(client: httpx.Client) -> bool:
    return client.get("/readyz").status_code == 200


def problems(client: httpx.Client) -> str:
    return "; ".join(client.get("/readyz").json()["problems"])


def test_a_stopped_worker_is_not_ready_in_time_and_ready_when_it_goes_on(
    own_server: Server,
) -> None:
    server = own_server
    server.options = ("--preload", "echo")
    server.start()
    with server.client() as client:
        pid = worker_of(client, "echo")
        os.kill(pid, signal.SIGSTOP)
        assert until(lambda: not is_ready(client)) < NOTICED_S
        assert f"the worker of echo:1 (pid {pid}) is stopped by a signal" in problems(client)
        assert client.get("/healthz").status_code == 200  # the kernel itself is well
        os.kill(pid, signal.SIGCONT)
        until(lambda: is_ready(client))
        assert client.post("/v1/chat/completions", json=echo(stream=False)).status_code == 200


def test_a_worker_that_stays_stopped_is_replaced_and_its_streams_end(own_server: Server) -> None:
    server = own_server
    server.options = ("--preload", "echo", "--set", "kernel.stopped_timeout_s=2")
    server.start()
    with server.client() as client:
        pid = worker_of(client, "echo")
        with client.stream(
            "POST", "/v1/chat/completions", json=echo(tokens=5_000, delay_ms=20)
        ) as answer:
            lines = answer.iter_lines()
            next(lines)
            os.kill(pid, signal.SIGSTOP)
            rest = list(lines)
        assert "worker_lost" in rest[-2]
        until(lambda: is_ready(client))
        assert worker_of(client, "echo") != pid


def test_a_dead_worker_is_not_ready_at_once_and_its_successor_is(own_server: Server) -> None:
    server = own_server
    server.options = ("--preload", "echo")
    server.start()
    with server.client() as client:
        os.kill(worker_of(client, "echo"), signal.SIGKILL)
        assert until(lambda: not is_ready(client)) < NOTICED_S
        assert "echo:1 is not loaded" in problems(client)
        until(lambda: is_ready(client))


def test_sigterm_drains_within_its_bound_and_tells_who_is_cut_off(
    own_server: Server,
) -> None:
    server = own_server
    server.options = ("--preload", "echo", "--set", "kernel.drain_timeout_s=1")
    server.start()
    with (
        server.client() as client,
        client.stream(
            "POST", "/v1/chat/completions", json=echo(tokens=5_000, delay_ms=20)
        ) as answer,
    ):
        lines = answer.iter_lines()
        next(lines)
        begun = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        rest = list(lines)
        assert "shutting_down" in rest[-2]
        assert 0.9 < time.monotonic() - begun < 10
    assert server.stop(signal.SIGCONT) == 0  # waits; a second SIGTERM would mean it
