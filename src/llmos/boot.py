"""Boot: the only module that knows every concrete class. Top to bottom is the order of starting."""

from __future__ import annotations

import asyncio
import functools
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from starlette.types import ASGIApp

from llmos import __version__
from llmos.abi.driver import DriverEntry
from llmos.abi.policy import MakePolicy
from llmos.abi.program import ProgramEntry
from llmos.abi.settings import SettingInfo
from llmos.api.app import SEGMENTS, build_app
from llmos.api.gate import GateClient
from llmos.api.server import serve
from llmos.cluster.local import LocalNode
from llmos.console.front import Front
from llmos.drivers.catalog import DRIVERS, choose, place
from llmos.drivers.environments import find_version
from llmos.errors import ConfigError, PluginError
from llmos.kernel.kernel import Kernel, Services
from llmos.plugins import entry_points
from llmos.registry.intake import is_allowed
from llmos.registry.registry import Builtin, ModelRegistry
from llmos.security.authorizer import RoleAuthorizer
from llmos.security.keys import Keys
from llmos.security.secrets import Secrets
from llmos.settings import Settings, known_secrets, secret_variables, tell, worker_env
from llmos.storage.blobs import Blobs
from llmos.storage.database import Database, open_database
from llmos.storage.feedback import SqlFeedbackStore
from llmos.storage.files import Files
from llmos.storage.footprints import SqlFootprintLog, open_footprints
from llmos.storage.home import Home, open_home
from llmos.storage.housekeeping import HomeKeeper
from llmos.storage.jobs import SqlJobStore, SqlRequestLog, close_job_store, open_job_store
from llmos.storage.snapshots import Snapshots
from llmos.storage.source import BlobReader
from llmos.storage.uploads import Uploads
from llmos.telemetry.logs import LOG, LogFile, RequestLines, setup_logs
from llmos.telemetry.logtail import RedactedLog
from llmos.telemetry.metrics import Metrics
from llmos.telemetry.redact import Redactor
from llmos.telemetry.setup import open_tracer
from llmos.telemetry.tracer import Tracer
from llmos.tracking.opening import open_sink
from llmos.tracking.sink import Sink
from llmos.tracking.tracker import Tracker
from llmos.weights.processor import choose_dtype

log = logging.getLogger(__name__)

GC_THRESHOLDS = (20_000, 20, 50)
"""Rarer than Python's own: almost all of a request's objects die by reference count."""

PILOT_FOLDER = Path(__file__).parent / "pilot"
BUNDLED = Path(__file__).parent / "bundled"
BUILTINS = (
    Builtin(name="pilot", folder=PILOT_FOLDER),
    Builtin(name="sentiment", folder=BUNDLED / "sentiment"),
    Builtin(name="embedding", folder=BUNDLED / "embedding"),
    Builtin(
        name="echo",
        driver="echo",
        prepare=DRIVERS["echo"].prepare,
        vocab_size=0x110000,
        context_length=1 << 20,
    ),
)


def run(settings: Settings, flags: Mapping[str, Any] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; 0 after a graceful stop. Raises LLMOSError for a bad start.

    `flags` are those the settings were loaded with: they are told to whoever asks where a value is
    from.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(settings, tell(settings, flags)))


async def _run(settings: Settings, told: Sequence[SettingInfo]) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, _interrupted, stop)
    async with system(settings, told) as (kernel, home, app):
        closed = asyncio.Event()
        socket = home.path / "api.sock"
        serving = asyncio.create_task(
            serve(app, settings.api, socket, _announcer(home), closed), name="serving"
        )
        stopping = asyncio.create_task(stop.wait())
        watched: set[asyncio.Future[Any]] = {serving, stopping, kernel.fatal}
        await asyncio.wait(watched, return_when=asyncio.FIRST_COMPLETED)
        failed = kernel.fatal.done()
        if not failed:  # a core that failed cannot drain
            await kernel.stop()
        closed.set()
        stopping.cancel()
        (home.path / "server.json").unlink(missing_ok=True)
        await serving
    return 1 if failed else 0


def _interrupted(stop: asyncio.Event) -> None:
    """The first time: drain. The second time: the person means it."""
    if stop.is_set():
        os._exit(130)
    stop.set()


