"""The Registry: pull, resolve, list, remove."""

from __future__ import annotations

import asyncio
import builtins
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from llmos.abi.blob import BlobRef
from llmos.abi.ids import new_id
from llmos.abi.registry import ModelVersion, PullOptions, PullProgress
from llmos.errors import Conflict, InvalidRequest, LLMOSError, ModelRejected
from llmos.registry import catalog
from llmos.registry.adapters import Bases, adapters_of
from llmos.registry.choice import ChooseDriver
from llmos.registry.config import RegistryConfig
from llmos.registry.flights import Flights, Watch
from llmos.registry.intake import Intake, Intaker, Wishes
from llmos.registry.names import (
    LATEST,
    FolderSource,
    HubSource,
    RemoteSource,
    Source,
    UploadSource,
    normalise_alias,
    normalise_name,
    parse_source,
)
from llmos.registry.partials import drop_old
from llmos.registry.progress import Meter, run_stoppable
from llmos.storage.blobs import Blobs, Hold
from llmos.storage.database import Database
from llmos.storage.home import Home
from llmos.storage.uploads import Uploads
from llmos.weights.digest import names_digest

log = logging.getLogger("llmos.registry")
BUILTIN = "builtin:"
MAX_REASON_CHARS = 4096
BARE_FOOTPRINT_BYTES = 96 << 20
"""Upper bound of a replica without weights: an interpreter and a driver."""


class Builtin(msgspec.Struct, frozen=True):
    """A model that ships with the package.

    With a `folder` it is checked and given a driver like any other; without one (a driver that
    needs no files) `driver`, `prepare` and the two sizes say what it is.
    """

    name: str
    folder: Path | None = None
    driver: str = ""
    prepare: str = ""
    vocab_size: int = 0
    context_length: int = 0
    license: str = "apache-2.0"


def _parse(source: str, options: PullOptions) -> Source:
    """Raises InvalidRequest."""
    if options.remote is None:
        return parse_source(source)
    if not source.startswith("openai:"):
        raise InvalidRequest("only an openai: source is remote", param="remote")
    return RemoteSource(options.remote)


BITS_OF = {"int8": 8, "int4": 4}
"""What weights may be quantized to."""


def _refuse_to_quantize(version: ModelVersion, to: str) -> None:
    """What is known before its files are read. Raises Conflict, ModelRejected."""
    if version.adapter is not None:
        raise Conflict(
            f"{version.ref} is an adapter of {version.adapter.base}: `llmos load --dtype {to}` "
            "has its weights so in memory"
        )
    if version.dtype in BITS_OF:
        raise Conflict(f"{version.ref} is quantized already ({version.dtype})")
    if version.format != "safetensors":
        raise ModelRejected(f"{version.ref} has no weights in safetensors files")
    if version.loads and to not in version.loads:
        raise ModelRejected(f"{version.ref}: {version.architecture} is not quantized to {to}")


