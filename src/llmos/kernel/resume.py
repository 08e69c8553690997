"""Streams that outlive their readers: kept for a bounded time, and continued from an offset."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from llmos.abi.events import Aborted, Failed, Terminal
from llmos.abi.principal import Principal
from llmos.abi.syscall import Emit, Reply
from llmos.errors import InvalidRequest, NotFound, QuotaExceeded, ShuttingDown
from llmos.kernel.config import KernelConfig
from llmos.kernel.front import Call
from llmos.kernel.stream import Kept, Stream


@dataclass(slots=True, eq=False)
class _Entry:
    """`timer` runs while nobody reads: at its end the request is cancelled, or forgotten."""

    stream: Stream
    owner_id: str
    tenant_id: str
    resume_s: float
    timer: asyncio.TimerHandle | None = None


class Resumable:
    """`cancel(request_id, reason)` ends a request for which nobody came back."""

    def __init__(self, config: KernelConfig, cancel: Callable[[str, str], None]) -> None:
        self._config = config
        self._cancel = cancel
        self._entries: dict[str, _Entry] = {}

    def keep(self, resume_s: float | None, tenant_id: str) -> Kept | None:
        """What a new request's stream keeps; None for one that ends with its reader.

        Raises InvalidRequest (too long), QuotaExceeded (too many are kept, or half of what may be
        is this tenant's).
        """
        if not resume_s:
            return None
        if resume_s > self._config.max_resume_s:
            raise InvalidRequest(
                f"a stream is kept for {self._config.max_resume_s:g} s at most",
                param="llmos.resume_s",
            )
        if len(self._entries) >= self._config.max_kept_streams:
            raise QuotaExceeded(f"{len(self._entries)} streams are kept", retry_after_s=5.0)
        num_own = sum(entry.tenant_id == tenant_id for entry in self._entries.values())
        if num_own >= half_of(self._config.max_kept_streams):
            raise QuotaExceeded(f"{num_own} streams of the tenant are kept", retry_after_s=5.0)
        return Kept(self._config.kept_events)

    def add(self, stream: Stream, owner: Principal, resume_s: float) -> None:
        """A stream that keeps its events, and whose they are."""
        entry = _Entry(stream, owner.principal_id, owner.tenant_id, resume_s)
        self._entries[stream.request_id] = entry

    def left(self, stream: Stream) -> bool:
        """Its reader is gone. False: there is nothing to come back to."""
        entry = self._entries.get(stream.request_id)
        if entry is None:
            return False
        if (call := stream.call) is not None:
            call.front.streams.pop(call.number, None)
        stream.detach()
        self._arm(entry)
        return True

    def ended(self, stream: Stream) -> None:
        """It can still be read for its time."""
        if (entry := self._entries.get(stream.request_id)) is not None:
            self._arm(entry)

    def attach(self, call: Call, request_id: str, after: int) -> None:
        """Answer `call` as the first reader's was, then what followed event `after`.

        The terminal event is told again in any case. Raises NotFound (also for somebody else's),
        OffsetLost.
        """
        entry = self._entries.get(request_id)
        stream = entry.stream if entry is not None else None
        if (
            entry is None
            or stream is None
            or stream.accepted is None
            or entry.owner_id != call.principal.principal_id
        ):
            raise NotFound(f"no stream of {request_id} is kept", param="request_id")
        assert stream.kept is not None
        stream.kept.after(after)  # before anything is said or taken from the reader it has
        after = min(after, stream.kept.num_events - stream.is_closed)
        gone = Aborted(stream.request_id, "another reader goes on with this stream")
        _dismiss(stream, gone)
        accepted = msgspec.structs.replace(stream.accepted, after=after)
        call.front.send(Reply(call.number, accepted))
        if not stream.is_closed:
            call.front.streams[call.number] = stream
            if entry.timer is not None:
                entry.timer.cancel()
        stream.attach(call, after)

    def dismiss_all(self) -> None:
        """The server ends: who reads is told to come back to the next one."""
        for entry in self._entries.values():
            request_id = entry.stream.request_id
            error = ShuttingDown("the server stops; go on with this stream when it is back")
            _dismiss(entry.stream, Failed(request_id, error.to_info()))
            entry.stream.detach()

    def _arm(self, entry: _Entry) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        loop = asyncio.get_running_loop()
        entry.timer = loop.call_later(entry.resume_s, self._expire, entry)

    def _expire(self, entry: _Entry) -> None:
        request_id = entry.stream.request_id
        del self._entries[request_id]
        if not entry.stream.is_closed:
            self._cancel(request_id, f"nobody came back to read within {entry.resume_s:g} s")


def half_of(limit: int) -> int:
    """What one tenant may have of what all share; of 1 it is 1."""
    return (limit + 1) // 2


def _dismiss(stream: Stream, event: Terminal) -> None:
    """The reader it still has, if any, hears this as its last event."""
    old = stream.call
    if old is not None and not stream.is_closed:
        old.front.streams.pop(old.number, None)
        old.front.send(Emit(old.number, [event]))
