"""10,000 rows through a task: classified by the bundled model, to CSV and to the HTML report.

The task's time runs from its submission to its end with all files written. Its peer has the same
model in one process, without a server: Transformers' own tokenizer and model, batches of 64 rows
sorted by length, from the same CSV to a CSV.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from benchmarks import harness
from benchmarks.serving import HOST, Server, serving

PEER = "Transformers, in process, batches of 64 by length"
NUM_ROWS = 10_000
POLL_S = 0.05
CLIENT_TIMEOUT_S = 600.0
DATA = Path(os.environ.get("LLMOS_TEST_DATA") or harness.ROOT.parent / "shared" / "data")
SOURCE = DATA / "classify" / "banking77_train.csv"
MODEL = harness.ROOT / "src" / "llmos" / "bundled" / "sentiment"

_PROCESS = """
import csv, sys, time
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
source, folder, target, threads = sys.argv[1:]
torch.set_num_threads(int(threads))
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
def run(rows):
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["text"]))
    made = [None] * len(rows)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            part = order[start : start + 64]
            inputs = tokenizer(
                [rows[i]["text"] for i in part], padding=True, truncation=True, return_tensors="pt"
            )
            inputs.pop("token_type_ids", None)
            scores = model(**inputs).logits.float().softmax(-1)
            for i, row in zip(part, scores.tolist()):
                best = max(range(len(row)), key=row.__getitem__)
                made[i] = (model.config.id2label[best], row[best])
    return made
run([{"text": "warm"}] * 64)
started = time.perf_counter()
with open(source, encoding="utf-8", newline="") as file:
    rows = list(csv.DictReader(file))
made = run(rows)
with open(target, "w", encoding="utf-8", newline="") as file:
    writer = csv.writer(file)
    writer.writerow([*rows[0], "label", "score"])
    writer.writerows([*row.values(), *pair] for row, pair in zip(rows, made))
print(time.perf_counter() - started)
"""


def take(folder: Path, num_rows: int) -> Path:
    """The first rows of the real file."""
    path = folder / "rows.csv"
    with SOURCE.open(encoding="utf-8", newline="") as source, path.open("w", newline="") as target:
        reader, writer = csv.reader(source), csv.writer(target)
        for number, row in enumerate(reader):
            if number > num_rows:
                break
            writer.writerow(row)
    return path


def task_rate(server: Server, file_id: str, num_rows: int) -> tuple[float, str]:
    """Rows per second, by the server's own record of when it came and ended; and its id.

    Raises RuntimeError when a row has no result.
    """
    with _client(server) as client:
        body = {
            "type": "classify",
            "model": "sentiment",
            "name": "banking77 by the bundled classifier",
            "input": {"file": file_id, "format": "csv", "column": "text"},
            "output": {"formats": ["csv", "html"]},
        }
        job = client.post("/os/v1/tasks", json=body).json()["job"]
        while job["state"] not in {"succeeded", "failed", "cancelled", "dead"}:
            time.sleep(POLL_S)
            job = client.get(f"/os/v1/tasks/{job['job_id']}").json()["job"]
        if job["state"] != "succeeded" or job["outputs"]["counts"]["completed"] != num_rows:
            raise RuntimeError(f"the task was not done: {job}")
    return num_rows / ((job["ended_ns"] - job["created_ns"]) / 1e9), job["job_id"]


def peer_rate(path: Path, num_rows: int) -> float:
    """Rows per second; its start and its imports are not counted."""
    threads = len(os.sched_getaffinity(0))
    target = path.with_name("peer.csv")
    done = subprocess.run(
        [sys.executable, "-c", _PROCESS, str(path), str(MODEL), str(target), str(threads)],
        capture_output=True,
        text=True,
        check=True,
    )
    return num_rows / float(done.stdout.split()[-1])


def _client(server: Server) -> httpx.Client:
    headers = {"Authorization": f"Bearer {server.token}"}
    base = f"http://{HOST}:{server.port}"
    return httpx.Client(base_url=base, headers=headers, timeout=CLIENT_TIMEOUT_S)


def _send(server: Server, path: Path) -> str:
    with _client(server) as client, path.open("rb") as file:
        sent = client.post("/v1/files", files={"file": file}, data={"purpose": "batch"}).json()
    return str(sent["id"])


def _save(server: Server, task_id: str, made: str, path: Path) -> None:
    with _client(server) as client:
        found = client.get(f"/os/v1/tasks/{task_id}/result", params={"format": made})
        path.write_bytes(found.raise_for_status().content)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--rows", type=int, default=NUM_ROWS)
    parser.add_argument("--report", type=Path, help="where to leave the last HTML report")
    arguments = parser.parse_args()
    result = harness.Result("tasks", harness.command("tasks"))
    ours: list[float] = []
    peer: list[float] = []
    with tempfile.TemporaryDirectory() as folder, serving("--preload", "sentiment") as (server, _):
        path = take(Path(folder), arguments.rows)
        file_id: Any = _send(server, path)
        task_id = ""
        for _ in range(arguments.repetitions):
            peer.append(peer_rate(path, arguments.rows))
            rate, task_id = task_rate(server, file_id, arguments.rows)
            ours.append(rate)
        if arguments.report is not None:
            _save(server, task_id, "html", arguments.report)
    figure = f"{arguments.rows:,} rows classified, to CSV and HTML"
    result.add(harness.paired(figure, "rows/s", ours, PEER, peer))
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
