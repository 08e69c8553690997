"""Whether a suspended request says what it would have said: token by token, at a real server.

Waves of requests run beside each other in deterministic mode; each leaves its worker at random
points and goes on. In between, by kind: nothing else happens; the model is unloaded; its worker is
killed; the server is killed or stopped and started again, and the reader comes back with
`Last-Event-ID`. The same requests, never suspended and in other company, are what they must equal.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import httpx

from benchmarks import models
from benchmarks.harness import ROOT, Result, Row
from benchmarks.memory import system
from benchmarks.memory.cases import Case, Subject, draw_waves, first_difference
from benchmarks.memory.stream import Streamed, read_all, resume, suspend
from benchmarks.memory.system import Machine, Options

SUBJECTS = (
    Subject("stories260k", 512, 200, 160, share=0.6),
    Subject("60m", 16384, 100, 48, share=0.4),
)
SETTINGS = ("kernel.max_context_tokens=512", "kernel.max_kept_streams=4096")
NUM_CASES = {
    "beside others": 180,
    "model unloaded": 85,
    "worker killed": 85,
    "server killed": 85,
    "server stopped": 85,
}
"""At least, on all models, by what happens while they are suspended."""

CONTEXTS = ("snapshot", "recomputed", "kept")
FULL_FACTOR = 4
MAX_AWAY_S = 0.1
WAVE_TIMEOUT_S = 240.0


def rows(result: Result, options: Options) -> None:
    """All kinds on each model, and all together."""
    factor = FULL_FACTOR if options.full else 1
    counts = Counter[str]()
    for subject in SUBJECTS:
        if (folder := folder_of(subject.name)) is None:
            continue
        with system.started(*SETTINGS, **{subject.name: folder}) as machine:
            for number, (kind, num_cases) in enumerate(NUM_CASES.items()):
                wanted = 1 if options.small else math.ceil(num_cases * subject.share) * factor
                waves = draw_waves(subject, wanted, number + 1)
                counts += tally(result, f"{subject.name}, {kind}", run(machine, waves, kind))
    if not counts["all"]:
        return
    _add_equal(result, "suspended, all kinds", counts)
    for context in CONTEXTS:
        result.add(Row(f"… context {context}, by the server", counts[context], "requests"))
    result.add(Row("… suspensions of all of them", counts["suspensions"], "times"))


def folder_of(name: str) -> Path | None:
    """None, said in a line: the data are not there."""
    if name != "stories260k":
        return models.folder(name)
    data = Path(os.environ.get("LLMOS_TEST_DATA") or ROOT.parent / "shared" / "data")
    folder = data / "models" / name
    if not folder.is_dir():
        print(f"exact: no {folder}: left out")
        return None
    return folder


Pair = tuple[Case, Streamed, Streamed]
"""A case, as it was suspended, and as it was not."""


def run(machine: Machine, waves: list[list[Case]], kind: str) -> list[Pair]:
    """The uninterrupted ones first, in the company of other waves' cases."""
    cases = [case for wave in waves for case in wave]
    mixed = random.Random(len(cases)).sample(range(len(cases)), len(cases))
    whole = {index: Streamed(cases[index].body) for index in mixed}
    for begin in range(0, len(mixed), 12):
        part = [whole[index] for index in mixed[begin : begin + 12]]
        asyncio.run(_read_all(machine, part))
    suspended = []
    for number, wave in enumerate(waves):
        suspended += asyncio.run(_wave(machine, wave, kind, number))
        for stream in suspended[-len(wave) :]:
            if stream.end is not None and stream.end["context"] == "recomputed":
                print(f"recomputed, {kind}: {_story(machine, stream)}")
    return [(case, suspended[i], whole[i]) for i, case in enumerate(cases)]


async def _read_all(machine: Machine, streams: list[Streamed]) -> None:
    async with machine.async_client() as client:
        await read_all(client, streams)


async def _wave(machine: Machine, wave: list[Case], kind: str, seed: int) -> list[Streamed]:
    """Its streams, ended. Raises TimeoutError when one hangs."""
    streams = [Streamed(case.body) for case in wave]
    try:
        async with asyncio.timeout(WAVE_TIMEOUT_S):
            if kind == "beside others":
                await _undisturbed(machine, wave, streams, seed)
            else:
                await _disturbed(machine, wave, streams, kind, seed)
    except TimeoutError:
        for stream in streams:
            if not stream.is_over:
                stream.error = "hangs"
                print(f"hangs, {kind}: {await asyncio.to_thread(_story, machine, stream)}")
    return streams


async def _undisturbed(
    machine: Machine, wave: list[Case], streams: list[Streamed], seed: int
) -> None:
    async with machine.async_client() as client, asyncio.TaskGroup() as tasks:
        for number, (case, stream) in enumerate(zip(wave, streams, strict=True)):
            tasks.create_task(stream.read(client))
            draw = random.Random(1000 * seed + number)
            tasks.create_task(_leave(client, stream, case.points, draw))


