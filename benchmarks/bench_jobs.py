"""How many jobs a second are accepted, durably, and what a job costs the store.

A job is accepted when `JobStore.add` returns: it is on disk. Submitters each wait for one answer
before they send the next, as clients do. Ours is group commit as shipped; the peer is the same
store with one transaction and one sync per job. Then the same with up to a million jobs in the
table (half of them ended, half pending), with a job's whole life (claim, begin, finish), a page and
the counts. Beside it the same store on a PostgreSQL started for this run, where it is installed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from benchmarks import harness
from llmos.abi.ids import new_id
from llmos.abi.jobs import JobFilter, JobRecord, JobSpec, JobState
from llmos.abi.principal import Principal, ServiceClass
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import open_database
from llmos.storage.home import open_home
from llmos.storage.jobs import SqlJobStore, close_job_store, open_job_store
from tests.postgres import Postgres, find_programs

SUBMITTERS = (1, 16, 64, 256)
SIZES = (1_000, 10_000, 100_000, 1_000_000)
FILL = 2000
OWNER = Principal("prn_bench", "default", "bench")
PEER = "a transaction each"
_numbers = itertools.count()


def job(service_class: ServiceClass = ServiceClass.INTERACTIVE) -> JobRecord:
    """About what a durable call of a chat is: half a kilobyte."""
    inputs = {"generate": {"model": "pilot", "messages": [{"role": "user", "content": "x" * 300}]}}
    spec = JobSpec("infer", inputs, service_class=service_class)
    return JobRecord(new_id("job"), OWNER, spec, JobState.PENDING, time.time_ns(), 0)


@asynccontextmanager
async def opened(folder: Path, url: str, *, grouped: bool) -> AsyncIterator[SqlJobStore]:
    """A store in a new home; `grouped`: with group commit."""
    limits = {} if grouped else {"max_group_writes": 1, "commit_window_s": 0.0}
    config = StorageConfig(jobs_url=url, **limits)
    path = folder / f"home-{next(_numbers)}"
    home = open_home(path)
    database = open_database(home.db, config)
    store = await open_job_store(home, database, Blobs(home, config), config)
    try:
        yield store
    finally:
        await close_job_store(store)
        database.close()
        home.close()
        shutil.rmtree(path)


async def accept(store: SqlJobStore, num_submitters: int, for_s: float) -> float:
    """Accepted jobs a second."""
    num = 0
    end_s = time.monotonic() + for_s

    async def submit() -> None:
        nonlocal num
        while time.monotonic() < end_s:
            await store.add([job()])
            num += 1

    began_s = time.monotonic()
    await asyncio.gather(*(submit() for _ in range(num_submitters)))
    return num / (time.monotonic() - began_s)


async def live(store: SqlJobStore, num_workers: int, count: int) -> float:
    """Mean ms of a job's claim, begin and finish, of `count` jobs by so many workers at once."""
    await store.add([job() for _ in range(count)])
    left = count
    began_s = time.monotonic()

    async def work() -> None:
        nonlocal left
        while left > 0:
            found = await store.claim(8, time.time_ns())
            left -= len(found)
            for each in found:
                attempt = await store.begin(each.job_id, time.time_ns())
                if attempt is None:
                    raise RuntimeError("a claimed job did not begin")
                await store.finish(attempt, JobState.SUCCEEDED, "done", outputs={"n": 1})
            if not found:
                return

    await asyncio.gather(*(work() for _ in range(num_workers)))
    return (time.monotonic() - began_s) * 1e3 / count


async def mean_ms(call: object, times: int) -> float:
    """Of an async call without arguments."""
    began_s = time.monotonic()
    for _ in range(times):
        await call()  # type: ignore[operator]
    return (time.monotonic() - began_s) * 1e3 / times


async def fill(store: SqlJobStore, size: int) -> None:
    """Up to `size` jobs: half have ended, half are pending in the lowest class."""
    have = sum((await store.count()).values())
    while have < size:
        rows = [job(ServiceClass.BATCH) for _ in range(min(FILL, size - have))]
        half = len(rows) // 2
        ended = [_ended(each) for each in rows[:half]]
        await store.add(ended + rows[half:])
        have += len(rows)


def _ended(record: JobRecord) -> JobRecord:
    return JobRecord(
        record.job_id, OWNER, record.spec, JobState.SUCCEEDED, record.created_ns, 0, "recorded"
    )


