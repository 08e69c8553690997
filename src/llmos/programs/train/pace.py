"""How fast it goes: time spent on learning alone, tokens, memory."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from llmos.programs.train.examples import Examples


class Pace:
    """Tokens per second are those since the last `read`."""

    def __init__(self, examples: Examples) -> None:
        self._examples = examples
        self._before = 0
        self._seconds_before = 0.0
        self._begun_s = time.monotonic()
        self._paused_s = 0.0
        self._mark = (self._begun_s, 0)

    def begin(self) -> None:
        """From now on."""
        self._begun_s = time.monotonic()
        self._mark = (self._begun_s, self._examples.num_tokens)

    def set_state(self, num_tokens: int, seconds: float) -> None:
        """What earlier attempts did."""
        self._before, self._seconds_before = num_tokens, seconds

    @property
    def num_tokens(self) -> int:
        return self._before + self._examples.num_tokens

    @property
    def seconds(self) -> float:
        """Spent on learning, all attempts together."""
        return self._seconds_before + time.monotonic() - self._begun_s - self._paused_s

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Time that is not learning."""
        begun_s = time.monotonic()
        try:
            yield
        finally:
            took_s = time.monotonic() - begun_s
            self._paused_s += took_s
            self._mark = (self._mark[0] + took_s, self._mark[1])

    def tokens_per_s(self) -> float:
        """Since the last `read`."""
        since_s, tokens = self._mark
        return (self._examples.num_tokens - tokens) / max(1e-6, time.monotonic() - since_s)

    def read(self) -> dict[str, float]:
        """For a metric; what follows is counted anew."""
        told: dict[str, float] = {
            "tokens_per_s": round(self.tokens_per_s(), 1),
            "tokens": self.num_tokens,
            "seconds": round(self.seconds, 3),
            "memory_bytes": memory_bytes(),
        }
        self._mark = (time.monotonic(), self._examples.num_tokens)
        return told

    def text(self) -> str:
        """For people."""
        return f"{self.tokens_per_s():,.0f} tokens/s  {memory_bytes() / 1e9:.2f} GB"


def memory_bytes() -> int:
    """Of the device, or of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
