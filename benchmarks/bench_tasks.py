"""10,000 rows through a task file: classified by the bundled model, to CSV and to an HTML report.

Ours is all of `llmos task run FILE`: the command's start, the upload, the job, and both files on
disk. Its peer has the same model in one process, without a server (`benchmarks/tasks/peer.py`).
The texts are not ours to show, so the report holds what was found, and not of what.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.serving import HOST, Server, serving
from benchmarks.tasks import picture
from benchmarks.tasks.rows import accuracies, write_rows

PEER = "Transformers, in process, batches of 64 by length"
NUM_ROWS = 10_000
DATA = Path(os.environ.get("LLMOS_TEST_DATA") or harness.ROOT.parent / "shared" / "data")
MODEL = harness.ROOT / "src" / "llmos" / "bundled" / "sentiment"
TASK = """\
type: classify
model: auto
name: 10,000 reviews, in Chinese and English
input: {path: rows.csv, column: text}
output: {path: [out.csv, report.html], columns: [id, source, gold]}
"""


def run_task(server: Server, folder: Path, num_rows: int) -> tuple[float, float]:
    """Rows per second, of the whole command and of the job alone by the server's clock.

    Raises RuntimeError when a row has no result.
    """
    env = {
        **os.environ,
        "LLMOS_URL": f"http://{HOST}:{server.port}",
        "LLMOS_API_KEY": server.token,
    }
    command = [sys.executable, "-m", "llmos.cli.main", "task", "run", str(folder / "task.yaml")]
    began_s = time.perf_counter()
    done = subprocess.run([*command, "--json"], env=env, capture_output=True, text=True, check=True)
    spent_s = time.perf_counter() - began_s
    job: dict[str, Any] = json.loads(done.stdout)
    if job["outputs"]["counts"]["completed"] != num_rows:
        raise RuntimeError(f"the task was not done: {job}")
    return num_rows / spent_s, num_rows / ((job["ended_ns"] - job["created_ns"]) / 1e9)


def run_peer(folder: Path, num_rows: int) -> float:
    """Rows per second."""
    threads = len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "benchmarks.tasks.peer", str(folder / "rows.csv"), str(MODEL)]
    done = subprocess.run(
        [*command, str(folder / "peer.csv"), str(threads)],
        cwd=harness.ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return num_rows / float(done.stdout.split()[-1])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--rows", type=int, default=NUM_ROWS)
    arguments = parser.parse_args()
    num_rows: int = arguments.rows
    result = harness.Result("tasks", harness.command("tasks"))
    ours: list[float] = []
    jobs: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory() as made, serving("--preload", "sentiment") as (server, _):
        folder = Path(made)
        write_rows(DATA, folder / "rows.csv", num_rows)
        (folder / "task.yaml").write_text(TASK, encoding="utf-8")
        for _ in range(arguments.repetitions):
            peer.append(run_peer(folder, num_rows))
            whole, job = run_task(server, folder, num_rows)
            ours.append(whole)
            jobs.append(job)
        figure = f"{num_rows:,} rows classified, to CSV and HTML"
        result.add(harness.paired(f"{figure}: the command", "rows/s", ours, PEER, peer))
        result.add(harness.single(f"{figure}: the job", "rows/s", jobs))
        for source, share in accuracies(folder / "out.csv").items():
            result.add(harness.Row(f"{source}: right", harness.round4(100 * share), "%"))
        said = picture.take(folder / "report.html", harness.RESULTS / "tasks-report.png")
        result.notes += [said] if said else []
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
