"""Calls about the server's home as a whole: its backup, its disk."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from llmos.abi.home import BackupReport
from llmos.sdk.config import ClientConfig
from llmos.sdk.shown import Disk
from llmos.sdk.wire import Call, Patience, Request, WholeBody, decode, encode

T = TypeVar("T")


def back_up(config: ClientConfig, path: str | Path) -> Call[BackupReport]:
    """A consistent copy of the home into a new folder of this machine, while the server works.

    Over the home's own socket only. Raises InvalidRequest, Conflict (something is there), DiskFull.
    """
    folder = str(Path(path).expanduser().absolute())
    request = Request("POST", "/os/v1/backup", encode({"path": folder}), Patience.LONG)
    return _call(config, request, lambda body: decode(body, BackupReport))


def disk(config: ClientConfig) -> Call[Disk]:
    """What uses the home's disk."""
    request = Request("GET", "/os/v1/disk", None, Patience.LONG)
    return _call(config, request, lambda body: decode(body, Disk))


def collect(config: ClientConfig) -> Call[Disk]:
    """Delete the bytes that nothing refers to any more. What the disk looks like then."""
    request = Request("POST", "/os/v1/blobs/collect", None, Patience.LONG)
    return _call(config, request, lambda body: decode(body, Disk))


def _call(config: ClientConfig, request: Request, parse: Callable[[bytes], T]) -> Call[T]:
    return Call(request, lambda: WholeBody(parse, config.max_answer_bytes))
