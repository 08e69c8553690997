"""Training runs as jobs of a real server, and what the process that does them has used."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.serving import HOST, Server
from llmos.abi.jobs import ENDED, JobEvent, JobRecord, JobSpec
from llmos.sdk import Client

DATA = Path(os.environ.get("LLMOS_TEST_DATA") or harness.ROOT.parent / "shared" / "data")
OPTIONS = (
    *("--set", "jobs.max_deaths=50"),
    *("--set", "jobs.min_backoff_s=0.05"),
    *("--set", "jobs.grace_s=20"),
    *("--set", "jobs.poll_interval_s=0.5"),
)
POLL_S = 0.05
TIMEOUT_S = 1800.0


class Runs:
    """Jobs of the program `train`."""

    def __init__(self, server: Server) -> None:
        self.client = Client(f"http://{HOST}:{server.port}", server.token)

    def submit(self, recipe: Mapping[str, Any], files: Mapping[str, Path]) -> str:
        """The job's id."""
        data = {split: path.name for split, path in files.items()}
        sent = {n: self.client.files.put(p, purpose="batch").id for n, p in files.items()}
        whole = dict(recipe) | {"data": dict(recipe.get("data", {})) | data}
        base = recipe.get("base")
        spec = JobSpec(
            program="train",
            inputs={"recipe": whole},
            files=sent,
            models={"base": base} if base else {},
        )
        return self.client.jobs.submit(spec).job.job_id

    def job(self, job_id: str) -> JobRecord:
        return self.client.jobs.show(job_id).job

    def end(self, job_id: str) -> JobRecord:
        """Once it has succeeded. Raises RuntimeError for any other end."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while (job := self.job(job_id)).state not in ENDED:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"not done after {TIMEOUT_S:g} s: {job}")
            time.sleep(POLL_S)
        if job.state != "succeeded":
            raise RuntimeError(f"the run {job.state}: {job.error} {job.reason}")
        return job

    def metrics(self, job_id: str) -> Iterator[JobEvent]:
        """Losses as they are told, until it has ended."""
        after = 0
        while True:
            ended = self.job(job_id).state in ENDED
            events = self.client.jobs.events(job_id, after=after, kinds=("metric",))
            for event in events:
                after = event.number
                yield event
            if ended and not events:
                return
            time.sleep(POLL_S)

    def step_after(self, job_id: str, step: int) -> int | None:
        """A step of at least `step` that was told of; None once it has ended without."""
        for event in self.metrics(job_id):
            if event.value.get("step", 0) >= step and not event.value.get("final"):
                return int(event.value["step"])
        return None

    def last_step(self, job_id: str) -> int:
        """That it has told of; 0 before the first."""
        progress = self.job(job_id).progress
        return int(progress.done) if progress is not None else 0

    def worker_pid(self) -> int:
        """Of the one process that runs programs."""
        workers = self.client.workers()
        (pid,) = [w.pid for w in workers if w.role == "program" and w.state == "serving"]
        return pid

    def kill_worker(self) -> None:
        os.kill(self.worker_pid(), signal.SIGKILL)


def cpu_s(pid: int) -> float:
    """Processor seconds of a process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