async def _disturbed(
    machine: Machine, wave: list[Case], streams: list[Streamed], kind: str, seed: int
) -> None:
    """All leave once; it happens; all go on, leave again and come to their end."""
    async with machine.async_client() as client, asyncio.TaskGroup() as tasks:
        readers = [tasks.create_task(stream.read(client)) for stream in streams]
        pairs = zip(wave, streams, strict=True)
        await asyncio.gather(*(_hold(client, s, case.points[0]) for case, s in pairs))
        await asyncio.to_thread(HAPPENINGS[kind], machine, wave[0].body["model"])
        if not kind.startswith("server"):
            await _go_on(client, wave, streams, seed)
        await asyncio.gather(*readers)
    if kind.startswith("server"):
        async with machine.async_client() as client, asyncio.TaskGroup() as tasks:
            for stream in streams:
                tasks.create_task(stream.read(client))
            await _go_on(client, wave, streams, seed)


async def _hold(client: httpx.AsyncClient, stream: Streamed, point: int) -> None:
    if await stream.until_tokens(point):
        await suspend(client, stream.request_id)


async def _go_on(
    client: httpx.AsyncClient, wave: list[Case], streams: list[Streamed], seed: int
) -> None:
    async with asyncio.TaskGroup() as tasks:
        for number, (case, stream) in enumerate(zip(wave, streams, strict=True)):
            if not stream.is_over:
                await resume(client, stream.request_id)
                draw = random.Random(1000 * seed + number)
                tasks.create_task(_leave(client, stream, case.points[1:], draw))


async def _leave(
    client: httpx.AsyncClient, stream: Streamed, points: Sequence[int], draw: random.Random
) -> None:
    """At each point, for a moment."""
    for point in points:
        if not await stream.until_tokens(point):
            return
        if await suspend(client, stream.request_id):
            await asyncio.sleep(draw.uniform(0, MAX_AWAY_S))
            await resume(client, stream.request_id)


# what happens meanwhile


def _unload(machine: Machine, model: str) -> None:
    with machine.client() as client:
        system.unload(client, model)


def _kill_worker(machine: Machine, model: str) -> None:
    with machine.client() as client:
        pid = system.worker_pid(client, model)
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + system.TIMEOUT_S
        while any(w["pid"] == pid for w in system.get(client, "/os/v1/workers")["workers"]):
            if time.monotonic() > deadline:
                raise RuntimeError(f"worker {pid} was killed and is still listed")
            time.sleep(system.POLL_S)


def _kill_server(machine: Machine, model: str) -> None:
    machine.stop(signal.SIGKILL)
    machine.start()


def _stop_server(machine: Machine, model: str) -> None:
    machine.stop(signal.SIGTERM)
    machine.start()


HAPPENINGS: dict[str, Callable[[Machine, str], None]] = {
    "model unloaded": _unload,
    "worker killed": _kill_worker,
    "server killed": _kill_server,
    "server stopped": _stop_server,
}


def _story(machine: Machine, stream: Streamed) -> str:
    """Every decision about a request, for a person."""
    with machine.client() as client:
        answer = client.get(f"/os/v1/processes/{stream.request_id}")
    if answer.status_code != 200:
        return f"{stream.request_id}: {answer.text}"
    made = [f"{d['state']}: {d['reason']}" for d in answer.json()["decisions"]]
    return f"{stream.request_id}: {'; '.join(made)}"


# what came of it


def tally(result: Result, what: str, pairs: list[Pair]) -> Counter[str]:
    """A row of one kind on one model, every difference in a line. The counts behind it."""
    counts = Counter({"all": len(pairs)})
    for case, ours, theirs in pairs:
        at = first_difference(ours.token_ids, theirs.token_ids)
        if ours.end is not None:
            counts[ours.end["context"]] += 1
            counts["suspensions"] += ours.end["suspensions"]
        if at is None and ours.end is not None:
            counts["equal"] += 1
        else:
            print(f"{what}: {_difference(case, ours, at, len(theirs.token_ids))}")
    _add_equal(result, f"suspended, {what}", counts)
    print(f"  {', '.join(f'{name} {count}' for name, count in counts.items())}")
    return counts


def _add_equal(result: Result, what: str, counts: Counter[str]) -> None:
    equal, count = counts["equal"], counts["all"]
    result.add(Row(f"{what}: equal", equal, "requests", "all", count, equal / count))


def _difference(case: Case, ours: Streamed, at: int | None, length: int) -> str:
    how = "greedy" if case.is_greedy else "seeded"
    what = f"{ours.request_id} ({how}, leaves at {case.points}) differs at {at} of {length}"
    return f"{what}: {ours.error or ours.end}"