async def compare(result: harness.Result, args: argparse.Namespace, name: str, url: str) -> None:
    """Group commit against one transaction per job, in turns."""
    for num in args.submitters:
        ours, peer = [], []
        for _ in range(args.repeat):
            async with opened(args.folder, url, grouped=True) as store:
                ours.append(await accept(store, num, args.seconds))
            async with opened(args.folder, url, grouped=False) as store:
                peer.append(await accept(store, num, args.seconds))
        figure = f"{name}: accepted, {num} submitters"
        result.add(harness.paired(figure, "jobs/s", ours, PEER, peer))
    lives, alone = [], []
    for _ in range(args.repeat):
        async with opened(args.folder, url, grouped=True) as store:
            lives.append(await live(store, 64, args.count))
        async with opened(args.folder, url, grouped=False) as store:
            alone.append(await live(store, 64, args.count))
    figure = f"{name}: claim, begin, finish, 64 workers"
    result.add(harness.paired(figure, "ms/job", lives, PEER, alone))


Line = list[tuple[int, float]]


async def grow(
    result: harness.Result, args: argparse.Namespace, name: str, url: str
) -> dict[str, Line]:
    """What things cost while the table grows."""
    lines: dict[str, Line] = {"jobs/s": [], "ms/job": []}
    async with opened(args.folder, url, grouped=True) as store:
        for size in args.sizes:
            await fill(store, size)
            rates = [await accept(store, 64, args.seconds) for _ in range(args.repeat)]
            costs = [await live(store, 64, args.count) for _ in range(args.repeat)]
            query = JobFilter(tenant_id="default", states=[JobState.SUCCEEDED], limit=20)
            pages = [await mean_ms(lambda q=query: store.page(q), 20) for _ in range(args.repeat)]
            counts = [await mean_ms(store.count, 20) for _ in range(args.repeat)]
            at = f"{name}: {size:,} jobs, "
            result.add(harness.single(at + "accepted by 64", "jobs/s", rates))
            result.add(harness.single(at + "claim, begin, finish", "ms/job", costs))
            result.add(harness.single(at + "a page of 20", "ms", pages))
            result.add(harness.single(at + "counts", "ms", counts))
            lines["jobs/s"].append((size, harness.round4(sorted(rates)[len(rates) // 2])))
            lines["ms/job"].append((size, harness.round4(sorted(costs)[len(costs) // 2])))
    return lines


def draw(lines: dict[str, dict[str, Line]], path: Path) -> None:
    """Rates and costs against the size of the table."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "jobs"
    mpl.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.5))
    what = (("jobs/s", "accepted, 64 submitters"), ("ms/job", "claim, begin, finish, 64 workers"))
    for axis, (unit, title) in zip(axes, what, strict=True):
        for name, of in lines.items():
            axis.plot(*zip(*of[unit], strict=True), marker="o", label=name)
        axis.set(xscale="log", xlabel="jobs in the table", ylabel=unit, title=title, ylim=(0, None))
        axis.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


async def measure(args: argparse.Namespace, result: harness.Result) -> None:
    lines = {}
    await compare(result, args, "SQLite", "")
    lines["SQLite"] = await grow(result, args, "SQLite", "")
    programs = find_programs()
    if programs is None:
        print("PostgreSQL is not installed: left out")
    else:
        server = Postgres(programs, durable=True)
        try:
            await compare(result, args, "PostgreSQL", server.create("compared"))
            sizes = [size for size in args.sizes if size <= args.postgres_size]
            shared = argparse.Namespace(**{**vars(args), "sizes": sizes})
            lines["PostgreSQL"] = await grow(result, shared, "PostgreSQL", server.create("grown"))
        finally:
            server.remove()
    if args.write:
        result.write()
        draw(lines, harness.RESULTS / "jobs-lines.svg")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--submitters", type=int, nargs="+", default=SUBMITTERS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--postgres-size", type=int, default=100_000, help="largest table there")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each accepting")
    parser.add_argument("--count", type=int, default=1000, help="jobs that live")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--no-write", dest="write", action="store_false")
    args = parser.parse_args()
    args.folder = Path(tempfile.mkdtemp(prefix="llmos-bench-", dir=args.folder))
    result = harness.Result("jobs", harness.command("jobs"))
    try:
        asyncio.run(measure(args, result))
    finally:
        shutil.rmtree(args.folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
