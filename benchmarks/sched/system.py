"""A real server under test: native replicas of a random-weight model, or echo; keys; load on it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import models
from benchmarks.harness import Result
from benchmarks.sched import client
from benchmarks.sched.client import Group, Plan
from benchmarks.sched.records import Record, goodput
from benchmarks.serving import HOST, Server, serving
from llmos.sdk import Client

NAME = "bench"
NUM_SLOTS = 16
PROMPT_TOKENS = 128
ECHO_MAX_TOKENS = 4096
"""The script says when an answer ends; the kernel is told only this."""
NUM_VARIANTS = 16
"""Different prompts of a kind of request."""
CALIBRATION_S = 10.0
WARM_UP_S = 1.5


@dataclass
class Context:
    """What every part is given. `full`: the windows the issue names, instead of short ones."""

    result: Result
    model: str = "60m"
    full: bool = False
    series: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    capacity: dict[int, float] = field(default_factory=dict)

    def window_s(self, short_s: float, full_s: float) -> float:
        return full_s if self.full else short_s

    def keep(self, figure: str, name: str, values: Sequence[float]) -> None:
        """Values for a plot of the part: one line of the figure."""
        self.series.setdefault(figure, {})[name] = list(values)


@contextlib.contextmanager
def native(model: str, *settings: str) -> Iterator[Server]:
    """A server with the model loaded as `bench`, NUM_SLOTS rows, one compute thread, warm."""
    options: tuple[str, ...] = (f"kernel.num_slots={NUM_SLOTS}", "kernel.max_context_tokens=1024")
    options += ("kernel.num_threads=1", "kernel.warm_spare=false", *settings)
    flags = [part for option in options for part in ("--set", option)]
    with serving(*flags) as (server, _), Client(home=server.home) as sdk:
        sdk.models.pull(f"file:{models.folder(model)}", NAME)
        sdk.models.load(NAME)
        warm = group(server, "warm", output_tokens=4, closed=2)
        run(server, [warm], WARM_UP_S)
        yield server


@contextlib.contextmanager
def echo(*settings: str) -> Iterator[Server]:
    """A server with the echo driver loaded."""
    flags = [part for option in settings for part in ("--set", option)]
    with serving("--preload", "echo", *flags) as (server, _):
        yield server


def group(
    server: Server,
    name: str,
    *,
    output_tokens: int,
    prompt_tokens: int = PROMPT_TOKENS,
    vocab_size: int = 16384,
    due_s: Sequence[float] = (),
    closed: int = 0,
    service_class: str | None = None,
    key: str | None = None,
) -> Group:
    """Requests to the native model: token prompts, greedy, to exactly `output_tokens`."""
    requests = []
    for variant in range(NUM_VARIANTS):
        body = {
            "model": NAME,
            "prompt": models.tokens(prompt_tokens, variant, vocab_size),
            "max_tokens": output_tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "llmos": _class(service_class),
        }
        requests.append(_with_key(server, server.request(body, "/v1/completions"), key))
    return Group(name, requests, list(due_s), closed, prompt_tokens)


def echo_group(
    server: Server,
    name: str,
    script: dict[str, Any],
    *,
    due_s: Sequence[float] = (),
    closed: int = 0,
    prompt_tokens: int = 1,
    service_class: str | None = None,
    key: str | None = None,
) -> Group:
    """Requests to the echo driver with this script."""
    body = {
        "model": "echo",
        "prompt": [97] * prompt_tokens,
        "max_tokens": ECHO_MAX_TOKENS,
        "stream": True,
        "llmos": {"driver": script} | _class(service_class),
    }
    request = _with_key(server, server.request(body, "/v1/completions"), key)
    return Group(name, [request], list(due_s), closed, prompt_tokens)


def _class(service_class: str | None) -> dict[str, Any]:
    return {} if service_class is None else {"class": service_class}


def _with_key(server: Server, request: bytes, key: str | None) -> bytes:
    return request if key is None else request.replace(server.token.encode(), key.encode(), 1)


def run(
    server: Server, groups: list[Group], duration_s: float, drain_s: float = 0.0
) -> list[Record]:
    """Load from a process of its own."""
    expected = sum(g.closed for g in groups) + 64
    return client.load(Plan(HOST, server.port, groups, duration_s, drain_s, expected))


def add_keys(server: Server, weights: dict[str, float]) -> dict[str, str]:
    """A key of each tenant, of this weight; its secret by the tenant's name."""
    with Client(home=server.home) as sdk:
        return {
            tenant: sdk.keys.add(tenant, tenant, weight=weight).secret
            for tenant, weight in weights.items()
        }


def calibrate(context: Context, server: Server, output_tokens: int) -> float:
    """Requests per second the machine can do at most: every row always taken. Measured once."""
    if output_tokens not in context.capacity:
        busy = group(server, "busy", output_tokens=output_tokens, closed=2 * NUM_SLOTS)
        records = run(server, [busy], CALIBRATION_S)
        first_end_s = min((r.end_s for r in records if r.status == 200), default=0.0)
        context.capacity[output_tokens] = goodput(records, first_end_s, CALIBRATION_S)
    return context.capacity[output_tokens]


def rss_bytes(server: Server) -> dict[int, int]:
    """Resident memory of the server and of every process below it, by pid."""
    found: dict[int, int] = {}
    parents: dict[int, int] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
                parents[int(folder.name)] = int(fields[1])
                found[int(folder.name)] = int(fields[21]) * os.sysconf("SC_PAGE_SIZE")
    family = {server.process.pid}
    while grown := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= grown
    return {pid: found[pid] for pid in family if pid in found}
