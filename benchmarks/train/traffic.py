"""Interactive requests to pilot alone, beside a training job, beside the same one in a process of
its own that nobody schedules."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import msgspec

from benchmarks import harness
from benchmarks.serving import HOST, Server, serving
from benchmarks.train import causal
from benchmarks.train.jobs import OPTIONS, Runs

BODY = {
    "model": "pilot",
    "messages": [{"role": "user", "content": "Say in a few words what you do."}],
    "stream": True,
    "max_tokens": 16,
}
CONTENT = re.compile(r'"content": ?"[^"]')
PAUSE_S = 0.1
WARM = 3
LONG = 100_000


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


def measure(result: harness.Result, folder: Path, number: int) -> None:
    files = causal.corpus(folder)
    with serving("--preload", "pilot", *OPTIONS) as (server, _):
        runs = Runs(server)
        alone = first_tokens(server, number)
        job_id = runs.submit(causal.recipe("beside", LONG), files)
        if runs.step_after(job_id, 10) is None:
            raise RuntimeError("the run ended before it was measured")
        beside = first_tokens(server, number)
        runs.client.jobs.cancel(job_id)
        while runs.job(job_id).ended_ns is None:
            time.sleep(0.1)
        plain = _beside_plain(server, folder, number)
    for said, found in (("a training job", beside), ("the plain process", plain)):
        result.add(
            harness.Row(
                f"p95 to the first token beside {said}",
                *_p95(found),
                "alone",
                _p95(alone)[0],
                harness.round4(_p95(found)[0] / _p95(alone)[0]),
            )
        )


def _p95(found: list[float]) -> tuple[float, str]:
    return harness.round4(1000 * harness.percentile(found, 0.95)), "ms"


def _beside_plain(server: Server, folder: Path, number: int) -> list[float]:
    import numpy as np

    path = folder / "random.npz"
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, causal.VOCAB, (1024, causal.LENGTH), dtype=np.int32)
    np.savez(path, train=blocks, validation=blocks[:1])
    said = msgspec.json.encode(causal.sizes(LONG)).decode()
    command = [sys.executable, "-m", "benchmarks.train.plain", "loop", str(path), said]
    process = subprocess.Popen(command, cwd=harness.ROOT)
    try:
        time.sleep(15)  # until it learns
        if process.poll() is not None:
            raise RuntimeError("the plain process ended before it was measured")
        return first_tokens(server, number)
    finally:
        process.kill()
        process.wait()
