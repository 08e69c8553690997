"""One life of the store under the storm: clients and workers on the real storage, in one process.

No kernel and no HTTP: the storage alone, as fast as it goes. `live` is called in a fork of the
zygote. What clients know of earlier lives they read in their own history.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.jobs import ENDED, JobFilter, JobState
from llmos.errors import LLMOSError
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import open_database
from llmos.storage.files import Files
from llmos.storage.home import open_home
from llmos.storage.housekeeping import HomeKeeper
from llmos.storage.jobs import SqlJobStore, close_job_store, open_job_store
from llmos.storage.restore import restore
from llmos.storage.uploads import Uploads
from llmos.telemetry.metrics import Metrics
from tests.storm import hook
from tests.storm.history import Asked, Heard, Writer, tail
from tests.storm.patrons import Patron
from tests.storm.workers import Crew

Say = Callable[[dict[str, Any]], None]
MEMORY_BYTES = 200_000
MAX_LIVE = 120
NO_BACKUP = 3
"""The status of a restore whose source is none: its making was cut short."""


class Order(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a life is told. `drain`: no new work, end when all is done."""

    home: str
    history: str
    tally: str
    log: str
    seed: int
    life: int
    plan: hook.Plan = hook.Plan()
    num_patrons: int = 8
    drain: bool = False
    url: str = ""
    backups: str = ""
    files: bool = True
    trial: str = ""
    """Not a life: `open` a home and close it, or `restore` it from `source`."""
    source: str = ""
    backup_at_once: bool = False
    weights: dict[str, int] = {}
    """Of the patrons' acts by name, instead of their own."""


class Memory:
    """What clients remember: jobs, keys whose answer is missing, attempts of dead servers."""

    def __init__(self, history: Path) -> None:
        self.job_ids: list[str] = []
        self.failed: list[str] = []
        self.files: list[tuple[str, str]] = []
        self.unanswered: list[Asked] = []
        self.attempts: list[tuple[str, int, int]] = []
        asked: dict[int, Asked] = {}
        for line in tail(history, MEMORY_BYTES):
            if isinstance(line, Asked):
                asked[line.number] = line
            elif isinstance(line, Heard) and line.number in asked:
                self._learn(asked.pop(line.number), line)
        self.unanswered = [a for a in asked.values() if a.key and a.op in ("submit", "file_add")]

    def _learn(self, asked: Asked, heard: Heard) -> None:
        if heard.how != "ok":
            return
        if asked.op == "submit":
            self.job_ids += [seen.job_id for seen in heard.seen]
        elif asked.op == "begin" and heard.taken:
            self.attempts.append((asked.job_id, heard.attempt, asked.epoch))
        elif asked.op == "file_add":
            self.files += [(file.file_id, file.tag) for file in heard.files]


class World:
    """What is opened in one life."""

    def __init__(self, order: Order, writer: Writer) -> None:
        self.order = order
        self.writer = writer
        self.random = random.Random(f"{order.seed}/{order.life}")
        self.memory = Memory(Path(order.history))
        self.told: set[str] = set()
        """Jobs that run and have been told to end: their kernel knows."""
        self.has_room = asyncio.Event()
        """Unset while so much waits that clients hold back."""

    async def ask(
        self,
        op: str,
        work: Callable[[], Awaitable[Any]],
        told: Callable[[Any], dict[str, Any]],
        **about: Any,
    ) -> Any:
        """Ask the store, and write down both ends. None when it refused."""
        number = self.writer.ask(op, **about)
        try:
            made = await work()
        except LLMOSError as error:
            self.writer.heard(number, "no", code=error.code)
            return None
        self.writer.heard(number, "ok", **told(made))
        return made

    store: SqlJobStore
    files: Files
    uploads: Uploads
    blobs: Blobs
    keeper: HomeKeeper


def live(order: dict[str, Any], say: Say) -> int:
    """Runs until it is killed, or until all is done when it is told to drain."""
    made = msgspec.convert(order, Order)
    tally = hook.Tally(Path(made.tally))
    hook.install(made.plan, tally)
    if made.trial:
        say({"ready": 0})
        return _try(made)
    return asyncio.run(_live(made, say))


def _try(order: Order) -> int:
    if order.trial == "restore":
        try:
            restore(Path(order.source), Path(order.home), force=True)
        except LLMOSError as error:
            return NO_BACKUP if error.code == "invalid_request" else 1
        return 0
    home = open_home(Path(order.home))
    open_database(home.db, StorageConfig()).close()
    home.close()
    return 0


async def _live(order: Order, say: Say) -> int:
    home = open_home(Path(order.home))
    config = StorageConfig(
        min_free_bytes=0, checkpoint_bytes=1 << 20, checkpoint_commits=8, jobs_url=order.url
    )
    database = open_database(home.db, config)
    writer = Writer(Path(order.history), f"life-{order.life}")
    world = World(order, writer)
    world.blobs = Blobs(home, config)
    world.uploads = Uploads(home, world.blobs, config)
    world.store = await open_job_store(home, database, world.blobs, config)
    jobs_database: Any = world.store.database
    world.files = Files(home, jobs_database, world.blobs, world.uploads, config)
    world.keeper = HomeKeeper(
        home, database, jobs_database, world.blobs, world.uploads, metrics=Metrics(), config=config
    )
    await world.store.recover()
    writer.mark("ready", epoch=world.store.epoch)
    say({"ready": world.store.epoch})
    await _resume_all(world)
    crew = Crew(world, home.scratch)
    tasks = [asyncio.create_task(crew.work(), name="crew")]
    if order.drain:
        await _until_done(world, tasks)
    else:
        patrons = [Patron(world, number) for number in range(order.num_patrons)]
        tasks += [asyncio.create_task(patron.live()) for patron in patrons]
        tasks += [asyncio.create_task(_keep(world)), asyncio.create_task(_hold_back(world))]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    for done in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(done, Exception):
            raise done
    await close_job_store(world.store)
    database.close()
    home.close()
    return 0


async def _resume_all(world: World) -> None:
    """The operator comes back."""
    while found := await world.store.page(JobFilter(states=[JobState.SUSPENDED])):
        for job in found:
            await world.store.resume(job.job_id, "the operator is back")


async def _until_done(world: World, tasks: list[asyncio.Task[None]]) -> None:
    patron = Patron(world, 0)
    await patron.ask_again()
    while await _num_live(world):
        done, _ = await asyncio.wait(tasks, timeout=0.02)
        if done:
            return


async def _num_live(world: World) -> int:
    counts = await world.store.count()
    return sum(num for state, num in counts.items() if state not in ENDED)


async def _hold_back(world: World) -> None:
    """Work comes about as fast as it is done, so that the calm at the end is short."""
    while True:
        if await _num_live(world) < MAX_LIVE:
            world.has_room.set()
        else:
            world.has_room.clear()
        await asyncio.sleep(0.03)


async def _keep(world: World) -> None:
    """Sweeps and backups, now and then."""
    number = 0
    while True:
        number += 1
        if number > 1 or not world.order.backup_at_once:
            await asyncio.sleep(world.random.uniform(0.05, 0.3))
        with contextlib.suppress(LLMOSError):
            await world.keeper.collect()
            await world.store.retain(0)
        if world.order.backups and number % 5 == 1:
            path = Path(world.order.backups) / f"{world.order.life}-{number}"
            with contextlib.suppress(LLMOSError):
                await world.keeper.back_up(str(path))
