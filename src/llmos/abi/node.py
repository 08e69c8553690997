"""The NodeAgent seam: starts and reaches workers on a node."""

from __future__ import annotations

from typing import Protocol

import msgspec

from llmos.abi.channel import Channel


class WorkerSpec(msgspec.Struct, frozen=True):
    """What to start. `python` is the interpreter, part of the driver's spec; empty: our own.

    `env` is the whole environment of the process. `scratch` is its working folder and where its
    stderr goes (`stderr.log`, bounded).
    """

    worker_id: str
    scratch: str
    python: str = ""
    env: dict[str, str] = {}


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

    def trim(self) -> None:
        """Keep its stderr within its bound. Called every few seconds."""
        ...

    def last_words(self) -> str:
        """The tail of its stderr, at most 2,000 characters."""
        ...


class NodeAgent(Protocol):
    """Knows one node: its processes and its memory."""

    async def start(self, spec: WorkerSpec) -> WorkerHandle:
        """Raises WorkerError when the process cannot be started."""
        ...

    def memory_bytes(self) -> tuple[int, int]:
        """(total, available) memory of the node for workers, in bytes."""
        ...
