"""The SnapshotStore seam: requests off their workers, on two tiers, and across a restart."""

from __future__ import annotations

import enum
from typing import Protocol

import msgspec

from llmos.abi.blob import SnapshotRef
from llmos.abi.events import Tokens
from llmos.abi.inference import Prepared
from llmos.abi.principal import Principal, ServiceClass
from llmos.abi.syscall import Infer


class Tier(enum.StrEnum):
    """Where a snapshot lies: in the host's memory, which the ledger counts, or on the disk."""

    MEMORY = "memory"
    DISK = "disk"


class SuspendedRequest(msgspec.Struct, frozen=True):
    """All that another server of the same home needs to go on with a request.

    `snapshot` None: it never ran, or is to be recomputed from `generated` (int32, little-endian);
    `resubmitted` are those of them that its item in the snapshot has. `events` are those its reader
    may still ask for, the newest with number `num_events`. Times are UTC in ns.
    """

    request_id: str
    principal: Principal
    model_id: str
    model: str
    body: Infer
    prepared: Prepared
    service_class: ServiceClass
    nice: int
    created_ns: int
    suspended_ns: int
    is_held: bool
    generated: bytes
    events: list[Tokens]
    num_events: int
    snapshot: SnapshotRef | None = None
    started_ns: int | None = None
    num_preemptions: int = 0
    num_suspensions: int = 0
    num_recomputed: int = 0
    trace_parent: str | None = None
    resubmitted: bytes = b""


class SnapshotStore(Protocol):
    """Files of suspended requests. A file belongs to the kernel until it is discarded here."""

    def folder(self, tier: Tier) -> str:
        """Where workers write to; empty: this machine has no such tier."""
        ...

    def free_bytes(self, tier: Tier) -> int:
        """What may still be written there; on the disk what is above its floor. Never blocks for
        long; 0 when it cannot be told."""
        ...

    async def spill(self, ref: SnapshotRef) -> SnapshotRef:
        """A copy on the disk; the file it was made of stays. Of one on the disk, itself.

        Raises DiskFull, StorageError, SnapshotRejected (its bytes are not what they were).
        """
        ...

    def discard(self, ref: SnapshotRef) -> None:
        """Delete the file. One that is gone, or lies elsewhere, is left alone. Never blocks long,
        never raises."""
        ...

    async def keep(self, request: SuspendedRequest) -> None:
        """Make the record durable, with its snapshot spilled before. Replaces an older one of the
        same request. Raises DiskFull, StorageError; then the older one stands."""
        ...

    async def forget(self, request_id: str) -> None:
        """Delete the record, not the snapshot. Idempotent. Never raises."""
        ...

    async def recover(self) -> list[SuspendedRequest]:
        """Once, at the start: what an earlier server kept. Files that belong to none are deleted;
        a damaged record is dropped and logged, with its snapshot. Never raises."""
        ...
