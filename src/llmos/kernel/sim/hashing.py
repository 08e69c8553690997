"""One number for a whole run: same seed, same trace, same hash, in any process."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from llmos.kernel.core.decisions import Decision
from llmos.kernel.core.events import CoreEvent


class TraceHash:
    """Over every event and decision with its time and machine, in order (BLAKE2b, 128 bits)."""

    def __init__(self) -> None:
        self._hash = hashlib.blake2b(digest_size=16)

    def add(
        self, machine: int, now_ns: int, events: Sequence[CoreEvent], decisions: Sequence[Decision]
    ) -> None:
        self._hash.update(f"{machine} {now_ns} {events!r} {decisions!r}\n".encode())

    @property
    def hex(self) -> str:
        return self._hash.hexdigest()