@asynccontextmanager
async def system(
    settings: Settings, told: Sequence[SettingInfo] = ()
) -> AsyncIterator[tuple[Kernel, Home, ASGIApp]]:
    """Everything but the listening sockets, started in order and stopped in reverse. `told`: the
    settings as clients may read them."""
    async with AsyncExitStack() as stack:
        home = open_home(settings.home)
        stack.callback(home.close)
        log_file = _setup_logs(settings, home)
        place("vllm", str(settings.drivers.vllm_python or ""))
        database = open_database(home.db, settings.storage)
        stack.callback(database.close)
        keys = Keys(home, database, settings.security)
        await keys.open()
        metrics = Metrics()
        tracer = _open_tracer(settings, home, metrics, stack)
        request_lines = _open_request_lines(settings, log_file, metrics, stack)
        disk = await _open_disk(settings, home, database, metrics)
        stack.push_async_callback(close_job_store, disk.jobs)
        stack.push_async_callback(disk.requests.close)
        registry = await _open_registry(settings, home, database, disk, stack)
        stack.push_async_callback(_end, asyncio.create_task(disk.keeper.run(), name="sweeping"))
        _start_tracking(settings, home, disk, stack)
        authorizer = RoleAuthorizer()
        node = _open_node(home)
        snapshots, footprints = await _open_memory(settings, home, database, node, stack)
        services = Services(
            registry=registry,
            authorizer=authorizer,
            keys=keys,
            node=node,
            driver_of=driver_entry,
            make_policy=policy_named(settings.kernel.policy),
            probe_store=_prover(database, disk.jobs),
            scratch=home.scratch,
            version=__version__,
            epoch=database.epoch,
            jobs=disk.jobs,
            files=disk.files,
            requests=disk.requests,
            housekeeping=disk.keeper,
            program_of=program_named,
            programs=installed_programs,
            plan_of=entry_points.named,
            snapshots=snapshots,
            footprints=footprints,
            feedback=SqlFeedbackStore(database, settings.storage),
            choose_dtype=choose_dtype,
            cache=home.cache,
            min_free_bytes=settings.storage.min_free_bytes,
            find_secret=Secrets(home.path / "secrets", secret_variables()).find,
            tracer=tracer,
            watts_per_core=settings.telemetry.watts_per_core,
            request_lines=request_lines,
            may_reach=functools.partial(is_allowed, patterns=settings.registry.egress),
        )
        entry_points.names(entry_points.PROGRAMS)  # read now: later, no file may be free
        kernel = Kernel(services, settings.kernel, metrics, settings.jobs)
        await kernel.start(settings.preload)
        app = _build_edge(kernel, keys, disk, settings, told, home=home)
        front = Front(app, SEGMENTS, settings.console, settings.api.max_inline_image_bytes)
        stack.push_async_callback(front.close)
        _calm_collector()
        yield kernel, home, front


def _build_edge(
    kernel: Kernel,
    keys: Keys,
    disk: Disk,
    settings: Settings,
    told: Sequence[SettingInfo],
    *,
    home: Home,
) -> ASGIApp:
    return build_app(
        GateClient(kernel.connect()),
        keys,
        disk.uploads,
        kernel.metrics.render,
        settings.api,
        authorizer=kernel.authorizer,
        allowed_uid=os.geteuid(),
        tracer=kernel.tracer,
        source=BlobReader(disk.blobs),
        settings=told,
        log_source=RedactedLog(
            home.logs / LOG, Redactor(known_secrets(home.path)), lambda: kernel.draining
        ),
    )


def _setup_logs(settings: Settings, home: Home) -> LogFile:
    return setup_logs(home.logs, settings.telemetry.log_level, settings.telemetry.log_format)


def _open_request_lines(
    settings: Settings, file: LogFile, metrics: Metrics, stack: AsyncExitStack
) -> RequestLines | None:
    config = settings.telemetry
    if not config.log_requests or config.log_level not in {"debug", "info"}:
        return None
    lines = RequestLines(file, metrics.lines_dropped.inc)
    stack.push_async_callback(asyncio.to_thread, lines.close)
    return lines


def _open_tracer(
    settings: Settings, home: Home, metrics: Metrics, stack: AsyncExitStack
) -> Tracer | None:
    """Raises ConfigError."""
    opened = open_tracer(settings.telemetry, home.logs, __version__, metrics.spans_dropped.inc)
    if opened is None:
        return None
    tracer, exporter = opened
    stack.push_async_callback(asyncio.to_thread, exporter.close)
    return tracer


def _prover(database: Database, jobs: SqlJobStore) -> Callable[[], Awaitable[None]]:
    """Proves by writing that every database takes writes."""

    async def prove() -> None:
        await database.probe()
        if jobs.database.shared:
            await jobs.probe()

    return prove


def _open_node(home: Home) -> LocalNode:
    node = LocalNode(worker_env(), home.run)
    node.reap()
    return node


async def _open_memory(
    settings: Settings, home: Home, database: Database, node: LocalNode, stack: AsyncExitStack
) -> tuple[Snapshots, SqlFootprintLog]:
    """What suspended requests lie in, and what models were seen to take."""
    config = settings.storage
    footprints = await open_footprints(database, config)
    stack.push_async_callback(footprints.close)
    snapshots = Snapshots(home, config, lambda: node.measure().available_bytes)
    stack.callback(snapshots.close)
    return snapshots, footprints


def _calm_collector() -> None:
    """What is loaded now never becomes garbage: a collection need not walk it on each request."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


@dataclass(frozen=True, slots=True)
class Disk:
    """All that works on the home's bytes, and the jobs and files, wherever they are recorded."""

    blobs: Blobs
    jobs: SqlJobStore
    requests: SqlRequestLog
    uploads: Uploads
    files: Files
    keeper: HomeKeeper


