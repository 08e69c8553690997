"""Interactive requests to pilot alone, beside a job that fine-tunes it, beside the same fine-tune
in a process of its own that nobody schedules; and what the two runs lose meanwhile.

Both compute on every processor, so that there is none left to answer with.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec

from benchmarks import harness
from benchmarks.serving import HOST, Server, serving
from benchmarks.train import causal, tune
from benchmarks.train.jobs import OPTIONS, Runs

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
LOG_STEPS = 2
BATCH = 16
TIMEOUT_S = 120.0
ALONE = "alone"
RUNS = ("a fine-tune here", "one in a plain process")
ARMS = (ALONE, *RUNS)
Step = Callable[[], int]
"""The last step that a run has told of."""

Begin = Callable[[], contextlib.AbstractContextManager[Step]]


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


def recipe(threads: int) -> dict[str, Any]:
    """A LoRA of pilot that would go on for hours."""
    return {
        "name": "beside",
        "objective": "causal",
        "base": "pilot",
        "method": "lora",
        "model": {"max_length": causal.LENGTH},
        "adapter": {"rank": tune.RANK, "dropout": tune.DROPOUT},
        "training": {"steps": LONG, "batch_size": BATCH, "threads": threads},
        "watch": {"evaluate_every": LONG, "log_every": LOG_STEPS, "samples": 0},
        "register": False,
    }


def measure(result: harness.Result, folder: Path, number: int, rounds: int) -> None:
    """`rounds` times alone and beside either, `number` requests each; who comes first changes from
    round to round, so that neither what is warm by then nor what drifts is of one arm only."""
    files, threads = causal.corpus(folder), len(os.sched_getaffinity(0))
    waits: dict[str, list[list[float]]] = {arm: [] for arm in ARMS}
    rates: dict[str, list[tuple[float, float]]] = {run: [] for run in RUNS}
    with serving("--preload", "pilot", *OPTIONS) as (server, _):
        pilot = Path(Runs(server).client.models.show("pilot").folder)
        causal.write_blocks(pilot, files, folder / "pilot.npz")
        begin: dict[str, Begin] = {
            RUNS[0]: lambda: _job(server, files, threads),
            RUNS[1]: lambda: _plain(pilot, folder, threads),
        }
        for arm in order(rounds):
            if arm == ALONE:
                waits[arm].append(first_tokens(server, number))
                continue
            with begin[arm]() as step:
                waited, beside, undisturbed = _beside(server, step, number)
            waits[arm].append(waited)
            rates[arm].append((beside, undisturbed))
    for run in RUNS:
        figure = f"p95 to the first token beside {run}"
        result.add(harness.paired(figure, "ms", _p95s(waits[run]), ALONE, _p95s(waits[ALONE])))
    for run in RUNS:
        pairs = list(zip(*rates[run], strict=True))
        figure = f"traffic: what {run} learns meanwhile"
        result.add(harness.paired(figure, "steps/s", pairs[0], "undisturbed", pairs[1]))


def order(rounds: int) -> Iterator[str]:
    """The arms of each round, each round beginning one later than the one before."""
    for turn in range(rounds):
        at = turn % len(ARMS)
        yield from ARMS[at:] + ARMS[:at]


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
def _job(server: Server, files: dict[str, Path], threads: int) -> Iterator[Step]:
    """The run as one of this server's."""
    runs = Runs(server)
    job_id = runs.submit(recipe(threads), files)
    if runs.step_after(job_id, LOG_STEPS) is None:
        raise RuntimeError("the run ended before it was measured")
    try:
        yield lambda: runs.last_step(job_id)
    finally:
        runs.client.jobs.cancel(job_id)
        while runs.job(job_id).ended_ns is None:
            time.sleep(0.1)


@contextlib.contextmanager
def _plain(pilot: Path, folder: Path, threads: int) -> Iterator[Step]:
    """The run in a process that this server knows nothing of."""
    told = folder / "told.jsonl"
    wanted = msgspec.structs.replace(
        causal.sizes(LONG), batch_size=BATCH, threads=threads, log_steps=LOG_STEPS
    )
    said = msgspec.json.encode(wanted).decode()
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.train.tune"]
    command += [str(pilot), str(folder / "pilot.npz"), said]
    with told.open("wb") as out:
        env = {**os.environ, "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
        process = subprocess.Popen(command, cwd=harness.ROOT, stdout=out, env=env)

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
