"""What the driver asks of whoever runs a model: two do, and requests do not notice which.

`eager` runs Transformers' own modules through torch, on any device. `fused` runs kernels of ours
over pages of KV, in host memory.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec
import torch

from llmos.abi.driver import MemoryReport
from llmos.drivers.native.kv import KVCopy
from llmos.drivers.native.request import Request
from llmos.drivers.seats import Room
from llmos.errors import EngineFailed

Drawn = tuple[Request, list[int] | EngineFailed]
"""What a step brought a request: the tokens it drew, at least one, or why it cannot go on."""


@dataclasses.dataclass(frozen=True, slots=True)
class ModelInfo:
    """What was loaded. `why`: how it came to be run this way, for people; `warnings` as well.
    `virtual` are ids of tokens that come before every prompt, and are counted nowhere: not in
    `context_length` either."""

    engine: str
    dtype: str
    device: str
    vocab_size: int
    context_length: int
    eos_ids: frozenset[int]
    exact_by_default: bool
    why: str
    warnings: tuple[str, ...] = ()
    virtual: tuple[int, ...] = ()


class Grounds(msgspec.Struct, frozen=True):
    """What bits rest on besides weights, dtype, device and threads (ADR 5)."""

    decode_mode: str
    width: int
    prefill_chunk: int
    engine: str
    processor: str


class Runner(Room[Request], Protocol):
    """One loaded model and the KV of its requests. For one thread.

    Engine errors come out as EngineFailed. Exactness: `grounds` are what a snapshot's bits rest on,
    `layers` the shapes of its KV. `num_guessed` tokens were guessed ahead so far, `num_accepted` of
    them came.
    """

    info: ModelInfo
    num_threads: int
    grounds: Grounds
    layers: list[tuple[int, int, int]]
    num_guessed: int
    num_accepted: int

    def advance(self, running: list[Request]) -> list[Drawn]:
        """One step for requests in ascending slots: some read on, some draw, some fail."""
        ...

    def kv_bytes(self, num_tokens: int) -> int:
        """Of a copy of so many tokens."""
        ...

    def kv_of(self, request: Request) -> Iterable[torch.Tensor]:
        """Of a seated request, as its copy would have it."""
        ...

    def empty_copy(self, num_tokens: int) -> KVCopy:
        """To be filled before the request is seated."""
        ...

    def park(self) -> None:
        """Give back KV and weights; no request is here. Idempotent, as `unpark` is."""
        ...

    def unpark(self) -> None:
        """Raises LoadFailed, ModelRejected; then it stays parked."""
        ...

    def close(self) -> None:
        """Give everything back, for good."""
        ...

    def progress(self) -> str:
        """What goes on beside the steps, for people; empty: nothing."""
        ...

    def memory(self, requests: Sequence[Request]) -> MemoryReport:
        """Measured now, with these requests here."""
        ...