async def _open_disk(settings: Settings, home: Home, database: Database, metrics: Metrics) -> Disk:
    config = settings.storage
    blobs = Blobs(home, config)
    jobs = await open_job_store(home, database, blobs, config)
    uploads = Uploads(home, blobs, config)
    files = Files(home, jobs.database, blobs, uploads, config)
    keeper = HomeKeeper(
        home, database, jobs.database, blobs, uploads, metrics=metrics, config=config
    )
    requests = SqlRequestLog(jobs.database, config, metrics.requests_unrecorded.inc)
    return Disk(blobs, jobs, requests, uploads, files, keeper)


async def _open_registry(
    settings: Settings, home: Home, database: Database, disk: Disk, stack: AsyncExitStack
) -> ModelRegistry:
    registry = ModelRegistry(
        home,
        database,
        disk.blobs,
        disk.uploads,
        choose_driver=functools.partial(choose, device=settings.kernel.device),
        collect=disk.keeper.collect,
        config=settings.registry,
    )
    await registry.open()
    stack.push_async_callback(registry.close)
    for builtin in BUILTINS:
        await registry.register_builtin(builtin)
    return registry


def _start_tracking(settings: Settings, home: Home, disk: Disk, stack: AsyncExitStack) -> None:
    """Raises PluginError for a sink whose extra is missing."""
    if not settings.tracking.sinks:
        return
    folder = home.path / "tracking"
    sinks: dict[str, Sink] = {
        name: open_sink(name, folder / name) for name in settings.tracking.sinks
    }
    tracker = Tracker(disk.jobs, folder, sinks, settings.tracking)
    stack.push_async_callback(_end, asyncio.create_task(tracker.run(), name="tracking"))


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel what runs for as long as the server does, and wait for its end."""
    task.cancel()
    await asyncio.wait([task])


def program_named(name: str) -> ProgramEntry:
    """A program of the group `llmos.programs`, built in or not. Raises PluginError."""
    entry = entry_points.load(entry_points.PROGRAMS, name)
    if not isinstance(entry, ProgramEntry):
        raise PluginError(f"{entry_points.PROGRAMS}: {name} names no ProgramEntry")
    return entry


def installed_programs() -> list[ProgramEntry]:
    """Those that can be loaded."""
    found = []
    for name in entry_points.names(entry_points.PROGRAMS):
        try:
            found.append(program_named(name))
        except PluginError as error:
            log.warning("%s", error)
    return found


def policy_named(name: str) -> MakePolicy:
    """What `kernel.policy` chooses. Raises ConfigError."""
    try:
        make: MakePolicy = entry_points.load(entry_points.POLICIES, name)
    except PluginError as error:
        raise ConfigError(f"kernel.policy: {error.message}") from error
    return make


def driver_entry(name: str) -> DriverEntry:
    """How the kernel starts a driver. Raises ConfigError for one that does not exist."""
    spec = DRIVERS.get(name)
    if spec is None:
        raise ConfigError(f"no driver is called {name!r}; there are {', '.join(sorted(DRIVERS))}")
    return DriverEntry(
        name,
        spec.entry,
        spec.python,
        spec.base_bytes,
        snapshots=spec.snapshots,
        parks=spec.parks,
        drafts=spec.drafts,
        engine=_engine_of(name),
        features=spec.features,
        least_slots=spec.least_slots,
        load_s=spec.load_s,
    )


def _engine_of(driver: str) -> str:
    """What it runs on; of an environment of its own, which one that is."""
    spec = DRIVERS[driver]
    return _versions(tuple(spec.distributions), spec.python)


@functools.cache
def _versions(distributions: tuple[str, ...], python: str) -> str:
    found = [find_version(names, python) for names in distributions]
    return ", ".join(filter(None, [f"llmos {__version__}", *found, python]))


def _announcer(home: Home) -> Callable[[str], None]:
    def announce(url: str) -> None:
        about = {
            "url": url,
            "pid": os.getpid(),
            "started_ns": time.time_ns(),
            "version": __version__,
        }
        file = home.path / "server.json"
        fresh = file.with_suffix(".new")
        fresh.touch(mode=0o600)
        fresh.write_bytes(msgspec.json.encode(about))
        fresh.replace(file)
        sys.stdout.write(_welcome(url, home))
        sys.stdout.flush()

    return announce


def _welcome(url: str, home: Home) -> str:
    body = '{"model": "pilot", "messages": [{"role": "user", "content": "What is LLMOS?"}]}'
    return (
        f"\nLLMOS {__version__} answers on {url}\n"
        f"Token: {home.token}\n"
        f"Console: {url}/login#key={home.token}\n"
        f"Try:\n\n"
        f"  curl {url}/v1/chat/completions \\\n"
        f"    -H 'Authorization: Bearer {home.token}' \\\n"
        f"    -H 'Content-Type: application/json' \\\n"
        f"    -d '{body}'\n\n"
    )
