"""The Program seam: what a job runs inside a worker. No sockets, no database: only its context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from llmos.abi.blob import BlobRef


class Context(Protocol):
    """A program's whole world. Every method may raise `LLMOSError` subclasses only."""

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    def emit(self, kind: str, value: Mapping[str, Any]) -> None:
        """Progress, a metric, a log line, an output: kept by the server, streamed to readers."""
        ...

    def call(self, name: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
        """A system call with the principal's delegated rights and budget."""
        ...

    def checkpoint(self, state: BlobRef) -> None:
        """State from which `run` can continue after a suspension or a crash."""
        ...

    @property
    def should_yield(self) -> bool:
        """True when the scheduler wants the machine: checkpoint and return soon."""
        ...


class Program(Protocol):
    """Named by an entry string; one call of `run` per attempt."""

    def run(self, ctx: Context) -> Mapping[str, Any]:
        """The outputs. What it raises is the attempt's failure."""
        ...
