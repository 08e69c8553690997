"""What the context switch costs the request that is switched.

Batch requests fill every row, interactive ones take rows from them: by suspension
(`kernel.max_parked=0`), then the same arrivals where rows are given up by pausing, then the batch
requests alone. What a switch takes is read off each victim's story: from the order to leave to the
snapshot, and from the row it got back to its next token, less a usual step; the time for which
somebody else has the row is not the switch's. By hand at the server: bytes and milliseconds per
1,000 tokens of context, and that a suspended reader's connection is kept open.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks import models
from benchmarks.harness import Result, Row, paired, single
from benchmarks.memory import system
from benchmarks.memory.stream import Streamed, read_all, resume, suspend
from benchmarks.memory.system import Machine, Options
from benchmarks.sched.arrivals import poisson

NAME = "bench"
NUM_ROWS = 4
SETTINGS = (
    f"kernel.num_slots={NUM_ROWS}",
    "kernel.max_context_tokens=1280",
    "api.keepalive_comment_s=1",
)
WAYS = {"suspended": ("kernel.max_parked=0",), "paused": ("kernel.max_parked=32",), "alone": ()}
VICTIM_PROMPT, INTERACTIVE_PROMPT, INTERACTIVE_TOKENS = 256, 32, 4
VICTIM_TOKENS = {"60m": 200, "0.4b": 64}
RATES = {"60m": 0.7, "0.4b": 0.25}
"""Interactive requests per second while the victims run alone."""

CONTEXT = 1000
SILENT_S = 3.5
NUM_COMMENTS = 3
"""At least so many in SILENT_S, one a second being promised."""

Decisions = Sequence[dict[str, Any]]


@dataclass(frozen=True)
class Switched:
    """Seconds of one victim: leaving, coming back, with a row, from start to end; how often."""

    leaving_s: float
    returning_s: float
    running_s: float
    whole_s: float
    count: int

    @property
    def share(self) -> float:
        """Per cent of the time it ran."""
        return 100 * (self.leaving_s + self.returning_s) / self.running_s


def switched(decisions: Decisions, token_ns: Sequence[int]) -> Switched:
    """Read off a story and the times of its tokens. A step is the median between two tokens."""
    gaps = [b - a for a, b in itertools.pairwise(token_ns)]
    step_ns = statistics.median(gaps)
    leaving_ns = returning_ns = off_ns = 0
    count, left_ns, ordered_ns = 0, 0, 0
    for decision in decisions:
        state, at_ns = decision["state"], decision["at_ns"]
        if state == "suspending" and not ordered_ns:
            ordered_ns = at_ns
        elif state in ("suspended", "waiting") and ordered_ns:
            leaving_ns, count = leaving_ns + at_ns - ordered_ns, count + 1
            left_ns, ordered_ns = at_ns, 0
        elif state == "running" and left_ns:
            off_ns += at_ns - left_ns
            after_ns = next((t for t in token_ns if t > at_ns), at_ns)
            returning_ns += max(0, int(after_ns - at_ns - step_ns))
            left_ns = 0
    began_ns = next(d["at_ns"] for d in decisions if d["state"] == "running")
    whole_ns = decisions[-1]["at_ns"] - began_ns
    return Switched(
        leaving_ns / 1e9, returning_ns / 1e9, (whole_ns - off_ns) / 1e9, whole_ns / 1e9, count
    )


def rows(result: Result, options: Options) -> None:
    """Both models: under load, then by hand."""
    num_runs = 1 if options.small else 9 if options.full else 3
    for model in ("60m", "0.4b"):
        found: dict[str, list[list[Switched]]] = {way: [] for way in WAYS}
        for way, settings in WAYS.items():
            with system.started(*SETTINGS, *settings, **{NAME: models.folder(model)}) as machine:
                if way == "suspended":
                    asyncio.run(_by_hand(result, machine, model, 3 * num_runs))
                for seed in range(1, num_runs + 1):
                    found[way].append(asyncio.run(_victims(machine, model, seed, way)))
        _report(result, model, found)


# under load


def _body(model: str, service_class: str, length: int, num_tokens: int, seed: int) -> Any:
    return {
        "model": NAME,
        "prompt": models.tokens(length, seed, models.SHAPES[model].vocab_size),
        "max_tokens": num_tokens,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
        "return_token_ids": True,
        "llmos": {"class": service_class},
    }


async def _victims(machine: Machine, model: str, seed: int, way: str) -> list[Switched]:
    """A batch request in every row, and what became of each, beside interactive ones."""
    async with machine.async_client() as client:
        num_tokens = VICTIM_TOKENS[model]
        victims = [
            Streamed(_body(model, "batch", VICTIM_PROMPT, num_tokens, 100 * seed + row))
            for row in range(NUM_ROWS)
        ]
        reading = asyncio.create_task(read_all(client, victims))
        for victim in victims:
            await victim.until_tokens(1)
        others = asyncio.create_task(_interactive(client, model, seed, way != "alone"))
        await reading
        others.cancel()
        await asyncio.gather(others, return_exceptions=True)
        return [
            switched(await _decisions(client, victim.request_id), victim.token_ns)
            for victim in victims
        ]


async def _interactive(client: httpx.AsyncClient, model: str, seed: int, are_any: bool) -> None:
    """Poisson arrivals until it is cancelled."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with asyncio.TaskGroup() as tasks:
        for number, due_s in enumerate(poisson(RATES[model], 600.0, seed) if are_any else ()):
            await asyncio.sleep(max(0.0, began + due_s - loop.time()))
            length, num_tokens = INTERACTIVE_PROMPT, INTERACTIVE_TOKENS
            body = _body(model, "interactive", length, num_tokens, 1000 * seed + number)
            tasks.create_task(Streamed(body).read(client))


