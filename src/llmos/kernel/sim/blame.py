"""Recounts what a model's failures cost it, from deaths and refusals alone."""

from __future__ import annotations

from dataclasses import dataclass

from llmos.kernel.core.limits import Limits


@dataclass(slots=True)
class Blame:
    """Failures in a row, when it may start again, and whether arrivals are refused until then."""

    num_failures: int = 0
    retry_ns: int = 0
    is_cooling: bool = False

    def died(self, is_proven: bool, now_ns: int, limits: Limits) -> None:
        """The first death in a row costs nothing, each later one twice as much as the one before.

        `is_proven`: the replica had served someone, or was up for long enough. When such a one
        dies in a pause, it is older than those whose deaths made the pause, and changes nothing.
        """
        stands = self.is_cooling and now_ns < self.retry_ns
        if is_proven and now_ns < self.retry_ns:
            self.is_cooling = stands or self.num_failures >= limits.max_start_failures
            return
        self.num_failures = 1 if is_proven else self.num_failures + 1
        delay_ns = limits.min_backoff_ns if self.num_failures > 1 else 0
        for _ in range(self.num_failures - 2):
            delay_ns = min(2 * delay_ns, limits.max_backoff_ns)
        retry_ns = now_ns + min(delay_ns, limits.max_backoff_ns)
        self.retry_ns = max(self.retry_ns, retry_ns)
        self.is_cooling = stands or self.num_failures >= limits.max_start_failures

    def refused(self, now_ns: int, limits: Limits) -> None:
        self.num_failures += 1
        self.retry_ns = now_ns + limits.cooldown_ns
        self.is_cooling = True
