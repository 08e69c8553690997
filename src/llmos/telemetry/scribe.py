"""The process that makes spans of records and exports them, and the pipe to it.

Making spans takes longer than all else that tracing does, and OTLP's protobuf several times as
long as that: a server's interpreter has no time for it. `python -m llmos.telemetry.scribe FD`
answers each batch with what went wrong, or nothing; it ends when its pipe does.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import subprocess
import sys
from collections.abc import Sequence
from multiprocessing.connection import Connection, Pipe
from typing import Protocol

import msgspec

from llmos.telemetry.otlp import TraceFile
from llmos.telemetry.spans import Attributes, Span
from llmos.telemetry.traced import decode

GRACE_S = 10.0
"""Beyond the time that the exporter itself may take: then the process counts as stuck."""


class ScribeLost(OSError):
    """The process has ended, or does not answer: what it was just given may be lost."""


class ScribeFailed(OSError):
    """What the process could not do, in its words."""


class Destination(msgspec.Struct, frozen=True):
    """Where spans go: a file, or with `url` a collector that is given `timeout_s`."""

    resource: dict[str, str | int]
    version: str
    path: str = ""
    url: str = ""
    timeout_s: float = 0.0


class Scribe:
    """Started when it is first needed, and again after it was lost. `export` is of one thread."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: Connection | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """None while there is none."""
        return self._process.pid if self._process else None

    def export(self, records: Sequence[bytes]) -> None:
        """They are where they shall go when it returns. Raises OSError: ScribeLost, ScribeFailed,
        or that no process can be started."""
        pipe = self._pipe or self._start()
        try:
            pipe.send_bytes(msgspec.msgpack.encode(records))
            if not pipe.poll(self._destination.timeout_s + GRACE_S):
                raise TimeoutError("no answer")
            failure = pipe.recv_bytes()
        except (OSError, EOFError) as error:
            self._end()
            raise ScribeLost(f"the process that exports them is lost ({error!r})") from error
        if failure:
            raise ScribeFailed(failure.decode())

    def close(self) -> None:
        """For good, from any thread."""
        self._is_closed = True
        self._end()

    def _end(self) -> None:
        """Whatever it has answered for is done, so it need not be asked."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()  # whoever waits for its answer reads the end of the pipe
            process.wait()
        self._pipe = None

    def _start(self) -> Connection:
        if self._is_closed:
            raise ScribeLost("the server is stopping")
        ours, theirs = Pipe()
        with theirs:
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        ours.send_bytes(msgspec.msgpack.encode(self._destination))
        self._pipe = ours
        return ours


class Sink(Protocol):
    """Where spans go. `export` raises OSError."""

    def export(self, spans: Sequence[Span]) -> None: ...


def main(descriptor: int) -> None:
    """Until the server closes its end: a stop of everything at once still leaves it its time."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    gc.disable()  # many small objects, and no cycles among them
    pipe = Connection(descriptor)
    with contextlib.suppress(EOFError, OSError):  # the server has closed it, or is no more
        sink = _open(msgspec.msgpack.decode(pipe.recv_bytes(), type=Destination))
        decode_batch = msgspec.msgpack.Decoder(list[bytes]).decode
        while True:
            pipe.send_bytes(_export(sink, decode_batch(pipe.recv_bytes())))


def _export(sink: Sink, records: Sequence[bytes]) -> bytes:
    try:
        sink.export([span for record in records for span in decode(record).spans()])
    except OSError as error:
        return str(error).encode(errors="replace")
    return b""


def _open(to: Destination) -> Sink:
    resource: Attributes = to.resource
    if to.path:
        from pathlib import Path

        return TraceFile(Path(to.path), resource, to.version)
    from llmos.telemetry.otlp_http import Collector

    return Collector(to.url, to.timeout_s, resource, to.version)


if __name__ == "__main__":
    main(int(sys.argv[1]))
