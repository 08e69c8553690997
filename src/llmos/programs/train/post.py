"""What another process of a run is told, and the context it runs in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import msgspec

from llmos.abi.program import Answer, Generate

LOST = 3
"""The exit status of one that ends because another has."""


class Post(msgspec.Struct, frozen=True):
    """Where one stands, and what of the job it must know. `scratch` is a folder of its own."""

    rank: int
    size: int
    threads: int
    parent_pid: int
    meeting: str
    job_id: str
    attempt: int
    inputs: dict[str, Any]
    files: dict[str, str]
    models: dict[str, str]
    scratch: str
    resumed_from: str | None


class MuteContext:
    """Behind `abi.Context`: what the first tells need not be told twice."""

    should_yield = False
    should_stop = False
    done_keys: frozenset[tuple[str, str]] = frozenset()

    def __init__(self, post: Post) -> None:
        self.job_id = post.job_id
        self.attempt = post.attempt
        self.inputs: Mapping[str, Any] = post.inputs
        self.files: Mapping[str, str] = post.files
        self.models: Mapping[str, str] = post.models
        self.scratch = post.scratch
        self.resumed_from = post.resumed_from

    def emit(self, kind: str, value: Mapping[str, Any]) -> None:
        pass

    def progress(
        self,
        done: float,
        total: float = 0.0,
        unit: str = "",
        what: str = "",
        counts: Mapping[str, int] | None = None,
    ) -> None:
        pass

    def result(self, stream: str, key: str, order: int, body: bytes) -> None:
        raise _only_first()

    def gather(self, stream: str) -> str:
        raise _only_first()

    def call(self, request: Generate) -> Answer:
        raise _only_first()

    def calls(
        self, requests: Iterable[tuple[Any, Generate]], window: int
    ) -> Iterator[tuple[Any, Answer]]:
        raise _only_first()

    def ask(self, call: msgspec.Struct) -> Any:
        raise _only_first()

    def checkpoint(self, path: str) -> None:
        raise _only_first()

    def register(self, folder: str, name: str) -> str:
        raise _only_first()


def _only_first() -> NotImplementedError:
    return NotImplementedError("only the first process of a run does this")
