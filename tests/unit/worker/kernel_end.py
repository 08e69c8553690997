"""A kernel's end of a program worker's socket, as small as it can be."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llmos.abi import worker as msg
from llmos.abi.channel import ChannelClosed
from llmos.abi.jobs import JobProgress, NewEvent, ResultRow
from llmos.abi.program import Answer, Generate
from llmos.ipc.blocking import BlockingChannel
from llmos.ipc.codec import kernel_codec, worker_codec
from llmos.worker.program import ProgramLoop

END = (msg.Returned, msg.Raised, msg.GaveWay, msg.Fatal)
PATIENCE_S = 20.0


def echo(request: Generate) -> Answer | None:
    return Answer(text=request.prompt.messages[0]["content"])  # type: ignore[union-attr]


class KernelEnd:
    """Keeps results, answers calls by `answer` (None: never), adopts checkpoints.

    `on_message` sees every message first; what it returns as true is not handled here.
    """

    def __init__(self, folder: Path) -> None:
        ours, theirs = socket.socketpair()
        self.channel = BlockingChannel(ours, kernel_codec())
        self.events: list[NewEvent] = []
        self.progress: list[JobProgress] = []
        self.rows: list[ResultRow] = []
        self.calls: list[tuple[int, Generate]] = []
        self.waits: list[bool] = []
        self.checkpoints: list[bytes] = []
        self.died: list[int] = []
        self.answer: Callable[[Generate], Answer | None] = echo
        self.on_message: Callable[[Any], bool] = lambda message: False
        self._sockets = (ours, theirs)
        self._loop = ProgramLoop(
            BlockingChannel(theirs, worker_codec()), folder, die=self.died.append, capture=False
        )
        self.thread = threading.Thread(target=self._loop.run, daemon=True)
        self.thread.start()

    def send(self, message: Any) -> None:
        self.channel.send(message)

    def run(self, steps: list[dict[str, Any]] | None = None, entry: str = "", **fields: Any) -> Any:
        """Start a run and serve it to its end: the outcome."""
        self.begin(steps, entry, **fields)
        return self.outcome()

    def begin(
        self, steps: list[dict[str, Any]] | None = None, entry: str = "", **fields: Any
    ) -> None:
        self.send(
            msg.Run(
                job_id="job_1",
                attempt=fields.pop("attempt", 1),
                entry=entry or "llmos.programs.drill:Drill",
                inputs=fields.pop("inputs", {"steps": steps or []}),
                files=fields.pop("files", {}),
                checkpoint=fields.pop("checkpoint", None),
                done_keys=fields.pop("done_keys", []),
                max_results_in_flight=fields.pop("max_results", 64),
                max_log_lines_per_s=fields.pop("max_lines", 1000.0),
                max_calls_in_flight=fields.pop("max_calls", 64),
            )
        )
        assert not fields

    def outcome(self) -> Any:
        return self.until(lambda message: isinstance(message, END))

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """Serve until a message is wanted."""
        while True:
            messages = self.channel.receive(PATIENCE_S)
            assert messages, "the worker says nothing"
            found = None
            for message in messages:
                if not self.on_message(message):
                    self._handle(message)
                if found is None and wanted(message):
                    found = message
            if found is not None:
                return found

    def _handle(self, message: Any) -> None:
        if isinstance(message, msg.Told):
            self.events += message.events
            if message.progress is not None:
                self.progress.append(message.progress)
        elif isinstance(message, msg.Results):
            self.rows += message.rows
            self.send(msg.Kept(len(message.rows)))
        elif isinstance(message, msg.Checkpoint):
            self.checkpoints.append(Path(message.path).read_bytes())
            self.send(msg.Kept(checkpoint=True))
        elif isinstance(message, msg.Calls):
            self.calls += message.calls
            answers = [(number, self.answer(request)) for number, request in message.calls]
            if made := [(number, answer) for number, answer in answers if answer is not None]:
                self.send(msg.Answers(made))
        elif isinstance(message, msg.Waits):
            self.waits.append(message.idle)

    def close(self) -> None:
        with contextlib.suppress(ChannelClosed):
            self.send(msg.Shutdown())
        self.thread.join(10)
        for sock in self._sockets:
            sock.close()
