"""Interactive requests to pilot alone, beside a training job, beside the same one in a process of
its own that nobody schedules; and what the two runs lose meanwhile."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import msgspec

from benchmarks import harness
from benchmarks.serving import HOST, Server, serving
from benchmarks.train import causal
from benchmarks.train.jobs import OPTIONS, Runs
from benchmarks.train.plain import LOG_STEPS

BODY = {
    "model": "pilot",
    "messages": [{"role": "user", "content": "Say in a few words what you do."}],
    "stream": True,
    "max_tokens": 16,
    "temperature": 0,
    "ignore_eos": True,
}
CONTENT = re.compile(r'"content": ?"[^"]')
PAUSE_S = 0.1
WARM = 3
LONG = 100_000
TIMEOUT_S = 120.0
RUNS = ("a training job", "the plain process")
Step = Callable[[], int]
"""The last step that a run has told of."""


def first_tokens(server: Server, number: int) -> list[float]:
    """Seconds to the first token of one request after another."""
    found = []
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=f"http://{HOST}:{server.port}", timeout=60) as http:
        for _ in range(number + WARM):
            begun_s, first_s = time.perf_counter(), None
            asked = http.stream("POST", "/v1/chat/completions", json=BODY, headers=headers)
            with asked as answer:
                answer.raise_for_status()
                for line in answer.iter_lines():
                    if first_s is None and CONTENT.search(line):
                        first_s = time.perf_counter()
            if first_s is None:
                raise RuntimeError("an answer without a token")
            found.append(first_s - begun_s)
            time.sleep(PAUSE_S)
    return found[WARM:]


def measure(result: harness.Result, folder: Path, number: int, rounds: int) -> None:
    """`rounds` times alone and beside either, `number` requests each."""
    files = causal.corpus(folder)
    waits: dict[str, list[list[float]]] = {"alone": [], **{run: [] for run in RUNS}}
    rates: dict[str, list[tuple[float, float]]] = {run: [] for run in RUNS}
    with serving("--preload", "pilot", *OPTIONS) as (server, _):
        for _ in range(rounds):
            waits["alone"].append(first_tokens(server, number))
            for run, begin in zip(RUNS, (_job(server, files), _plain(folder)), strict=True):
                with begin as step:
                    waited, beside, undisturbed = _beside(server, step, number)
                waits[run].append(waited)
                rates[run].append((beside, undisturbed))
    for run in RUNS:
        figure = f"p95 to the first token beside {run}"
        result.add(harness.paired(figure, "ms", _p95s(waits[run]), "alone", _p95s(waits["alone"])))
    for run in RUNS:
        pairs = list(zip(*rates[run], strict=True))
        figure = f"traffic: what {run} learns meanwhile"
        result.add(harness.paired(figure, "steps/s", pairs[0], "undisturbed", pairs[1]))


def _p95s(rounds: list[list[float]]) -> list[float]:
    return [1000 * harness.percentile(found, 0.95) for found in rounds]


def _beside(server: Server, step: Step, number: int) -> tuple[list[float], float, float]:
    """What requests wait beside a run; its steps per second meanwhile, and then for as long with
    nobody about."""
    _next(step)
    first, begun_s = step(), time.perf_counter()
    waited = first_tokens(server, number)
    took_s = time.perf_counter() - begun_s
    beside = (step() - first) / took_s
    first, begun_s = _next(step), time.perf_counter()
    time.sleep(took_s)
    return waited, beside, (_next(step) - first) / (time.perf_counter() - begun_s)


def _next(step: Step) -> int:
    """Once it has told of another. Raises RuntimeError where it does not."""
    before, deadline_s = step(), time.monotonic() + TIMEOUT_S
    while (now := step()) == before:
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"the run has told nothing for {TIMEOUT_S:g} s")
        time.sleep(0.02)
    return now


@contextlib.contextmanager
def _job(server: Server, files: dict[str, Path]) -> Iterator[Step]:
    """The run as one of this server's."""
    runs = Runs(server)
    job_id = runs.submit(causal.recipe("beside", LONG), files)
    if runs.step_after(job_id, LOG_STEPS) is None:
        raise RuntimeError("the run ended before it was measured")
    try:
        yield lambda: runs.last_step(job_id)
    finally:
        runs.client.jobs.cancel(job_id)
        while runs.job(job_id).ended_ns is None:
            time.sleep(0.1)


@contextlib.contextmanager
def _plain(folder: Path) -> Iterator[Step]:
    """The run in a process that this server knows nothing of."""
    import numpy as np

    path, told = folder / "random.npz", folder / "told.jsonl"
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, causal.VOCAB, (1024, causal.LENGTH), dtype=np.int32)
    np.savez(path, train=blocks, validation=blocks[:1])
    wanted = msgspec.structs.replace(causal.sizes(LONG), log_steps=1)
    said = msgspec.json.encode(wanted).decode()
    command = [sys.executable, "-m", "benchmarks.train.plain", "loop", str(path), said]
    with told.open("wb") as out:
        process = subprocess.Popen(command, cwd=harness.ROOT, stdout=out)

    def step() -> int:
        if process.poll() is not None:
            raise RuntimeError("the plain process ended before it was measured")
        lines = told.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        return int(json.loads(whole[-1])["step"]) if whole else 0

    try:
        _next(step)
        yield step
    finally:
        process.kill()
        process.wait()
