"""Many ask at once for a model that is not loaded: it is loaded once, and all are answered."""

from __future__ import annotations

import asyncio
import time

import httpx

from benchmarks import models
from benchmarks.harness import Result, Row, single
from benchmarks.memory import system
from benchmarks.memory.system import Machine, Options

NAME = "wanted"
NUM_CLIENTS, NUM_EACH = 2, 100
BODY = {"model": NAME, "prompt": [300, 301, 302, 303], "max_tokens": 1, "ignore_eos": True}


def rows(result: Result, options: Options) -> None:
    """As often as the model is gone again."""
    num_runs = 1 if options.small else 10 if options.full else 3
    loads, times, num_ok = [], [], 0
    with system.started(**{NAME: models.folder("60m")}) as machine, machine.client() as client:
        for _ in range(num_runs):
            before, began = system.metrics(client), time.perf_counter()
            statuses = asyncio.run(_ask(machine))
            times.append(time.perf_counter() - began)
            started = system.gained(
                before, system.metrics(client), "llmos:model_switches_total", what="start"
            )
            loads.append(started)
            num_ok += statuses.count(200)
            system.unload(client, NAME)
    what = f"{NUM_CLIENTS} clients ask {NUM_EACH} times at once for a model that is not loaded"
    asked = num_runs * NUM_CLIENTS * NUM_EACH
    result.add(Row(f"{what}: loads, most of {num_runs} times", max(loads), "loads"))
    result.add(Row(f"{what}: answered", num_ok, "requests", "asked", asked, num_ok / asked))
    result.add(single(f"{what}: all answered after", "s", times))


async def _ask(machine: Machine) -> list[int]:
    clients = [machine.async_client() for _ in range(NUM_CLIENTS)]
    try:
        wishes = (_one(client) for client in clients for _ in range(NUM_EACH))
        return await asyncio.gather(*wishes)
    finally:
        for client in clients:
            await client.aclose()


async def _one(client: httpx.AsyncClient) -> int:
    """The status."""
    return (await client.post("/v1/completions", json=BODY)).status_code
