"""The answer to `ShowMemory`: what is reserved of every device, by whom, and who lacks room."""

from __future__ import annotations

import msgspec


class Holding(msgspec.Struct, frozen=True):
    """One line of a ledger. `kind`: replica, kv (of a paused request), snapshot, job, spare.

    `what` it is for, in words: a model, a program. `measured_bytes` None: not measured.
    """

    owner: str
    kind: str
    what: str
    reserved_bytes: int
    measured_bytes: int | None = None
    state: str = ""


class DeviceMemory(msgspec.Struct, frozen=True):
    """The ledger of one device. `available_bytes` is measured; None: the probe gave no answer."""

    device: str
    total_bytes: int
    budget_bytes: int
    reserved_bytes: int
    available_bytes: int | None
    holdings: list[Holding]


class LackOfRoom(msgspec.Struct, frozen=True):
    """A model that waits for memory: how much, since when, and for what."""

    model: str
    need_bytes: int
    waited_s: float
    reason: str


class MemoryInfo(msgspec.Struct, frozen=True, tag="r.memory"):
    """Every ledger, who waits for room, and the snapshots on the disk."""

    devices: list[DeviceMemory]
    lacking: list[LackOfRoom] = []
    num_snapshots: int = 0
    disk_snapshot_bytes: int = 0
    disk_free_bytes: int = 0
