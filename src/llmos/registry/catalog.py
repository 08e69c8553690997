"""Versions as rows, and as an index in memory that the gate reads on every request."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update
from sqlalchemy.dialects.sqlite import insert as upsert

from llmos.abi.blob import BlobRef
from llmos.abi.registry import ModelVersion
from llmos.errors import ModelNotFound
from llmos.registry.names import LATEST, near_matches
from llmos.storage.tables import DEFAULT_TENANT, blobs, model_aliases, model_files, models

Aliases = dict[tuple[str, str], str]
"""Of (name, alias): the model's id."""


class Index:
    """All live versions by reference. Not thread-safe: the loop's own."""

    def __init__(self) -> None:
        self._versions: dict[str, list[ModelVersion]] = {}
        self._by_ref: dict[str, ModelVersion] = {}
        self._aliases: Aliases = {}

    def replace(self, versions: list[ModelVersion], aliases: Aliases | None = None) -> None:
        """Everything there is, in any order; `aliases` None: as they were."""
        self._aliases = dict(self._aliases if aliases is None else aliases)
        self._versions = {}
        for version in sorted(versions, key=lambda v: (v.name, int(v.version))):
            self._versions.setdefault(version.name, []).append(version)
        self._by_ref = {}
        for name, of_name in self._versions.items():
            of_name[:] = [self._named(version, version is of_name[-1]) for version in of_name]
            self._by_ref |= {version.ref: version for version in of_name}
            self._by_ref |= {f"{name}:{alias}": v for v in of_name for alias in v.aliases}
            self._by_ref[name] = of_name[-1]

    def _named(self, version: ModelVersion, is_newest: bool) -> ModelVersion:
        given = sorted(
            alias
            for (name, alias), model_id in self._aliases.items()
            if name == version.name and model_id == version.model_id
        )
        return msgspec.structs.replace(version, aliases=[LATEST, *given] if is_newest else given)

    def set_alias(self, name: str, alias: str, model_id: str | None) -> None:
        """None: it is nothing any more."""
        aliases = {key: held for key, held in self._aliases.items() if key != (name, alias)}
        if model_id is not None:
            aliases[name, alias] = model_id
        self.replace(_without_aliases(self.all()), aliases)

    def find_alias(self, ref: str) -> tuple[str, str] | None:
        """Name and alias, where the reference is one that was given."""
        name, _, alias = ref.lower().partition(":")
        return (name, alias) if (name, alias) in self._aliases else None

    def add(self, version: ModelVersion) -> ModelVersion:
        """The version as it now stands, aliases included."""
        self.replace([*_without_aliases(self.all()), version])
        return self._by_ref[version.ref]

    def remove(self, model_id: str) -> None:
        """A version that has no alias of its own."""
        self.replace([v for v in _without_aliases(self.all()) if v.model_id != model_id])

    def all(self) -> list[ModelVersion]:
        return [version for of_name in self._versions.values() for version in of_name]

    def resolve(self, ref: str) -> ModelVersion:
        """Raises ModelNotFound naming near matches."""
        found = self._by_ref.get(ref) or self._by_ref.get(ref.lower())
        if found is not None:
            return found
        name, _, version = ref.lower().partition(":")
        if name in self._versions and version:
            near = [v.ref for v in reversed(self._versions[name])][:3]
            message = f"model {name!r} has no version {version[:80]!r}"
        else:
            near = near_matches(ref, self._versions)
            message = f"no model {ref[:200]!r}"
        if near:
            message += f"; did you mean {' or '.join(repr(n) for n in near)}?"
        raise ModelNotFound(message, param="model", details={"near": near})

    def find_contents(self, name: str, digest: str) -> ModelVersion | None:
        """The live version of this name with these contents."""
        return next((v for v in self._versions.get(name, []) if v.digest == digest), None)


def _without_aliases(versions: list[ModelVersion]) -> list[ModelVersion]:
    return [msgspec.structs.replace(version, aliases=[]) for version in versions]


def load_versions(connection: Connection, models_folder: Path) -> list[ModelVersion]:
    """All live versions. Folders are not stored: a home may have been moved."""
    rows = connection.execute(select(models.c.record).where(models.c.removed_ns.is_(None)))
    return [
        msgspec.convert(record | {"folder": str(models_folder / record["model_id"])}, ModelVersion)
        for (record,) in rows
    ]


def load_aliases(connection: Connection) -> Aliases:
    """Those that were given; `latest` is none of them."""
    table = model_aliases
    rows = connection.execute(select(table.c.name, table.c.alias, table.c.model_id))
    return {(name, alias): model_id for name, alias, model_id in rows}


def store_alias(
    connection: Connection,
    version: ModelVersion,
    alias: str,
    *,
    reason: str,
    set_by: str,
    epoch: int,
) -> None:
    """In place of what it was."""
    said = {
        "model_id": version.model_id,
        "reason": reason,
        "set_by": set_by,
        "set_ns": time.time_ns(),
        "epoch": epoch,
    }
    connection.execute(
        upsert(model_aliases)
        .values(name=version.name, alias=alias, **said)
        .on_conflict_do_update(index_elements=["name", "alias"], set_=said)
    )


def forget_alias(connection: Connection, name: str, alias: str) -> None:
    """Once and for all."""
    table = model_aliases
    connection.execute(delete(table).where(table.c.name == name, table.c.alias == alias))


def load_files(connection: Connection) -> dict[str, dict[str, str]]:
    """Of each live version: file name to digest."""
    found: dict[str, dict[str, str]] = {}
    for model_id, name, digest in connection.execute(
        select(model_files.c.model_id, model_files.c.name, model_files.c.digest)
    ):
        found.setdefault(model_id, {})[name] = digest
    return found


def next_version(connection: Connection, name: str) -> int:
    """One more than any version of this name ever had, removed ones included."""
    highest = connection.execute(
        select(func.max(models.c.version)).where(models.c.name == name)
    ).scalar()
    return int(highest or 0) + 1


def store_version(
    connection: Connection, version: ModelVersion, files: dict[str, BlobRef], epoch: int
) -> None:
    """Write a version, its files and their blobs."""
    record: dict[str, Any] = msgspec.to_builtins(version)
    del record["folder"], record["aliases"], record["loaded_as"]
    connection.execute(
        insert(models).values(
            model_id=version.model_id,
            tenant_id=DEFAULT_TENANT,
            name=version.name,
            version=int(version.version),
            digest=version.digest,
            record=record,
            created_ns=version.created_ns,
            epoch=epoch,
        )
    )
    for name, blob in files.items():
        connection.execute(
            upsert(blobs)
            .values(
                digest=blob.digest,
                size_bytes=blob.size_bytes,
                created_ns=version.created_ns,
                epoch=epoch,
            )
            .on_conflict_do_nothing()
        )
        connection.execute(
            insert(model_files).values(model_id=version.model_id, name=name, digest=blob.digest)
        )


def forget_version(connection: Connection, model_id: str) -> None:
    """Mark a version removed, and forget its files."""
    connection.execute(
        update(models).where(models.c.model_id == model_id).values(removed_ns=time.time_ns())
    )
    connection.execute(delete(model_files).where(model_files.c.model_id == model_id))
