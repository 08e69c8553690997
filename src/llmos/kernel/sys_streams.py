"""System call: go on reading a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmos.abi.syscall import AttachStream
from llmos.kernel.front import Call

if TYPE_CHECKING:
    from llmos.kernel.kernel import Kernel


async def attach_stream(kernel: Kernel, call: Call, body: AttachStream) -> None:
    """Only its owner may. Raises NotFound, OffsetLost."""
    kernel.resumable.attach(call, body.request_id, body.after)
