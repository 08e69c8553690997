"""What a model's failures cost it: back-off after deaths, a cool-down after a refused load."""

from __future__ import annotations

from dataclasses import dataclass

from llmos.errors import ErrorInfo
from llmos.kernel.core.limits import Limits


@dataclass(slots=True)
class Fault:
    """Failures in a row. Starting is allowed from `retry_ns` on; `cooling` refuses arrivals too."""

    num_failures: int = 0
    retry_ns: int = 0
    cooling: bool = False
    error: ErrorInfo | None = None

    def died(self, error: ErrorInfo, proven: bool, now_ns: int, limits: Limits) -> None:
        """A worker's death. A proven one is replaced at once: hardly the model's fault.

        A pause that newer replicas have earned stands, whichever older one dies meanwhile, and a
        cool-down with it.
        """
        self.cooling = self.is_cooling(now_ns)
        if proven and now_ns < self.retry_ns:
            return
        self.num_failures = 1 if proven else self.num_failures + 1
        exponent = self.num_failures - 1
        delay = 0 if not exponent else limits.min_backoff_ns << min(exponent - 1, 30)
        self.retry_ns = max(self.retry_ns, now_ns + min(delay, limits.max_backoff_ns))
        self.error = error

    def refused(self, error: ErrorInfo, now_ns: int, limits: Limits) -> None:
        """The driver said no: nothing is tried for the cool-down."""
        self.num_failures += 1
        self.retry_ns = now_ns + limits.cooldown_ns
        self.error = error
        self.cooling = True

    def is_cooling(self, now_ns: int) -> bool:
        return self.cooling and now_ns < self.retry_ns
