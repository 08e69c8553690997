"""Clients over HTTP, in a process of their own: `python -m tests.storm.clients ORDER` (JSON).

They know nothing of the server but its port and token, go on over its deaths, and write down what
they ask and hear. SIGTERM: no new work; what was asked with a key and never answered is asked again
until it is, and then they end.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from tests.storm.acts import WEIGHTS, Acts
from tests.storm.history import Writer
from tests.storm.orphans import die_with_parent
from tests.storm.wire import Unanswered, Unreachable, Wire

PAUSE_S = 0.03
LOOK_EVERY = 25
"""Acts between two looks at how much waits."""
MAX_WAITING = 100
HOLD_S = 0.2


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """`weights` of the kinds of acts by name, those of `acts.WEIGHTS` without it."""

    port: int
    token_path: str
    history: str
    name: str
    seed: int
    num_clients: int = 8
    weights: dict[str, int] = {}
    pace_s: float = 0.0
    """Between two acts of a client."""


async def run(order: Order, token: str) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    clients = [
        asyncio.create_task(_client(order, token, number, stop))
        for number in range(order.num_clients)
    ]
    await asyncio.gather(*clients)


async def _client(order: Order, token: str, number: int, stop: asyncio.Event) -> None:
    name = f"{order.name}.{number}"
    writer = Writer(Path(order.history) / name, name)
    chance = random.Random(f"{order.seed}/{name}")
    wire = Wire(order.port, token)
    acts = Acts(wire, writer, chance, name)
    names, weights = zip(*(order.weights or WEIGHTS).items(), strict=True)
    num_acts = 0
    while not stop.is_set():
        num_acts += 1
        if num_acts % LOOK_EVERY == 0 and not await _has_room(wire):
            num_acts -= 1
            await asyncio.sleep(HOLD_S)
            continue
        (act,) = chance.choices(names, weights)
        await _try(acts.by_name(act))
        if order.pace_s:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), order.pace_s)
    while acts.unanswered:
        await _try(acts.ask_again)
    wire.drop()
    writer.close()


async def _has_room(wire: Wire) -> bool:
    """Whether so few jobs wait that new ones will soon be run; a client with manners looks."""
    try:
        answer = await wire.ask("GET", f"/os/v1/jobs?state=pending&limit={MAX_WAITING}")
    except (Unreachable, Unanswered):
        return True
    return answer.status != 200 or len(answer.json()["jobs"]) < MAX_WAITING


async def _try(act: Callable[[], Awaitable[None]]) -> None:
    """One act; a server that is not there is waited for."""
    try:
        await act()
    except (Unreachable, Unanswered):
        await asyncio.sleep(PAUSE_S)


def _token(path: Path) -> str:
    """The server makes it at its first start."""
    while not path.exists():
        time.sleep(PAUSE_S)
    return path.read_text().strip()


def main() -> int:
    die_with_parent()
    order = msgspec.json.decode(sys.argv[1], type=Order)
    asyncio.run(run(order, _token(Path(order.token_path))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
