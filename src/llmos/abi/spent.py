"""What work has used of the machine."""

from __future__ import annotations

import msgspec


class Spent(msgspec.Struct, frozen=True):
    """Of a request or a job, once it has ended.

    `cpu_s`: processor seconds of its worker, each step's shared evenly by the requests in it.
    `engine_s`: its share of the time of its engine's steps. `memory_bytes`: KV of a request at its
    end, resident memory of a job's worker at its height. `joules` None: nobody can tell; `basis`
    says what it was made from: counters of the machine, or an estimate, and then by what.
    """

    cpu_s: float = 0.0
    engine_s: float = 0.0
    memory_bytes: int = 0
    joules: float | None = None
    basis: str = ""


class NodeEnergy(msgspec.Struct, frozen=True):
    """Counters of a machine that only grow: since when is their own affair.

    `cpu_joules` None: no counter can be read. `busy_s`: seconds that its cores were busy, all
    together. `device_joules` by device, of those that tell.
    """

    cpu_joules: float | None
    busy_s: float
    device_joules: dict[str, float] = {}
