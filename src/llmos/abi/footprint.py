"""The FootprintLog seam: what resident models were measured to take, across restarts."""

from __future__ import annotations

from typing import Protocol

import msgspec


class FootprintKey(msgspec.Struct, frozen=True):
    """What a measurement holds for: another value of any of these takes another amount.

    `device` is `cpu` or `cuda:0`; `engine` names the engine and its version.
    """

    model_id: str
    dtype: str
    device: str
    context_length: int
    num_slots: int
    driver: str
    engine: str


class Footprint(msgspec.Struct, frozen=True):
    """What one model takes, as its last `num_loads` loads showed.

    `bound_bytes` is what must be reserved before it is loaded and `peak_bytes` the most it was seen
    to take of the host; `device_bytes` of its device. What it takes parked, and how long it takes
    back from there, is None until that was seen. `measured_ns` is UTC.
    """

    key: FootprintKey
    bound_bytes: int
    peak_bytes: int
    load_s: float
    measured_ns: int
    device_bytes: int = 0
    parked_bytes: int | None = None
    unpark_s: float | None = None
    num_loads: int = 1


class FootprintLog(Protocol):
    """Write-behind: what was learned is on disk a moment later, or lost if the server dies before.
    Only so many are kept, the newest."""

    def all(self) -> list[Footprint]:
        """One for each key, from memory: what an earlier server learned too."""
        ...

    def learn(self, footprint: Footprint) -> None:
        """Put it in the place of the one with its key. Never blocks, never raises: one that cannot
        be kept is logged."""
        ...
