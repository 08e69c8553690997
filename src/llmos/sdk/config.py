"""Every bound of the client. A msgspec struct, not pydantic: the client side starts fast."""

from __future__ import annotations

import msgspec


class ClientConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Seconds and bytes.

    `connect_timeout_s`: to reach the server. `read_timeout_s`: between two pieces of an ordinary
    answer. `long_timeout_s`: the same for answers that work is done for (a generation without
    streaming, a load, a pull between two reports). `stream_timeout_s`: silence within a stream;
    far above the server's keep-alive interval. `max_answer_bytes`: of an answer that is not a
    stream. `max_event_bytes`: of one event of a stream. `max_error_bytes`: how much of a refusal
    is read. `upload_chunk_bytes`: read from disk and sent at a time.
    """

    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    long_timeout_s: float = 1800.0
    stream_timeout_s: float = 300.0
    max_answer_bytes: int = 256 * 1024 * 1024
    max_event_bytes: int = 16 * 1024 * 1024
    max_error_bytes: int = 1024 * 1024
    upload_chunk_bytes: int = 1024 * 1024
