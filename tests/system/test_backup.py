"""Backup and restore with the real server, the real command line, and clients at work."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import httpx

from tests.system.server import Server

JOB = {"program": "drill", "inputs": {"steps": [{"do": "sleep", "seconds": 0.01}]}}


class Churn(threading.Thread):
    """Adds files and jobs and removes some, until told to end; `files` and `jobs` are
    acknowledged and not removed."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.jobs: list[str] = []
        self.has_some = threading.Event()
        self._server = server
        self._done = threading.Event()

    def run(self) -> None:
        with self._server.client() as client:
            number = 0
            while not self._done.is_set():
                number += 1
                self._turn(client, number)
                if number == 10:
                    self.has_some.set()

    def _turn(self, client: httpx.Client, number: int) -> None:
        data = f"第 {number} 个文件 🐼\n".encode() * number
        form = {"file": (f"{number}.txt", data)}
        made = client.post("/v1/files", data={"purpose": "user_data"}, files=form)
        assert made.status_code == 200, made.text
        if number % 4 == 0:
            gone = client.delete(f"/v1/files/{made.json()['id']}")
            assert gone.status_code == 200, gone.text
        else:
            self.files[made.json()["id"]] = data
        job = client.post("/os/v1/jobs", json=JOB)
        assert job.status_code < 300, job.text
        self.jobs.append(job.json()["job"]["job_id"])

    def end(self) -> None:
        self._done.set()
        self.join()


def test_a_backup_beside_clients_holds_what_was_acknowledged(
    own_server: Server, tmp_path: Path
) -> None:
    own_server.options = ("--preload", "echo", "--set", "storage.collect_interval_s=0.05")
    own_server.start()
    churn = Churn(own_server)
    churn.start()
    try:
        assert churn.has_some.wait(30)
        files, jobs = dict(churn.files), list(churn.jobs)
        done = own_server.cli("backup", str(tmp_path / "备份"), "--json")
        assert done.returncode == 0, done.stderr
    finally:
        churn.end()
    own_server.kill()
    home = tmp_path / "restored"
    restored = own_server.cli("restore", str(tmp_path / "备份"), "--home", str(home))
    assert restored.returncode == 0, restored.stderr
    again = Server(home, "--preload", "echo")
    try:
        again.start()
        with again.client() as client:
            assert client.get("/os/v1/disk").json()["num_missing"] == 0
            for file_id, data in files.items():
                assert client.get(f"/v1/files/{file_id}/content").content == data
            for job_id in jobs:
                assert client.get(f"/os/v1/jobs/{job_id}").status_code == 200
            listed = client.get("/v1/files", params={"limit": 10_000}).json()["data"]
            for file in listed:  # of what came later, whatever is on record is there whole
                content = client.get(f"/v1/files/{file['id']}/content").content
                assert len(content) == file["bytes"]
        assert again.stop() == 0
    finally:
        again.kill()


def test_an_interrupted_backup_leaves_nothing(own_server: Server, tmp_path: Path) -> None:
    own_server.start()
    with own_server.client() as client:
        _put_large_files(client)
    # on a busy machine a backup may end before we get to interrupt it: then another one
    target = next(t for t in (tmp_path / f"{n}" for n in range(10)) if _interrupts(own_server, t))
    _until(lambda: not target.exists())
    with own_server.client() as client:
        assert client.get("/os/v1/disk").json()["by_use"]["held"] == 0
    assert own_server.stop() == 0


_AT_A_TERMINAL = """
import signal, sys
from llmos.cli.main import main
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
"""
"""Of a shell that runs the tests in the background, commands inherit to ignore interrupts."""


def _interrupts(server: Server, target: Path) -> bool:
    """Whether a backup was under way when its command was interrupted."""
    process = subprocess.Popen(
        [sys.executable, "-c", _AT_A_TERMINAL, "backup", str(target)],
        env={"LLMOS_HOME": str(server.home), "PATH": "/usr/bin:/bin"},
        stderr=subprocess.DEVNULL,
    )
    _until(lambda: (target / "unfinished").exists() or process.poll() is not None)
    process.send_signal(signal.SIGINT)
    status = process.wait(20)
    assert status in (0, 130)
    return status == 130


def _put_large_files(client: httpx.Client) -> None:
    """Large enough together that to read them takes longer than to end a command."""
    for number in range(16):
        form = {"file": ("large.bin", number.to_bytes(1) + bytes(32 << 20))}
        made = client.post("/v1/files", data={"purpose": "user_data"}, files=form)
        assert made.status_code == 200, made.text


def _until(what: Callable[[], bool], limit_s: float = 10.0) -> None:
    poll = threading.Event()
    for _ in range(int(limit_s / 0.005)):
        if what():
            return
        poll.wait(0.005)
    raise AssertionError(f"not so within {limit_s} s")
