"""Keyed results on their way to the store: a window, so that memory and loss are bounded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from llmos.abi import worker as msg
from llmos.abi.jobs import ResultRow
from llmos.errors import ErrorInfo, InvalidRequest, PayloadTooLarge, from_info
from llmos.worker.plain import clean
from llmos.worker.signals import Signals

MAX_RESULT_BYTES = 16 << 20
MAX_BYTES_IN_FLIGHT = 32 << 20
MAX_BATCH_BYTES = 4 << 20
MAX_BATCH_ROWS = 64
MAX_NAME_CHARS = 1024


class ResultWindow:
    """`put` blocks while too many rows, or bytes, are not durable yet."""

    def __init__(
        self, send: Callable[[msg.Results], None], signals: Signals, max_in_flight: int
    ) -> None:
        self._send = send
        self._signals = signals
        self._max_in_flight = max(1, max_in_flight)
        self._flushing = threading.Lock()  # keeps two flushes in order
        self._rows: list[ResultRow] = []
        self._num_row_bytes = 0
        self._sizes: deque[int] = deque()
        self._num_bytes = 0
        self._error: ErrorInfo | None = None

    def put(self, stream: str, key: str, order: int, body: bytes) -> None:
        """Raises InvalidRequest, PayloadTooLarge, what the store failed with, Interrupted."""
        row = _row(stream, key, order, body)
        changed = self._signals.changed
        while True:
            with changed:
                self._check()
                if self._has_room(len(row.body)):
                    self._add(row)
                    is_full = (
                        len(self._rows) >= MAX_BATCH_ROWS or self._num_row_bytes >= MAX_BATCH_BYTES
                    )
                    break
                if not self._rows:
                    changed.wait()
                    continue
            self.flush()  # what we wait for must be on its way
        if is_full:
            self.flush()

    def _has_room(self, size: int) -> bool:
        if not self._sizes:
            return True
        return (
            len(self._sizes) < self._max_in_flight and self._num_bytes + size <= MAX_BYTES_IN_FLIGHT
        )

    def _add(self, row: ResultRow) -> None:
        self._rows.append(row)
        self._num_row_bytes += len(row.body)
        self._sizes.append(len(row.body))
        self._num_bytes += len(row.body)

    def flush(self) -> None:
        """Send what there is."""
        with self._flushing:
            with self._signals.changed:
                rows, self._rows, self._num_row_bytes = self._rows, [], 0
            if rows:
                self._send(msg.Results(rows))

    def drain(self) -> None:
        """Returns when every row is durable. Raises as `put`."""
        self.flush()
        with self._signals.changed:
            while self._sizes:
                self._check()
                self._signals.changed.wait()
            self._check_error()

    def on_kept(self, num_rows: int, error: ErrorInfo | None) -> None:
        """So many of the oldest rows are durable; `error`: the others never will be."""
        with self._signals.changed:
            for _ in range(min(num_rows, len(self._sizes))):
                self._num_bytes -= self._sizes.popleft()
            self._error = self._error or error
            self._signals.changed.notify_all()

    def _check(self) -> None:
        self._signals.check_over()
        self._check_error()

    def _check_error(self) -> None:
        if self._error is not None:
            raise from_info(self._error)


def _row(stream: Any, key: Any, order: Any, body: Any) -> ResultRow:
    for name, text in (("stream", stream), ("key", key)):
        if not isinstance(text, str) or not 0 < len(text) <= MAX_NAME_CHARS or clean(text) != text:
            raise InvalidRequest(f"{name} is a text of 1 to {MAX_NAME_CHARS} characters")
    if type(order) is not int or not -(2**63) <= order < 2**63:
        raise InvalidRequest("order is an integer of 64 bits", param="order")
    if not isinstance(body, bytes):
        raise InvalidRequest(f"body is bytes, not {type(body).__name__}", param="body")
    if len(body) > MAX_RESULT_BYTES:
        raise PayloadTooLarge(f"a result of {len(body)} bytes is over {MAX_RESULT_BYTES}")
    return ResultRow(stream, key, order, body)
