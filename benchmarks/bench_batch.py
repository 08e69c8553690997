"""A batch against the same requests sent directly, over 64 connections that are always busy.

The batch's time runs from its submission to its end with both files written: worker, check of the
file, every line, every result on disk. Three loads: echo at once (the system's own cost), echo with
a token every few milliseconds (an engine sets the pace), and pilot, the bundled model.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from typing import Any, NamedTuple

import httpx

from benchmarks import harness
from benchmarks.load import Plan
from benchmarks.serving import HOST, Server, load, serving

CONNECTIONS = 64
PEER = "sent directly"
URL = "/v1/chat/completions"
POLL_S = 0.02
CLIENT_TIMEOUT_S = 60.0


class Load(NamedTuple):
    """What each line asks; `extra` is laid over its body."""

    name: str
    model: str
    num_lines: int
    extra: dict[str, Any]


LOADS = (
    Load("echo, one token", "echo", 5000, {"max_tokens": 1}),
    Load(
        "echo, 16 tokens at 5 ms",
        "echo",
        3000,
        {"llmos": {"driver": {"tokens": 16, "delay_ms": 5}}},
    ),
    Load("pilot, 16 tokens", "pilot", 400, {"max_tokens": 16, "temperature": 0}),
)


def bodies(load_: Load, scale: float) -> list[dict[str, Any]]:
    """All different."""
    count = max(CONNECTIONS, int(load_.num_lines * scale))
    return [
        {
            "model": load_.model,
            "messages": [{"role": "user", "content": f"Question {i}: what is LLMOS?"}],
            **load_.extra,
        }
        for i in range(count)
    ]


def direct_rate(server: Server, asked: list[dict[str, Any]]) -> float:
    """Requests per second."""
    requests = [server.request(body) for body in asked]
    plan = Plan("each", HOST, server.port, b"", CONNECTIONS, requests=requests)
    return len(asked) / load(plan).wall_s


def batch_rate(server: Server, asked: list[dict[str, Any]]) -> float:
    """Lines per second, by the server's own record of when the job came and when it ended.

    Raises RuntimeError when a line is missing from the output.
    """
    lines = [
        json.dumps({"custom_id": str(i), "method": "POST", "url": URL, "body": body})
        for i, body in enumerate(asked)
    ]
    headers = {"Authorization": f"Bearer {server.token}"}
    base = f"http://{HOST}:{server.port}"
    with httpx.Client(base_url=base, headers=headers, timeout=CLIENT_TIMEOUT_S) as client:
        upload = client.post(
            "/v1/files",
            files={"file": ("in.jsonl", "\n".join(lines).encode())},
            data={"purpose": "batch"},
        ).json()
        order = {"input_file_id": upload["id"], "endpoint": URL, "completion_window": "24h"}
        batch = client.post("/v1/batches", json=order).json()
        while batch["status"] not in {"completed", "failed", "expired", "cancelled"}:
            time.sleep(POLL_S)
            batch = client.get(f"/v1/batches/{batch['id']}").json()
        if batch["request_counts"]["completed"] != len(asked):
            raise RuntimeError(f"the batch did not complete: {batch}")
        job_id = batch["id"].replace("batch_", "job_")
        job = client.get(f"/os/v1/jobs/{job_id}").json()["job"]
    return len(asked) / ((job["ended_ns"] - job["created_ns"]) / 1e9)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0, help="shorten the runs for a trial")
    parser.add_argument("--only", default="", help="loads whose name begins so")
    arguments = parser.parse_args()
    result = harness.Result("batch", harness.command("batch"))
    with serving("--preload", "echo", "--preload", "pilot") as (server, _):
        for load_ in LOADS:
            if not load_.name.startswith(arguments.only):
                continue
            asked = bodies(load_, arguments.scale)
            direct_rate(server, asked[:CONNECTIONS])  # warm
            ours, peer = [], []
            for _ in range(arguments.repetitions):
                peer.append(direct_rate(server, asked))
                ours.append(batch_rate(server, asked))
            result.add(harness.paired(load_.name, "lines/s", ours, PEER, peer))
    if arguments.only:
        return 0
    print(result.write().relative_to(harness.ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
