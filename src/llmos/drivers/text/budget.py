"""What one rendering may still use: steps, characters, time."""

from __future__ import annotations

import time
from typing import Any

from jinja2.exceptions import SecurityError

from llmos.drivers.text.limits import TemplateLimits


class Budget:
    """Spent by the bounded environment. Raises SecurityError when a bound is passed."""

    def __init__(self, limits: TemplateLimits) -> None:
        self._limits = limits
        self._steps = 0
        self._chars = 0
        self._deadline = time.monotonic() + limits.deadline_s

    def tick(self) -> None:
        """One more turn of a loop, or call."""
        self._steps += 1
        if self._steps > self._limits.num_steps:
            raise SecurityError(f"more than {self._limits.num_steps} steps")
        if self._steps % 256 == 0 and time.monotonic() > self._deadline:
            raise SecurityError(f"more than {self._limits.deadline_s} s")

    def make(self, num_chars: int) -> None:
        """So many more characters (or list items) are about to be made."""
        self._chars += num_chars
        if self._chars > self._limits.num_chars:
            raise SecurityError(f"more than {self._limits.num_chars} characters")

    def ask(self, number: Any) -> None:
        """A number that asks for a size."""
        if isinstance(number, int) and abs(number) > self._limits.max_number:
            raise SecurityError(f"a size of more than {self._limits.max_number}")
