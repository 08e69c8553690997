"""A full disk and too few file descriptors: new work is refused at once, what was acknowledged
stays, and the server goes on by itself when there is room again."""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.server import Server
from tests.system.small_disk import SmallDisk

DISK_BYTES = 64 << 20
FLOOR_BYTES = 8 << 20
LARGE_FLOOR_BYTES = 24 << 20
"""Of which half holds what the database's log takes besides."""

REFUSED_S = 1.0
RECOVERED_S = 10.0
POLL_S = 0.05
UPLOAD = "/os/v1/uploads/upl_{}/x"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    disk = SmallDisk(tmp_path / "home", DISK_BYTES)
    try:
        yield disk
    finally:
        disk.close()


@pytest.fixture
def cramped(small_disk: SmallDisk, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server whose home is the small disk, started; `param` is another floor."""
    floor_bytes = getattr(request, "param", FLOOR_BYTES)
    options = ("--preload", "echo", "--set", f"storage.min_free_bytes={floor_bytes}")
    server = Server(
        small_disk.seen, *options, launcher=small_disk.launcher, served=small_disk.folder
    )
    server.log_path = small_disk.folder.with_name("server.log")
    failed_before = request.session.testsfailed
    try:
        yield server.start()
    finally:
        server.kill()
        if request.session.testsfailed > failed_before:
            print(f"server log:\n{server.log[-8000:]}")


def _timed(ask: Callable[[], httpx.Response]) -> tuple[float, int, str]:
    """Seconds, status, code of the error."""
    begun = time.monotonic()
    answer = ask()
    took_s = time.monotonic() - begun
    is_json = answer.headers.get("content-type", "").startswith("application/json")
    error = answer.json().get("error") if is_json else None
    return took_s, answer.status_code, error["code"] if error else ""


def _new_work(client: httpx.Client) -> dict[str, Callable[[], httpx.Response]]:
    """Everything that asks the server to keep something."""
    number = os.urandom(16).hex()
    body = os.urandom(1 << 20)
    form = {"file": ("大.bin", body)}
    job = {"program": "drill", "inputs": {"steps": []}}
    return {
        "upload": lambda: client.put(UPLOAD.format(number), content=body),
        "file": lambda: client.post("/v1/files", data={"purpose": "user_data"}, files=form),
        "job": lambda: client.post("/os/v1/jobs", json=job),
    }


def _chat(client: httpx.Client) -> int:
    body = {"model": "echo", "messages": [{"role": "user", "content": "你好"}], "max_tokens": 4}
    return client.post("/v1/chat/completions", json=body).status_code


def _add_file(client: httpx.Client, data: bytes) -> str:
    form = {"file": ("kept.bin", data)}
    answer = client.post("/v1/files", data={"purpose": "user_data"}, files=form)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def _content(client: httpx.Client, file_id: str) -> bytes:
    answer = client.get(f"/v1/files/{file_id}/content")
    assert answer.status_code == 200, answer.text
    return answer.content


def _until(what: Callable[[], bool], limit_s: float) -> float:
    """Seconds until it is so. Fails after `limit_s`."""
    begun = time.monotonic()
    while not what():
        took_s = time.monotonic() - begun
        assert took_s < limit_s, f"not so within {limit_s} s"
        threading.Event().wait(POLL_S)
    return time.monotonic() - begun


def _is_ready(server: Server) -> bool:
    return httpx.get(server.url + "/readyz", timeout=5.0).status_code == 200


def _all_works(client: httpx.Client) -> bool:
    return all(ask().status_code < 300 for ask in _new_work(client).values())


def _leftovers(home: Path) -> list[str]:
    """What refused work left: uploads that arrived whole are their clients', workers' are not."""
    names = ("upload-", "taken-", "blob-", "export-", "pull-")
    return [p.name for p in (home / "scratch").iterdir() if p.name.startswith(names)]


def test_below_the_floor_new_work_is_refused(cramped: Server, small_disk: SmallDisk) -> None:
    kept = os.urandom(1 << 20)
    with cramped.client() as client:
        file_id = _add_file(client, kept)
        small_disk.fill(leave_bytes=FLOOR_BYTES // 2)
        for name, ask in _new_work(client).items():
            took_s, status, code = _timed(ask)
            assert (status, code) == (507, "disk_full"), name
            assert took_s < REFUSED_S, f"{name}: {took_s:.2f} s"
        pulled = cramped.cli("pull", "file:" + str(_model_folder()), "--name", "x", "--json")
        assert pulled.returncode == 1 and '"disk_full"' in pulled.stderr
        assert _leftovers(cramped.home) == []
        assert not any((cramped.home / "uploads").iterdir())
        assert _chat(client) == 200  # nothing is kept of it but its record
        assert _content(client, file_id) == kept
        _until(lambda: _is_ready(cramped), RECOVERED_S)  # a refused job is a problem for a second
        small_disk.relieve()
        _until(lambda: _all_works(client), RECOVERED_S)
    assert cramped.stop() == 0


def _model_folder() -> Path:
    import llmos

    return Path(llmos.__file__).parent / "pilot"


@pytest.mark.parametrize("cramped", [LARGE_FLOOR_BYTES], indirect=True)
def test_a_job_that_fills_the_disk_can_be_cancelled(cramped: Server, small_disk: SmallDisk) -> None:
    """Its results end where what is kept for others begins, and go on once there is room."""
    with cramped.client() as client:
        file_id = _add_file(client, b"1")
        small_disk.fill(leave_bytes=LARGE_FLOOR_BYTES + (2 << 20))
        flood = {"do": "result", "num_results": 1 << 40, "size_bytes": 1 << 15}
        job = client.post("/os/v1/jobs", json={"program": "drill", "inputs": {"steps": [flood]}})
        assert job.status_code == 200, job.text
        job_id = job.json()["job"]["job_id"]
        _until(lambda: not _is_ready(cramped), 30.0)
        assert small_disk.free_bytes > 0  # of the half, the log of writes takes a part
        for ask in (
            lambda: client.delete(f"/v1/files/{file_id}"),
            lambda: client.post(f"/os/v1/jobs/{job_id}/cancel"),
        ):
            took_s, status, _ = _timed(ask)
            assert status == 200
            assert took_s < REFUSED_S
        small_disk.relieve()

        def has_ended() -> bool:
            return bool(client.get(f"/os/v1/jobs/{job_id}").json()["job"]["ended_ns"])

        _until(has_ended, 30.0)
        assert client.get(f"/os/v1/jobs/{job_id}").json()["job"]["state"] == "cancelled"
    assert cramped.stop() == 0


def test_on_a_full_disk_nothing_acknowledged_is_lost(
    cramped: Server, small_disk: SmallDisk
) -> None:
    kept = os.urandom(1 << 20)
    with cramped.client() as client:
        file_id = _add_file(client, kept)
        steps = [{"do": "count", "to": 40, "every": 5, "delay_s": 0.05}]
        job = client.post("/os/v1/jobs", json={"program": "drill", "inputs": {"steps": steps}})
        assert job.status_code < 300, job.text
        job_id = job.json()["job"]["job_id"]
        small_disk.fill()
        refused_s = {}
        for name, ask in _new_work(client).items():
            refused_s[name], status, code = _timed(ask)
            assert (status, code) == (507, "disk_full"), name
            assert refused_s[name] < REFUSED_S, f"{name}: {refused_s[name]:.2f} s"
        _until(lambda: not _is_ready(cramped), RECOVERED_S)
        problems = httpx.get(cramped.url + "/readyz").json()["problems"]
        assert any("full" in problem for problem in problems), problems
        assert _content(client, file_id) == kept
        small_disk.relieve()
        works_s = _until(lambda: _all_works(client), RECOVERED_S)
        ready_s = works_s + _until(lambda: _is_ready(cramped), RECOVERED_S)
        told = ", ".join(f"{name} {took_s * 1000:.0f} ms" for name, took_s in refused_s.items())
        print(f"refused: {told}; works again after {works_s:.2f} s, ready after {ready_s:.2f} s")

        def has_ended() -> bool:
            return bool(client.get(f"/os/v1/jobs/{job_id}").json()["job"]["ended_ns"])

        _until(has_ended, 30.0)
        ended = client.get(f"/os/v1/jobs/{job_id}").json()["job"]
        assert ended["state"] == "succeeded", ended
        assert ended["outputs"]["count"] == 40
        assert _content(client, file_id) == kept
    assert cramped.stop() == 0


def test_killed_on_a_full_disk_it_comes_back_with_everything(
    cramped: Server, small_disk: SmallDisk
) -> None:
    with cramped.client() as client:
        files = {_add_file(client, data): data for data in map(os.urandom, (1, 1000, 1 << 20))}
    small_disk.fill()
    cramped.kill()
    began = cramped.cli("serve", "--port", "0", timeout_s=30.0)
    assert began.returncode == 1
    assert "disk_full" in began.stderr, began.stderr
    small_disk.relieve()
    cramped.start()
    with cramped.client() as client:
        assert {file_id: _content(client, file_id) for file_id in files} == files
        assert _all_works(client)
        ledger = client.get("/os/v1/disk").json()
    assert (ledger["num_missing"], _leftovers(cramped.home)) == (0, [])
    assert cramped.stop() == 0


def test_too_few_descriptors(cramped: Server) -> None:
    """Uploads cannot open a file; who is connected already hears why, and it passes."""
    kept = os.urandom(1000)
    with cramped.client() as client:
        file_id = _add_file(client, kept)
        before = resource.prlimit(cramped.pid, resource.RLIMIT_NOFILE)
        in_use = {int(path.name) for path in Path(f"/proc/{cramped.pid}/fd").iterdir()}
        lowest_free = next(n for n in range(len(in_use) + 1) if n not in in_use)
        resource.prlimit(cramped.pid, resource.RLIMIT_NOFILE, (lowest_free, before[1]))
        work: dict[str, Any] = _new_work(client)
        for name in ("upload", "file"):
            took_s, status, code = _timed(work[name])
            assert (status, code) == (503, "storage_error"), name
            assert took_s < REFUSED_S
        assert client.get(f"/v1/files/{file_id}/content").status_code == 503
        resource.prlimit(cramped.pid, resource.RLIMIT_NOFILE, before)
        _until(lambda: _all_works(client), RECOVERED_S)
        assert _content(client, file_id) == kept
        assert _leftovers(cramped.home) == []
    assert cramped.stop() == 0
