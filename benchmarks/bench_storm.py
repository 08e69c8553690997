"""What kills cost: ready again with much pending, a dead worker's job, a batch over many kills.

Real `llmos serve` processes over homes that outlive them, killed with SIGKILL. That nothing is lost
meanwhile is `make storm`'s to prove; here the batch's lines are counted.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from benchmarks import harness
from benchmarks.serving import HOST, free_port, is_ready
from llmos.abi.ids import new_id
from llmos.abi.jobs import JobRecord, JobSpec, JobState
from llmos.abi.principal import Principal
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import open_database
from llmos.storage.home import open_home
from llmos.storage.jobs import close_job_store, open_job_store

READY_TIMEOUT_S = 120.0
DONE_TIMEOUT_S = 900.0
NUM_PENDING = 10_000
AT_ONCE = 500
QUICK = ("--set", "storage.min_free_bytes=0")


class Killable:
    """A home, and one server over it at a time."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.home = folder / "home"
        self.port = free_port()
        self._options = options
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> float:
        """Seconds from the start of the process until it is ready."""
        command = [sys.executable, "-m", "llmos.cli.main", "serve", "--home", str(self.home)]
        command += ["--port", str(self.port), *QUICK, *self._options]
        began_s = time.perf_counter()
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdout=log,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        while not is_ready(self.port):
            if self._process.poll() is not None or time.perf_counter() - began_s > READY_TIMEOUT_S:
                raise RuntimeError(f"serve is not ready:\n{self._log.read_text()[-4000:]}")
            time.sleep(0.005)
        return time.perf_counter() - began_s

    def kill(self) -> None:
        """SIGKILL; its workers die of it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process = None

    def client(self) -> httpx.Client:
        token = (self.home / "token").read_text().strip()
        return httpx.Client(
            base_url=f"http://{HOST}:{self.port}",
            headers={"Authorization": f"Bearer {token}"},
            timeout=60.0,
        )


@contextlib.contextmanager
def killable(*options: str) -> Iterator[Killable]:
    folder = Path(tempfile.mkdtemp(prefix="llmos-bench-"))
    made = Killable(folder, *options)
    try:
        yield made
    finally:
        made.kill()
        shutil.rmtree(folder)


async def add_pending(home_path: Path, count: int) -> None:
    """Durable calls that nobody has made yet, put into the store of a home nobody has open."""
    home = open_home(home_path)
    config = StorageConfig(min_free_bytes=0)
    database = open_database(home.db, config)
    store = await open_job_store(home, database, Blobs(home, config), config)
    owner = Principal("prn_bench", "default", "bench")
    generate = {
        "model": "echo",
        "prompt": {"type": "chat", "messages": [{"role": "user", "content": "x"}]},
        "sampling": {},
    }
    now_ns = time.time_ns()
    for _ in range(0, count, AT_ONCE):
        spec = JobSpec("infer", {"generate": generate})
        jobs = [
            JobRecord(new_id("job"), owner, spec, JobState.PENDING, now_ns, 0)
            for _ in range(AT_ONCE)
        ]
        await store.add(jobs)
    await close_job_store(store)
    database.close()
    home.close()


def measure_restart(result: harness.Result, repetitions: int) -> None:
    """In turn: a start after a kill with nothing pending, and one with 10,000 jobs pending."""
    busy, idle, left = [], [], []
    for _ in range(repetitions):
        with killable() as server:
            server.start()
            server.kill()
            idle.append(server.start())
            server.kill()
            asyncio.run(add_pending(server.home, NUM_PENDING))
            server.start()
            server.kill()
            busy.append(server.start())
            left.append(num_live(server))
    name = f"kill -9, {NUM_PENDING:,} pending: ready again"
    result.add(harness.paired(name, "s", busy, "none pending", idle))
    more = [ours - theirs for ours, theirs in zip(busy, idle, strict=True)]
    result.add(harness.single("… more than with none pending", "s", more))
    result.add(harness.single("… jobs not ended yet when it was ready", "jobs", left))


def num_live(server: Killable) -> int:
    """How many have not ended, by walking them."""
    num, after = 0, None
    with server.client() as client:
        while True:
            query: dict[str, Any] = {"state": "live", "limit": 1000}
            if after is not None:
                query["after"] = after
            page = client.get("/os/v1/jobs", params=query).json()
            num += len(page["jobs"])
            if not page["has_more"]:
                return num
            after = page["jobs"][-1]["job_id"]


def events_of(client: httpx.Client, job_id: str) -> list[dict[str, Any]]:
    return list(client.get(f"/os/v1/jobs/{job_id}/events").json()["events"])


def measure_worker(result: harness.Result, repetitions: int) -> None:
    """A program's worker is killed: when the kernel says so, and when the next attempt speaks."""
    none = ("--set", "jobs.min_backoff_s=0")
    for after, options in (("no back-off", none), ("the default back-off", ())):
        noticed, running = [], []
        with killable(*options) as server:
            server.start()
            with server.client() as client:
                for _ in range(repetitions):
                    told, again = kill_worker(client)
                    noticed.append(told)
                    running.append(again)
        if options:
            result.add(harness.single("job's worker killed: noticed", "s", noticed))
        result.add(harness.single(f"… its program runs again, {after}", "s", running))