async def _decisions(client: httpx.AsyncClient, request_id: str) -> Decisions:
    """Its story, whole: it has ended, but the kernel may be about to say so."""
    path = f"/os/v1/processes/{request_id}/wait?timeout_s=10"
    answer = await client.get(path)
    answer.raise_for_status()
    found: Decisions = answer.json()["decisions"]
    return found


def _report(result: Result, model: str, found: dict[str, list[list[Switched]]]) -> None:
    what = f"{model}, {NUM_ROWS} batch requests of {VICTIM_PROMPT}+{VICTIM_TOKENS[model]} tokens"
    hit = [v for victims in found["suspended"] for v in victims if v.count]
    result.add(Row(f"{what}: suspensions", sum(v.count for v in hit), "times"))
    if hit:
        result.add(single(f"{what}: switches of the victim's run time", "%", _shares(hit)))
        leaving = [1e3 * v.leaving_s / v.count for v in hit]
        result.add(single(f"{what}: leaving, a suspension", "ms", leaving))
        returning = [1e3 * v.returning_s / v.count for v in hit]
        result.add(single(f"{what}: coming back, a suspension", "ms", returning))
    whole = {
        way: [max(v.whole_s for v in victims) for victims in runs] for way, runs in found.items()
    }
    for peer in ("paused", "alone"):
        figure = f"{what}: all done, rows given up by suspension"
        result.add(paired(figure, "s", whole["suspended"], peer, whole[peer]))


def _shares(victims: Iterable[Switched]) -> list[float]:
    return [victim.share for victim in victims]


# by hand


async def _by_hand(result: Result, machine: Machine, model: str, times: int) -> None:
    """One request of CONTEXT tokens, suspended and resumed again and again; then silent."""
    async with machine.async_client() as client:
        stream = Streamed(_body(model, "default", CONTEXT, 12 * times + 24, 1))
        reading = asyncio.create_task(stream.read(client))
        sizes, leaving, returning = [], [], []
        for number in range(times):
            await stream.until_tokens(6 + 8 * number)
            size, leaving_ms, returning_ms = await _switch(client, stream)
            per_1000 = 1000 / (CONTEXT + len(stream.token_ids))
            sizes.append(size * per_1000 / 1e6)
            leaving.append(leaving_ms * per_1000)
            returning.append(returning_ms * per_1000)
        num_comments = await _silence(client, stream)
        await reading
    what = f"{model} at the server, {CONTEXT} tokens"
    result.add(single(f"{what}: bytes", "MB/1000", sizes))
    result.add(single(f"{what}: suspend, order to snapshot", "ms/1000", leaving))
    result.add(single(f"{what}: resume, order to the next token less a step", "ms/1000", returning))
    figure = f"{model}: comment lines in {SILENT_S} s of suspension, one a second promised"
    result.add(Row(figure, num_comments, "lines"))
    if num_comments < NUM_COMMENTS or stream.end is None:
        raise RuntimeError(f"{figure}: {num_comments}, {stream.error or 'the stream ended'}")


async def _switch(client: httpx.AsyncClient, stream: Streamed) -> tuple[float, float, float]:
    """Bytes and milliseconds of one, by the server's metrics and the reader's clock."""
    before = await _metrics(client)
    if not await suspend(client, stream.request_id):
        raise RuntimeError(f"{stream.request_id} was not suspended: {stream.error}")
    after = await _metrics(client)
    size = system.gained(before, after, "llmos:snapshot_size_bytes_sum")
    leaving_s = system.gained(before, after, "llmos:suspend_seconds_sum")
    seen = len(stream.token_ids)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await resume(client, stream.request_id)
    await stream.until_tokens(seen + 1)
    took_s = loop.time() - began
    await stream.until_tokens(seen + 2)
    gaps = [b - a for a, b in itertools.pairwise(stream.token_ns)]
    return size, 1e3 * leaving_s, max(0.0, 1e3 * took_s - statistics.median(gaps) / 1e6)


async def _silence(client: httpx.AsyncClient, stream: Streamed) -> int:
    """Comment lines while it is suspended for SILENT_S; then it goes on."""
    if not await suspend(client, stream.request_id):
        raise RuntimeError(f"{stream.request_id} was not suspended: {stream.error}")
    before = stream.num_comments
    await asyncio.sleep(SILENT_S)
    count = stream.num_comments - before
    await resume(client, stream.request_id)
    return count


async def _metrics(client: httpx.AsyncClient) -> system.Samples:
    answer = await client.get("/metrics")
    answer.raise_for_status()
    return system.parse_metrics(answer.text)
