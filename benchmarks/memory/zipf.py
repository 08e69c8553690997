"""Six models on room for two, asked for by Zipf's law: what each rule of eviction makes of it.

Poisson arrivals, the same for every rule, at a rate that keeps models switching. Room is twice what
the ledger reserves for one of them, read from the server. Rules take turns, each on a server of its
own over one home.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks import models
from benchmarks.harness import Result, Row, paired, percentile, single
from benchmarks.memory import system
from benchmarks.memory.system import Machine, Options
from benchmarks.sched import client as sched
from benchmarks.sched.arrivals import poisson
from benchmarks.sched.client import Group
from benchmarks.sched.records import OK, Record
from benchmarks.serving import HOST, Server

NUM_MODELS = 6
ROOM_FOR = 2
SPARE_BYTES = 64 << 20
"""Beyond the two: what a measured footprint may grow by."""

EXPONENT = 1.0
PROMPT_TOKENS, NUM_TOKENS = 64, 16
SETTINGS = ("kernel.max_context_tokens=2048",)
"""Long enough that the first estimate of one fits where two fit as measured."""

RATES = {"60m": 0.4, "0.4b": 0.2}
"""Requests per second."""

RULES = {
    "cost, parking": ("kernel.eviction=cost",),
    "lru, reload": ("kernel.eviction=lru", "kernel.parking=false"),
    "keep-alive, reload": ("kernel.eviction=keep-alive", "kernel.parking=false"),
}
SWITCHES = ("start", "stop", "park", "unpark")


@dataclass
class Seen:
    """Of one rule, a value for each run."""

    throughput: list[float] = field(default_factory=list)
    first_s: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    wait_s: list[float] = field(default_factory=list)
    unanswered: list[float] = field(default_factory=list)
    switches: dict[str, list[float]] = field(default_factory=dict)


def names() -> list[str]:
    return [f"model-{number}" for number in range(NUM_MODELS)]


def zipf_arrivals(
    rate: float, duration_s: float, seed: int, num_models: int = NUM_MODELS
) -> list[list[float]]:
    """When each model is asked for: the n-th as often as 1 / n says."""
    draw = random.Random(seed)
    weights = [(rank + 1) ** -EXPONENT for rank in range(num_models)]
    due_s: list[list[float]] = [[] for _ in weights]
    for at in poisson(rate, duration_s, seed):
        due_s[draw.choices(range(num_models), weights)[0]].append(at)
    return due_s


def rows(result: Result, options: Options) -> None:
    """The 60 M model, and in full the 0.4 B one."""
    for model in ("60m", "0.4b") if options.full else ("60m",):
        duration_s, num_runs = (240.0, 3) if options.full else (50.0, 1)
        if options.small:
            duration_s = 10.0
        with system.machine() as machine:
            budget = _prepare(machine, model)
            print(f"zipf: {model}, room for {ROOM_FOR}: {budget / 1e6:.0f} MB")
            seen = {rule: Seen() for rule in RULES}
            for seed in range(1, num_runs + 1):
                for rule, chosen in RULES.items():
                    room = f"kernel.memory_budget_bytes={budget}"
                    machine.start(*SETTINGS, room, *chosen)
                    _run(machine, model, rule, (duration_s, seed), seen[rule])
                    machine.stop()
        _report(result, model, seen)


def _prepare(machine: Machine, model: str) -> int:
    """Every model loaded once, so that its footprint is known; bytes of two."""
    machine.start(*SETTINGS)
    machine.pull(**dict.fromkeys(names(), models.folder(model)))
    sizes = []
    with machine.client() as client:
        for name in names():
            system.load(client, name)
            sizes.append(system.reserved_bytes(client, name))
            system.unload(client, name)
    machine.stop()
    return ROOM_FOR * max(sizes) + SPARE_BYTES


def _run(machine: Machine, model: str, rule: str, arrivals: tuple[float, int], seen: Seen) -> None:
    """One rule on a started server; `arrivals`: for how many seconds, and their seed."""
    duration_s, seed = arrivals
    due_s = zipf_arrivals(RATES[model], duration_s, seed)
    groups = [
        _group(machine.server, name, model, due) for name, due in zip(names(), due_s, strict=True)
    ]
    with machine.client() as client:
        before = system.metrics(client)
        plan = sched.Plan(HOST, machine.port, groups, duration_s, 2 * duration_s)
        records = sched.load(plan)
        after = system.metrics(client)
        wait_s, why = longest_wait(client)
    print(f"{rule}, the longest wait, {wait_s:.1f} s: {why}")
    for record in records:
        if record.status != OK:
            print(f"{rule}: {record.group} due at {record.due_s:.1f}: {record.status} "
                  f"{record.error}")  # fmt: skip
    _add(seen, records)
    seen.wait_s.append(wait_s)
    for what in SWITCHES:
        count = system.gained(before, after, "llmos:model_switches_total", what=what)
        seen.switches.setdefault(what, []).append(count)


def _group(server: Server, name: str, model: str, due_s: list[float]) -> Group:
    body: dict[str, Any] = {
        "model": name,
        "prompt": models.tokens(PROMPT_TOKENS, 1, models.SHAPES[model].vocab_size),
        "max_tokens": NUM_TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    request = server.request(body, "/v1/completions")
    return Group(name, [request], due_s, prompt_tokens=PROMPT_TOKENS)


def longest_wait(client: httpx.Client) -> tuple[float, str]:
    """Seconds that a request waited until it ran, and its story."""
    found = [
        p for p in system.get(client, "/os/v1/processes")["processes"] if p["kind"] == "request"
    ]
    waits = [
        (((p["started_ns"] or p["ended_ns"] or p["created_ns"]) - p["created_ns"]) / 1e9,
         p["process_id"])
        for p in found
    ]  # fmt: skip
    if not waits:
        return 0.0, "nobody"
    wait_s, request_id = max(waits)
    decisions = system.get(client, f"/os/v1/processes/{request_id}")["decisions"]
    return wait_s, "; ".join(f"{d['state']}: {d['reason']}" for d in decisions)


def _add(seen: Seen, records: Sequence[Record]) -> None:
    done = [record for record in records if record.status == OK and record.end_s]
    seen.unanswered.append(len(records) - len(done))
    if not done:
        raise RuntimeError(f"none of {len(records)} was answered: {records[0].error}")
    seen.throughput.append(len(done) / max(record.end_s for record in done))
    first = [record.ttft_s for record in done if record.ttft_s is not None]
    seen.first_s.append(percentile(first, 0.95))
    seen.latency_s.append(percentile([record.latency_s for record in done], 0.95))


def _report(result: Result, model: str, seen: dict[str, Seen]) -> None:
    what = f"{NUM_MODELS} models ({model}) on room for {ROOM_FOR}"
    ours_name, *peers = RULES
    ours = seen[ours_name]
    for name in peers:
        peer = seen[name]
        pairs = (
            ("answered", "requests/s", ours.throughput, peer.throughput),
            ("first token, p95", "s", ours.first_s, peer.first_s),
            ("whole answer, p95", "s", ours.latency_s, peer.latency_s),
            ("longest wait for a row", "s", ours.wait_s, peer.wait_s),
        )
        for part, unit, mine, theirs in pairs:
            result.add(paired(f"{what}, {ours_name}: {part}", unit, mine, name, theirs))
    for name, of_rule in seen.items():
        result.add(Row(f"{what}, {name}: not answered", sum(of_rule.unanswered), "requests"))
        for kind, counts in of_rule.switches.items():
            if kind in ("start", "unpark") or any(counts):
                result.add(single(f"{what}, {name}: {kind}", "times", counts))
