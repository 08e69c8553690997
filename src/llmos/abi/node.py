"""The NodeAgent seam: starts and reaches workers on a node."""

from __future__ import annotations

from typing import Protocol

import msgspec

from llmos.abi.channel import Channel
from llmos.abi.spent import NodeEnergy


class WorkerSpec(msgspec.Struct, frozen=True):
    """What to start. `python` is the interpreter, part of the driver's spec; empty: our own.

    `env` is the whole environment of the process. `scratch` is its working folder and where its
    stderr goes (`stderr.log`, bounded).
    """

    worker_id: str
    scratch: str
    python: str = ""
    env: dict[str, str] = {}


class NodeMemory(msgspec.Struct, frozen=True):
    """The node's memory, within the container's own limit where there is one.

    `total_bytes` 0 and the others None: there is no answer. `available_bytes` is what can still be
    taken without the system having to kill, caches given up; `num_oom_kills` how many processes
    it has killed for want of memory: since when is its own affair, so only a rise says something.
    """

    total_bytes: int
    available_bytes: int | None = None
    num_oom_kills: int | None = None


class DeviceInfo(msgspec.Struct, frozen=True):
    """An accelerator that workers see under `name`, such as `cuda:0`. None: no answer now."""

    name: str
    total_bytes: int
    available_bytes: int | None = None


class WorkerHandle(Protocol):
    """A started worker. It dies with its parent."""

    @property
    def pid(self) -> int: ...

    @property
    def channel(self) -> Channel: ...

    async def wait(self) -> int:
        """The exit status, negative for a signal."""
        ...

    def kill(self) -> None:
        """SIGKILL to its process group. Idempotent."""
        ...

    def freeze(self) -> None:
        """Stop it where it is (SIGSTOP to its process group). Idempotent."""
        ...

    def thaw(self) -> None:
        """Let it go on. Idempotent."""
        ...

    def is_stopped(self) -> bool:
        """Whether it stands still (SIGSTOP, by us or by someone else, or a debugger)."""
        ...

    def rss_bytes(self) -> int:
        """Resident memory of it and its children now; 0 when it is gone or cannot be measured."""
        ...

    def cpu_s(self) -> float:
        """Processor seconds of it and of its children so far; 0 when it is gone or nobody knows."""
        ...

    def trim(self) -> None:
        """Keep its stderr within its bound. Called every few seconds."""
        ...

    def last_words(self) -> str:
        """The tail of its stderr, at most 2,000 characters."""
        ...


class NodeAgent(Protocol):
    """Knows one node: its processes, its memory and its devices."""

    async def start(self, spec: WorkerSpec) -> WorkerHandle:
        """Raises WorkerError when the process cannot be started."""
        ...

    def measure(self) -> NodeMemory:
        """Its memory now. Reads a few small files; never raises."""
        ...

    def energy(self) -> NodeEnergy:
        """Its counters now. Reads a few small files; never raises."""
        ...

    def memory_bytes(self) -> tuple[int, int]:
        """Of `measure`, total and available bytes; 0 where there is no answer."""
        ...

    async def devices(self) -> list[DeviceInfo]:
        """Its accelerators and their memory, as of at most a second ago; empty when there are none
        or nobody can tell. Never raises."""
        ...
