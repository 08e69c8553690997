"""Every bound of the driver, with its unit."""

from __future__ import annotations

MAX_EVENT_BYTES = 1 << 20
"""Of one event of a stream."""

MAX_BODY_BYTES = 32 << 20
"""Of an answer that is no stream."""

MAX_ANSWER_CHARS = 16 << 20
"""Of one answer; a remote that never ends is cut off there."""

MAX_ERROR_BYTES = 64 << 10
"""Read of the body of an error."""

MAX_SAID_CHARS = 300
"""Of a remote's own words in an error of ours."""

MAX_RETRY_AFTER_S = 3600.0
"""A remote that asks for more is asked again after this."""

ROOM_BYTES = 64 << 20
"""More than the connections and answers of a batch take."""

WRITE_TIMEOUT_S = 60.0
"""Until the remote has taken a request."""

STOP_TIMEOUT_S = 5.0
"""Until connections are closed when the model is unloaded."""