def kill_worker(client: httpx.Client) -> tuple[float, float]:
    """Seconds from the kill to the kernel's word and to the program's first, one attempt later."""
    steps = [{"do": "emit", "kind": "alive"}, {"do": "sleep", "seconds": 60, "until_attempt": 1}]
    body = {"program": "drill", "inputs": {"steps": steps}}
    job_id = client.post("/os/v1/jobs", json=body).json()["job"]["job_id"]
    wait_for(lambda: any(e["kind"] == "alive" for e in events_of(client, job_id)))
    wait_for(lambda: has_spare(client))
    found = client.get("/os/v1/workers").json()["workers"]
    pid = next(int(w["pid"]) for w in found if w["role"] == "program" and w["state"] != "spare")
    if pid <= 1:
        raise RuntimeError("the worker has no process")
    os.kill(pid, signal.SIGKILL)
    killed_ns = time.time_ns()
    wait_for(lambda: sum(e["kind"] == "alive" for e in events_of(client, job_id)) == 2)
    later = [event for event in events_of(client, job_id) if event["at_ns"] > killed_ns]
    told_ns = next(event["at_ns"] for event in later if event["kind"] == "state")
    alive_ns = next(event["at_ns"] for event in later if event["kind"] == "alive")
    return (told_ns - killed_ns) / 1e9, (alive_ns - killed_ns) / 1e9


def has_spare(client: httpx.Client) -> bool:
    workers = client.get("/os/v1/workers").json()["workers"]
    return any(w["state"] == "spare" for w in workers)


def wait_for(is_it: Any, timeout_s: float = 60.0) -> None:
    until_s = time.monotonic() + timeout_s
    while not is_it():
        if time.monotonic() > until_s:
            raise RuntimeError("it does not come about")
        time.sleep(0.01)


def measure_batch(result: harness.Result, num_lines: int, num_kills: int) -> None:
    """A batch whose kernel is killed again and again, each time after some more of its lines."""
    lines = b"".join(
        json.dumps(
            {
                "custom_id": f"line {i}",
                "method": "POST",
                "url": "/v1/chat/completions",
                "body": {"model": "echo", "messages": [{"role": "user", "content": f"{i}"}]},
            }
        ).encode()
        + b"\n"
        for i in range(num_lines)
    )
    with killable("--set", "jobs.min_backoff_s=0") as server:
        server.start()
        with server.client() as client:
            file = {"file": ("lines.jsonl", lines)}
            file_id = client.post("/v1/files", files=file, data={"purpose": "batch"}).json()["id"]
            body = {
                "input_file_id": file_id,
                "endpoint": "/v1/chat/completions",
                "completion_window": "24h",
            }
            batch_id = client.post("/v1/batches", json=body).json()["id"]
        began_s = time.perf_counter()
        num_killed = 0
        for number in range(1, num_kills + 1):
            if not wait_for_lines(server, batch_id, number * num_lines // (num_kills + 1)):
                break
            server.kill()
            num_killed += 1
            server.start()
        wait_for_lines(server, batch_id, num_lines + 1)
        took_s = time.perf_counter() - began_s
        with server.client() as client:
            made = client.get(f"/v1/batches/{batch_id}").json()
            output = client.get(f"/v1/files/{made['output_file_id']}/content").content
    found = collections.Counter(json.loads(line)["custom_id"] for line in output.splitlines())
    wanted = {f"line {i}" for i in range(num_lines)}
    name = f"a batch of {num_lines:,} lines, {num_killed} kills of the kernel"
    result.add(harness.Row(f"{name}: took", harness.round4(took_s), "s"))
    result.add(harness.Row("… lines lost", len(wanted - found.keys()), "lines"))
    result.add(harness.Row("… lines twice", sum(n - 1 for n in found.values()), "lines"))
    result.add(harness.Row("… lines nobody asked for", len(found.keys() - wanted), "lines"))


def wait_for_lines(server: Killable, batch_id: str, num: int) -> bool:
    """Until so many lines are answered (True), or the batch has ended (False)."""
    until_s = time.monotonic() + DONE_TIMEOUT_S
    with server.client() as client:
        while time.monotonic() < until_s:
            with contextlib.suppress(httpx.TransportError, http.client.HTTPException):
                made = client.get(f"/v1/batches/{batch_id}").json()
                if made["status"] in ("completed", "failed", "expired", "cancelled"):
                    return False
                if made["request_counts"]["completed"] >= num:
                    return True
            time.sleep(0.05)
    raise RuntimeError(f"the batch has not come to {num} lines")


PARTS = ("restart", "worker", "batch")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--lines", type=int, default=10_000, help="of the batch")
    parser.add_argument("--kills", type=int, default=20, help="during the batch")
    parser.add_argument("--part", choices=PARTS, help="only this one; nothing is written")
    arguments = parser.parse_args()
    result = harness.Result("storm", harness.command("storm"))
    if arguments.part in (None, "restart"):
        measure_restart(result, arguments.repetitions)
    if arguments.part in (None, "worker"):
        measure_worker(result, arguments.repetitions)
    if arguments.part in (None, "batch"):
        measure_batch(result, arguments.lines, arguments.kills)
    if arguments.part is None:
        print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
