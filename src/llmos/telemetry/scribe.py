"""The process that makes spans of records and exports them, and the server's side of it.

Making spans takes longer than all else that tracing does, and OTLP's protobuf several times as
long as that: a server's interpreter has no time for it. `python -m llmos.telemetry.scribe FD PID`
answers each body of spans that is out, and what went wrong; it ends with the server.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from typing import IO, NamedTuple, Protocol

import msgspec

from llmos.parent import die_with_parent
from llmos.telemetry.export import NotExported
from llmos.telemetry.frames import receive, send
from llmos.telemetry.otlp import TraceFile
from llmos.telemetry.spans import Attributes, Span
from llmos.telemetry.traced import decode

GRACE_S = 10.0
"""Beyond the time that one body may take its exporter: then the process counts as stuck."""
MAX_SPANS = 512
"""In one body: OpenTelemetry's own default, which every collector takes."""
MAX_WORDS_CHARS = 2000
"""Of what the process says in the end, or of why it failed."""


class ScribeLost(NotExported):
    """The process has ended, does not answer, or cannot be started."""


class ScribeFailed(NotExported):
    """What the process could not do, in its words."""


class Destination(msgspec.Struct, frozen=True):
    """Where spans go: a file, or with `url` a collector that is given `timeout_s`."""

    resource: dict[str, str | int]
    version: str
    path: str = ""
    url: str = ""
    timeout_s: float = 0.0


class Answer(msgspec.Struct, frozen=True):
    """One body is out, and with it all of so many records; or, with `failure`, it is not, and
    nothing more is tried."""

    num_exported: int
    failure: str = ""


class _Running(NamedTuple):
    process: subprocess.Popen[bytes]
    line: socket.socket
    stderr: IO[bytes]


class Scribe:
    """Started when it is first needed, and again after it was lost. `export` is of one thread,
    which outlives the process."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._running: _Running | None = None
        self._is_closed = False

    @property
    def pid(self) -> int | None:
        """None while there is none."""
        return self._running.process.pid if self._running else None

    def export(self, records: Sequence[bytes]) -> None:
        """They are where they shall go when it returns. Raises ScribeLost, ScribeFailed."""
        num_exported = 0
        try:
            line = (self._running or self._start()).line
            line.settimeout(self._destination.timeout_s + GRACE_S)  # of each send and receive
            send(line, records)
            while num_exported < len(records):
                answer = receive(line, Answer)
                num_exported = answer.num_exported
                if answer.failure:
                    raise ScribeFailed(answer.failure, num_exported)
        except NotExported:
            raise
        except (OSError, EOFError) as error:
            told = f"the process that exports them is lost ({error!r}) {self._end()}".strip()
            raise ScribeLost(told, num_exported) from error

    def close(self) -> None:
        """For good, from any thread."""
        self._is_closed = True
        self._end()

    def _end(self) -> str:
        """Its last words. Whatever it has answered for is done, so it need not be asked."""
        running, self._running = self._running, None
        if running is None:
            return ""
        running.process.kill()  # whoever waits for its answer reads the end of the line
        running.process.wait()
        running.line.close()
        with running.stderr as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4 * MAX_WORDS_CHARS))
            return file.read().decode(errors="replace")[-MAX_WORDS_CHARS:].strip()

    def _start(self) -> _Running:
        if self._is_closed:
            raise ScribeLost("the server is stopping")
        with contextlib.ExitStack() as undo:
            ours, theirs = map(undo.enter_context, socket.socketpair())
            stderr = undo.enter_context(tempfile.TemporaryFile())
            process = subprocess.Popen(
                # no module of the folder that the server happens to be in
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno()), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
                cwd="/",
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            undo.pop_all()
        theirs.close()
        self._running = _Running(process, ours, stderr)
        send(ours, self._destination)
        return self._running


class Sink(Protocol):
    """Where spans go. `export` raises OSError."""

    def export(self, spans: Sequence[Span]) -> None: ...


class Said(logging.Handler):
    """What a library logged last: why it failed, where its errors do not say so."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: deque[str] = deque(maxlen=2)

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


def main(descriptor: int, parent_pid: int) -> None:
    """Until the server closes its end: a stop of everything at once still leaves it its time."""
    die_with_parent(parent_pid)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    said = Said()
    logging.getLogger().addHandler(said)
    line = socket.socket(fileno=descriptor)  # open to the end: then all last words are told
    with contextlib.suppress(EOFError, ConnectionError):  # the server has closed it, or is no more
        sink = _open(receive(line, Destination))
        gc.freeze()  # what was imported is never garbage; what a failed export leaves behind is
        while True:
            for answer in answers(sink, receive(line, list[bytes]), said):
                send(line, answer)


def answers(sink: Sink, records: Sequence[bytes], said: Said) -> Iterator[Answer]:
    """One for each body."""
    num_exported = 0
    try:
        for spans, num_whole in bodies(records):
            said.messages.clear()
            sink.export(spans)
            num_exported = num_whole
            yield Answer(num_exported)
    except Exception as error:  # noqa: BLE001 - the edge of this process: the server logs it
        told = "; ".join([f"{type(error).__name__}: {error}", *said.messages])
        yield Answer(num_exported, told.encode(errors="replace").decode()[:MAX_WORDS_CHARS])


def bodies(records: Sequence[bytes]) -> Iterator[tuple[list[Span], int]]:
    """Spans that go out together, and of how many records all is out with them."""
    spans: list[Span] = []
    for number, record in enumerate(records):
        spans += decode(record).spans()
        while len(spans) > MAX_SPANS:
            yield spans[:MAX_SPANS], number
            del spans[:MAX_SPANS]
    if spans:
        yield spans, len(records)


def _open(to: Destination) -> Sink:
    resource: Attributes = to.resource
    if to.path:
        from pathlib import Path

        return TraceFile(Path(to.path), resource, to.version)
    from llmos.telemetry.otlp_http import Collector

    return Collector(to.url, to.timeout_s, resource, to.version)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
