"""How a process takes its place in a run: for torch, and for Accelerate, which reads it there."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch._C._distributed_c10d import FileStore

from llmos.errors import InvalidRequest
from llmos.programs.train.ranks import Ranks

PATIENCE = timedelta(days=365)
"""Whoever dies closes its sockets and is noticed by that; a frozen run may stand for long."""

POLL_S = 0.02


def nothing() -> None:
    """Nobody to look after."""


class Joined(Ranks):
    """Through torch.distributed on this machine's loopback."""

    def __init__(self, rank: int, size: int) -> None:
        self.rank = rank
        self.size = size

    def agree(self, number: int) -> int:
        told = torch.tensor([number], dtype=torch.int64)
        torch.distributed.broadcast(told, 0)
        return int(told)

    def share(self, value: Any) -> Any:
        box = [value]
        torch.distributed.broadcast_object_list(box, 0)
        return box[0]

    def gather(self, value: Any) -> list[Any]:
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    def spread(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            torch.distributed.broadcast(tensor, 0)

    def seed(self, seed: int) -> None:
        if not self.is_first:
            from transformers import set_seed

            set_seed((seed + 1_000_003 * self.rank) % 2**32)


@contextlib.contextmanager
def joined(
    rank: int, size: int, threads: int, meeting: Path, look: Callable[[], None] = nothing
) -> Iterator[Ranks]:
    """All of them meet at the file `meeting`; `look` is called while they are waited for, and may
    raise. Raises InvalidRequest where there are fewer GPUs than processes."""
    on_gpus = torch.cuda.is_available()
    if on_gpus:
        _take_gpu(rank, size)
    env = {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(size),
        "LOCAL_WORLD_SIZE": str(size),
        "OMP_NUM_THREADS": str(threads),
    }
    if sys.platform == "linux":
        env["GLOO_SOCKET_IFNAME"] = env["NCCL_SOCKET_IFNAME"] = "lo"
    with _environment(env):
        store = FileStore(str(meeting), size)
        store.set(f"here-{rank}", "")
        while not store.check([f"here-{other}" for other in range(size)]):
            look()
            time.sleep(POLL_S)
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpus else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=PATIENCE,
        )
        try:
            yield Joined(rank, size)
        finally:
            _leave()


def is_lost(error: BaseException) -> bool:
    """Whether it says that another process is gone."""
    known: Any = torch.distributed
    return isinstance(error, known.DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error).lower()
    )


def _take_gpu(rank: int, size: int) -> None:
    count = torch.cuda.device_count()
    if count < size:
        raise InvalidRequest(
            f"recipe: training.processes: {size} processes, {count} GPUs: each needs its own",
            param="recipe.training.processes",
        )
    torch.cuda.set_device(rank)


@contextlib.contextmanager
def _environment(wanted: dict[str, str]) -> Iterator[None]:
    """Where Accelerate and Gloo look; gone afterwards, when there is one process again."""
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name in wanted:
            del os.environ[name]


def _leave() -> None:
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    torch.distributed.destroy_process_group()
