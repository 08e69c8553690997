"""A home whose lives are real servers, and the clients that go on over their deaths."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.storm import clock
from tests.storm.cell import ROOT, Cell, Stuck

POLL_S = 0.005
STOP_TIMEOUT_S = 30.0
LIVE = ("blocked", "pending", "running", "suspended")


class ServerCell(Cell):
    """As a Cell; its lives listen on one port."""

    def __init__(self, folder: Path, seed: int, **options: Any) -> None:
        super().__init__("serve", folder, seed, **options)
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port = int(bound.getsockname()[1])
        self.clients: list[subprocess.Popen[bytes]] = []
        self.workers_killed = 0
        self.clock = folder / "clock"
        clock.make(self.clock)
        self.ready_s: list[float] = []

    def start(self, plan: Any, **order: Any) -> None:
        super().start(plan, **{"port": self.port, "clock": str(self.clock), **order})

    def wait_ready(self, timeout_s: float = 60.0) -> bool:
        """Until `/readyz` says yes; False when the life ended before."""
        began_s = time.monotonic()
        while time.monotonic() - began_s < timeout_s:
            if self.wait_ended(0.0) or self.wait_ended(POLL_S):
                return False
            if self.get("/readyz") is not None and (about := self.get("/os/v1/status")):
                self.ready_s.append(time.monotonic() - began_s)
                self.marks.mark("ready", epoch=int(about["epoch"]))
                return True
        raise Stuck(f"not ready in {timeout_s} s:\n{self.zygote.tail()}")

    @property
    def token(self) -> str:
        return (self.home / "token").read_text().strip()

    def get(self, path: str) -> Any:
        """The JSON at `path`; None when there is no good answer."""
        return self.ask("GET", path)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            headers = {"Authorization": f"Bearer {self.token}"}
            data = None if body is None else json.dumps(body)
            if data is not None:
                headers["Content-Type"] = "application/json"
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            data_got = answer.read()
            return json.loads(data_got) if answer.status == 200 else None
        except (OSError, http.client.HTTPException, ValueError):
            return None
        finally:
            connection.close()

    def start_clients(self, num_processes: int = 1, **order: Any) -> None:
        for number in range(num_processes):
            made = {
                "port": self.port,
                "token_path": str(self.home / "token"),
                "history": str(self.history),
                "name": f"c{len(self.clients)}",
                "seed": self.seed + number,
                **order,
            }
            command = [sys.executable, "-m", "tests.storm.clients", json.dumps(made)]
            with (self.folder / "clients.log").open("ab") as log:
                self.clients.append(subprocess.Popen(command, cwd=ROOT, stderr=log, stdout=log))

    def stop_clients(self, timeout_s: float = 120.0) -> None:
        """They ask again for what was not answered, and end."""
        clients, self.clients = self.clients, []
        for client in clients:
            client.send_signal(signal.SIGTERM)
        for client in clients:
            try:
                code = client.wait(timeout_s)
            except subprocess.TimeoutExpired:
                client.kill()
                client.wait()
                raise Stuck("clients get no answers") from None
            if code != 0:
                log = (self.folder / "clients.log").read_text()[-3000:]
                raise Stuck(f"a client ended with {code}:\n{log}")

    def jump_clock(self, offset_ns: int) -> None:
        """The wall clock of this and of further lives."""
        clock.jump(self.clock, offset_ns)
        self.marks.mark("clock", str(offset_ns))

    def kill_worker(self) -> bool:
        """One of the server's workers, by chance."""
        found = self.get("/os/v1/workers")
        told = [int(worker["pid"]) for worker in (found or {}).get("workers", ())]
        pids = [pid for pid in told if pid > 1]  # 0, which would be us: it has no process yet
        if not pids:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.random.choice(pids), signal.SIGKILL)
            self.workers_killed += 1
        return True

    def wait_done(self, timeout_s: float) -> None:
        """Until no job is left that has not ended."""
        until_s = time.monotonic() + timeout_s
        left: Any = None
        while time.monotonic() < until_s:
            left = self.get("/os/v1/jobs?state=live&limit=5")
            if left is not None and not left["jobs"]:
                return
            if self.wait_ended(0.02):
                raise Stuck(f"the last server ended with {self.ended}:\n{self.zygote.tail()}")
        raise Stuck(f"not all had ended {timeout_s} s after the last kill: {str(left)[:1500]}")

    def stop(self) -> int:
        """By SIGTERM, as an operator does; the exit status."""
        os.kill(self.pid, signal.SIGTERM)
        if not self.wait_ended(STOP_TIMEOUT_S):
            raise Stuck(f"SIGTERM does not end it:\n{self.zygote.tail()}")
        assert self.ended is not None
        return self.ended

    def close(self) -> None:
        for client in self.clients:
            client.kill()
            client.wait()
        super().close()
