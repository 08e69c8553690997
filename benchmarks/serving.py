"""A real `llmos serve` for benchmarks, and the load clients that are run against it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.load import Outcome, Plan

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
CLIENT_TIMEOUT_S = 120.0
HOST = "127.0.0.1"

WRK_REPORT = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format("RESULT %d %d %d\\n", summary.requests, summary.duration,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""


class Server:
    """One running server over a home of its own."""

    def __init__(self, home: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.home, self.port, self.process = home, port, process

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    def request(self, body: dict[str, Any], route: str = "/v1/chat/completions") -> bytes:
        """A whole HTTP request as it goes over the wire."""
        data = json.dumps(body, ensure_ascii=False).encode()
        head = (
            f"POST {route} HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n"
            f"Authorization: Bearer {self.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        return head.encode() + data


@contextlib.contextmanager
def serving(*options: str) -> Iterator[tuple[Server, float]]:
    """A ready server with `options`, and the seconds from its start until it was ready."""
    with tempfile.TemporaryDirectory(prefix="llmos-bench-") as folder:
        began = time.perf_counter()
        server = start(Path(folder) / "home", free_port(), *options)
        try:
            yield server, time.perf_counter() - began
        finally:
            stop(server)


def start(home: Path, port: int, *options: str) -> Server:
    """A ready server over a home, its log beside it. Raises RuntimeError with the log."""
    log_path = home.with_name(home.name + ".log")
    command = [sys.executable, "-m", "llmos.cli.main", "serve", "--home", str(home)]
    command += ["--port", str(port), *options]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    with log_path.open("ab") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=env, start_new_session=True)
    server, deadline = Server(home, port, process), time.monotonic() + READY_TIMEOUT_S
    while not is_ready(port):
        if process.poll() is not None or time.monotonic() > deadline:
            stop(server)
            raise RuntimeError(f"serve is not ready:\n{log_path.read_text()}")
        time.sleep(0.005)
    return server


def stop(server: Server, sent: signal.Signals = signal.SIGTERM) -> None:
    """Signal the server, wait, then kill what is left of its process group."""
    process = server.process
    process.send_signal(sent)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        return int(bound.getsockname()[1])


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def load(plan: Plan) -> Outcome:
    """Run a plan in a process of its own. Raises RuntimeError when anything but 200 came back."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.load"],
        input=msgspec.json.encode(plan),
        capture_output=True,
        timeout=CLIENT_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(done.stderr.decode())
    outcome = msgspec.json.decode(done.stdout, type=Outcome)
    if outcome.errors:
        raise RuntimeError(f"{outcome.errors} of the {plan.mode} run's requests failed")
    return outcome


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def peak(server: Server, request: bytes, connections: int, duration_s: int) -> float:
    """Requests per second with every connection always busy: wrk, or our own client without it."""
    if not has_wrk():
        plan = Plan("closed", HOST, server.port, request, connections, duration_s)
        outcome = load(plan)
        return len(outcome.latencies_s) / outcome.wall_s
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_lua(request) + WRK_REPORT)
        script.flush()
        url = f"http://{HOST}:{server.port}/"
        command = ["wrk", "-t1", f"-c{connections}", f"-d{duration_s}s", "-s", script.name, url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"RESULT (\d+) (\d+) (\d+)", done.stdout)
    if found is None or int(found[3]) or not int(found[1]):
        raise RuntimeError(f"wrk had errors:\n{done.stdout}{done.stderr}")
    return int(found[1]) / (int(found[2]) / 1e6)


def _lua(request: bytes) -> str:
    """A wrk script that sends exactly these bytes."""
    literal = "".join(f"\\{byte:03d}" for byte in request)
    return f'local bytes = "{literal}"\nrequest = function() return bytes end\n'
