"""What this process holds with a GGUF model, and what it may come to hold.

llama.cpp takes its keys, values and scratch when a context is made, and writes to all of them then
or in the first pass; weights are pages of the file, or copies where it repacks them.
"""

from __future__ import annotations

from llmos.abi.driver import MemoryReport
from llmos.drivers.resident import read_resident
from llmos.weights.footprint import LIBRARY_BYTES

_DRAW_BYTES = 64
"""Of a logit that is drawn from: it, its probability, sums and orders of them."""


class Accounts:
    """Of one loaded model; made where the process is at rest, after a first full pass."""

    def __init__(
        self,
        *,
        weights_bytes: int,
        library_bytes: int,
        kv_token_bytes: int,
        kv_reserved_bytes: int,
        vocab_size: int,
        num_slots: int,
    ) -> None:
        self._weights_bytes = weights_bytes
        self._library_bytes = library_bytes
        self._kv_token_bytes = kv_token_bytes
        self._kv_reserved_bytes = kv_reserved_bytes
        rows_bytes = vocab_size * (_DRAW_BYTES + num_slots * 16)  # a draw, and what penalties count
        self._rest_bytes = read_resident().anonymous_bytes + rows_bytes

    def report(self, num_cached: int, copies_bytes: int) -> MemoryReport:
        """Counted now. `num_cached` tokens of all requests; `copies_bytes`: of those outside."""
        now = read_resident()
        anonymous = max(now.anonymous_bytes - copies_bytes, self._rest_bytes)
        files = max(now.file_bytes, self._library_bytes + self._weights_bytes) + LIBRARY_BYTES
        return MemoryReport(
            rss_bytes=now.rss_bytes,
            weights_bytes=self._weights_bytes,
            kv_reserved_bytes=self._kv_reserved_bytes + copies_bytes,
            kv_used_bytes=num_cached * self._kv_token_bytes,
            bound_bytes=anonymous + files,
            peak_bytes=now.peak_bytes,
        )
