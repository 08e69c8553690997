from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from llmos.errors import ModelRejected
from llmos.registry.config import RegistryConfig
from llmos.registry.registry import ModelRegistry
from llmos.storage.blobs import Blobs
from llmos.storage.config import StorageConfig
from llmos.storage.database import Database, open_database
from llmos.storage.home import Home, open_home
from llmos.storage.housekeeping import HomeKeeper
from llmos.storage.uploads import Uploads
from llmos.telemetry.metrics import Metrics
from llmos.weights import ModelFacts
from tests.unit.registry.hub_server import Hub, serve


@dataclass(frozen=True)
class Choice:
    driver: str = "native"
    prepare: str = "somewhere:make"
    reason: str = "a test"
    kinds: list[str] = field(default_factory=lambda: ["generate"])


def choose(facts: ModelFacts, driver: str | None = None) -> Choice:
    if facts.format == "openai":
        return Choice("openai")
    if facts.architecture not in {"LlamaForCausalLM", "llama"}:
        raise ModelRejected(f"no driver serves {facts.architecture}")
    return Choice()


@dataclass
class World:
    """An open registry and everything under it."""

    registry: ModelRegistry
    home: Home
    database: Database
    blobs: Blobs
    uploads: Uploads

    def trace(self) -> dict[str, list[str]]:
        """What is left of a pull, if anything is."""
        parts = (self.home.scratch, self.home.uploads, self.home.models)
        left = {folder.name: sorted(p.name for p in folder.iterdir()) for folder in parts}
        left["blobs"] = [p.name for p in self.home.blobs.rglob("*") if p.is_file()]
        return {name: found for name, found in left.items() if found}


MakeWorld = Callable[..., AbstractAsyncContextManager[World]]


@pytest.fixture
def world(tmp_path: Path, migrated: Path, monkeypatch: pytest.MonkeyPatch) -> MakeWorld:
    """`async with world(...) as w`: config fields as keywords. Opens the same home again."""

    monkeypatch.setattr(os, "fsync", lambda _: None)  # no test here cuts the power

    @asynccontextmanager
    async def make(min_free_bytes: int = 0, **config: Any) -> AsyncIterator[World]:
        storage = StorageConfig(min_free_bytes=min_free_bytes)
        home = open_home(tmp_path / "home")
        if not any(home.db.iterdir()):
            shutil.copy(migrated, home.db)
        database = open_database(home.db, storage)
        blobs = Blobs(home, storage)
        uploads = Uploads(home, blobs, storage)
        keeper = HomeKeeper(
            home, database, database, blobs, uploads, metrics=Metrics(), config=storage
        )
        registry = ModelRegistry(
            home,
            database,
            blobs,
            uploads,
            choose_driver=choose,
            collect=keeper.collect,
            config=RegistryConfig(**config),
        )
        await registry.open()
        await keeper.collect()
        try:
            yield World(registry, home, database, blobs, uploads)
        finally:
            await registry.close()
            database.close()
            home.close()

    return make


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A local stand-in. Drivers forbid the client all network where they are imported, which in
    the server is never the process that pulls, but in a run of all tests is this one."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with serve() as hub:
        yield hub


@pytest.fixture(autouse=True)
def _patient_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's client sleeps a second before it resumes a download; nobody needs to wait here."""

    class Time:
        sleep = staticmethod(lambda _: None)

    monkeypatch.setattr("huggingface_hub.file_download.time", Time)