class ModelRegistry:
    """Implements `abi.Registry`. One per home, on one loop. Make it with `open`."""

    def __init__(
        self,
        home: Home,
        database: Database,
        blobs: Blobs,
        uploads: Uploads,
        *,
        choose_driver: ChooseDriver,
        collect: Callable[[], Awaitable[object]],
        config: RegistryConfig | None = None,
    ) -> None:
        """`collect` deletes blobs that nothing refers to any more, models' and others'."""
        self._home = home
        self._database = database
        self._blobs = blobs
        self._uploads = uploads
        self._collect = collect
        self._config = config or RegistryConfig()
        self._intaker = Intaker(home, blobs, self._config, choose_driver)
        self._index = catalog.Index()
        self._bases = Bases(database, blobs, self._index)
        self._flights = Flights(self._config.max_concurrent_pulls, self._config.max_waiting_pulls)
        self._changing = asyncio.Lock()
        """Held while rows, folders and the index change together."""

    async def open(self) -> None:
        """Read the index, and put right what a killed run left. Call once, before anything."""
        versions, files, aliases = await self._database.read(self._load)
        kept = await asyncio.to_thread(self._reconcile, versions, files)
        await asyncio.to_thread(drop_old, self._home.pulls, self._config.keep_partial_s)
        self._index.replace(kept, aliases)

    async def close(self) -> None:
        """Cancel pulls under way; they leave nothing but what the next pull goes on from."""
        await self._flights.close()

    def resolve(self, ref: str) -> ModelVersion:
        """See `abi.Registry`."""
        return self._index.resolve(ref)

    def list(self) -> list[ModelVersion]:
        """All versions, by name and then age."""
        return self._index.all()

    async def pull(
        self,
        source: str,
        name: str | None,
        progress: Callable[[PullProgress], None],
        options: PullOptions = PullOptions(),  # noqa: B008  frozen
    ) -> ModelVersion:
        """See `abi.Registry`. Cancel to give up; an upload is consumed whatever comes of it."""
        parsed = _parse(source, options)
        if name is None and isinstance(parsed, UploadSource):
            raise InvalidRequest("an upload has no name of its own: give one", param="name")
        wanted = normalise_name(name if name is not None else parsed.default_name)

        async def run(tell: Watch) -> ModelVersion:
            written = parsed.written if isinstance(parsed, RemoteSource) else source
            return await self._pull(parsed, written, wanted, tell, options)

        return await self._flights.join((source, wanted, repr(options)), progress, run)

    async def quantize(
        self, ref: str, to: str, name: str | None, progress: Callable[[PullProgress], None]
    ) -> ModelVersion:
        """See `abi.Registry`. Cancel to give up."""
        if to not in BITS_OF:
            raise InvalidRequest(f"{to[:40]!r}: weights are quantized to int8 or int4", param="to")
        version = self._index.resolve(ref)
        wanted = normalise_name(name if name is not None else f"{version.name}-{to}")
        _refuse_to_quantize(version, to)

        async def run(tell: Watch) -> ModelVersion:
            folder, source = Path(version.folder), f"quantized:{version.ref}"

            def work(hold: Hold, meter: Meter) -> Intake:
                return self._intaker.take_quantized(folder, BITS_OF[to], hold, meter)

            return await self._take(work, source, wanted, tell)

        return await self._flights.join((version.model_id, to, wanted), progress, run)

    async def register(self, folder: Path, name: str, source: str) -> ModelVersion:
        """See `abi.Registry`."""
        wanted = normalise_name(name)
        made = FolderSource(str(folder))
        return await self._pull(made, source, wanted, lambda _: None)

    async def register_builtin(self, builtin: Builtin) -> ModelVersion:
        """Idempotent; new contents are a new version. Raises ModelRejected, StorageError."""
        name = normalise_name(builtin.name)
        if builtin.folder is None:
            return await self._register_without_files(name, builtin)
        digest = await asyncio.to_thread(self._intaker.digest, builtin.folder)
        existing = self._index.find_contents(name, digest)
        if existing is not None:
            return existing
        source = FolderSource(str(builtin.folder))
        return await self._pull(source, f"{BUILTIN}{name}", name, lambda _: None)

    async def set_alias(self, ref: str, alias: str, reason: str, set_by: str) -> ModelVersion:
        """See `abi.Registry`."""
        wanted = normalise_alias(alias)
        if len(reason) > MAX_REASON_CHARS:
            text = f"a reason has at most {MAX_REASON_CHARS} characters"
            raise InvalidRequest(text, param="reason")
        async with self._changing:
            version = self._index.resolve(ref)
            await self._database.write(
                lambda connection: catalog.store_alias(
                    connection,
                    version,
                    wanted,
                    reason=reason,
                    set_by=set_by,
                    epoch=self._database.epoch,
                )
            )
            self._index.set_alias(version.name, wanted, version.model_id)
            return self._index.resolve(version.ref)

    async def drop_alias(self, ref: str) -> ModelVersion:
        """See `abi.Registry`."""
        async with self._changing:
            version = self._index.resolve(ref)
            found = self._index.find_alias(ref)
            if found is None:
                text = f"{ref[:200]!r} is no alias that was given: NAME:ALIAS"
                raise InvalidRequest(text, param="ref")
            name, alias = found
            await self._database.write(
                lambda connection: catalog.forget_alias(connection, name, alias)
            )
            self._index.set_alias(name, alias, None)
            return self._index.resolve(version.ref)

    async def remove(self, ref: str) -> ModelVersion:
        """See `abi.Registry`. A builtin's newest version stays: Conflict."""
        async with self._changing:
            version = self._index.resolve(ref)
            given = [alias for alias in version.aliases if alias != LATEST]
            if given:
                names = " and ".join(f"{version.name}:{alias}" for alias in given)
                raise Conflict(f"{version.ref} is {names}: give that to another version first")
            if version.source.startswith(BUILTIN) and version.aliases:
                raise Conflict(
                    f"{version.ref} ships with this release and would be back at the next start"
                )
            if adapted := adapters_of(version, self._index.all()):
                raise Conflict(f"{version.ref} is the base of {', '.join(adapted[:8])}")
            await self._database.write(
                lambda connection: catalog.forget_version(connection, version.model_id)
            )
            self._index.remove(version.model_id)
            await asyncio.to_thread(self._blobs.unlink, version.model_id)
        await self._collect_quietly()
        return version

    async def _pull(
        self,
        source: Source,
        written: str,
        name: str,
        tell: Callable[[PullProgress], None],
        options: PullOptions = PullOptions(),  # noqa: B008  frozen
    ) -> ModelVersion:
        work = self._work(source, options)
        return await self._take(work, written, name, tell)

    async def _take(
        self,
        work: Callable[[Hold, Meter], Intake],
        written: str,
        name: str,
        tell: Callable[[PullProgress], None],
    ) -> ModelVersion:
        """Do the work in a thread, and register what comes of it."""
        meter = Meter(tell)
        version: ModelVersion | None = None
        try:
            with self._blobs.hold() as hold:
                intake = await run_stoppable(
                    lambda: work(hold, meter), meter, self._config.stall_timeout_s
                )
                version = await self._register(intake, written, name, tell)
            return version
        finally:
            if version is None:
                await self._collect_quietly()

    def _work(self, source: Source, options: PullOptions) -> Callable[[Hold, Meter], Intake]:
        intaker = self._intaker
        if isinstance(source, RemoteSource):
            return functools.partial(intaker.take_remote, source.spec, driver=options.driver)
        wishes = Wishes(self._bases.finder(), options.driver, options.base)
        if isinstance(source, HubSource):
            return functools.partial(intaker.take_hub, source, wishes=wishes)
        if isinstance(source, FolderSource):
            return functools.partial(intaker.take_folder, source, wishes=wishes)
        folder = self._uploads.take(source.upload_id)
        return functools.partial(intaker.take_upload, folder, wishes=wishes)

    async def _register(
        self, intake: Intake, source: str, name: str, tell: Callable[[PullProgress], None]
    ) -> ModelVersion:
        tell(PullProgress("register", "", intake.size_bytes, intake.size_bytes))
        facts, choice = intake.facts, intake.choice
        version = ModelVersion(
            model_id=new_id("mdl"),
            name=name,
            version="0",
            driver=choice.driver,
            format=facts.format,
            folder="",
            digest=intake.digest,
            size_bytes=intake.size_bytes,
            context_length=facts.context_length,
            vocab_size=facts.vocab_size,
            prepare=choice.prepare,
            source=source,
            created_ns=time.time_ns(),
            architecture=facts.architecture,
            dtype=facts.stored_dtype,
            num_parameters=facts.num_parameters,
            kv_bytes_per_token=facts.kv_bytes_per_token,
            footprint_bytes=facts.footprint_bytes,
            has_chat_template=facts.has_chat_template,
            license=facts.license,
            loads=facts.loads,
            chosen=choice.reason,
            egress=intake.remote.hosts if intake.remote else [],
            secrets=intake.remote.keys if intake.remote else [],
            kinds=choice.kinds,
            adapter=intake.adapter,
        )
        return await self._publish(version, intake.files)

    async def _register_without_files(self, name: str, builtin: Builtin) -> ModelVersion:
        what = (builtin.driver, builtin.prepare, builtin.vocab_size, builtin.context_length)
        version = ModelVersion(
            model_id=new_id("mdl"),
            name=name,
            version="0",
            driver=builtin.driver,
            format="none",
            folder="",
            digest=names_digest([(repr(what), "")]),
            size_bytes=0,
            context_length=builtin.context_length,
            vocab_size=builtin.vocab_size,
            prepare=builtin.prepare,
            source=f"{BUILTIN}{name}",
            created_ns=time.time_ns(),
            footprint_bytes=BARE_FOOTPRINT_BYTES,
            license=builtin.license,
        )
        return await self._publish(version, {})

    async def _publish(self, draft: ModelVersion, files: dict[str, BlobRef]) -> ModelVersion:
        """Give it a number, a folder, rows and a place in the index; or find it there already.

        Once begun it is finished, whoever cancels: rows, folder and index never disagree.
        """
        work = asyncio.create_task(self._publish_whole(draft, files))
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            await asyncio.wait([work])
            raise

    async def _publish_whole(self, draft: ModelVersion, files: dict[str, BlobRef]) -> ModelVersion:
        digests = {name: blob.digest for name, blob in files.items()}
        async with self._changing:
            existing = self._index.find_contents(draft.name, draft.digest)
            if existing is not None:
                return existing
            if draft.adapter is not None:
                self._index.resolve(draft.adapter.base)  # it may have been removed meanwhile
            folder = await asyncio.to_thread(self._blobs.link, draft.model_id, digests)

            def store(connection: Connection) -> ModelVersion:
                number = catalog.next_version(connection, draft.name)
                version = msgspec.structs.replace(draft, version=str(number), folder=str(folder))
                catalog.store_version(connection, version, files, self._database.epoch)
                return version

            try:
                return self._index.add(await self._database.write(store))
            except LLMOSError:
                await asyncio.to_thread(self._blobs.unlink, draft.model_id)
                raise

    def _load(
        self, connection: Connection
    ) -> tuple[builtins.list[ModelVersion], dict[str, dict[str, str]], catalog.Aliases]:
        versions = catalog.load_versions(connection, self._home.models)
        return versions, catalog.load_files(connection), catalog.load_aliases(connection)

    def _reconcile(
        self, versions: builtins.list[ModelVersion], files: dict[str, dict[str, str]]
    ) -> builtins.list[ModelVersion]:
        """Folders without a row go; a row's missing folder is made again from blobs, if it can."""
        live = {version.model_id for version in versions}
        for folder in (*self._home.models.iterdir(), *self._home.cache.iterdir()):
            if folder.name not in live:
                self._blobs.unlink(folder.name)
        kept = []
        for version in versions:
            wanted = files.get(version.model_id, {})
            folder = self._home.models / version.model_id
            if not all((folder / name).is_file() for name in wanted) or not folder.is_dir():
                if not all(self._blobs.path(digest).is_file() for digest in wanted.values()):
                    log.error("%s is hidden: its files are gone from the store", version.ref)
                    continue
                self._blobs.link(version.model_id, wanted)
            kept.append(version)
        return kept

    async def _collect_quietly(self) -> None:
        """After a removal or a failed pull: a second failure must not hide what came of those."""
        try:
            await self._collect()
        except LLMOSError as error:
            log.warning("blobs that nobody needs stay until the next sweep: %s", error)
