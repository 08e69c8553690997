"""The Context of a program in this worker: every method is a message or a wait for one."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from llmos.abi import worker as msg
from llmos.abi.program import Answer, Generate
from llmos.errors import ErrorInfo, InvalidRequest, from_info
from llmos.worker.calls import CallWindow, IdleMeter
from llmos.worker.outlet import Outlet
from llmos.worker.questions import Questions
from llmos.worker.results import ResultWindow
from llmos.worker.signals import Signals
from llmos.worker.telling import Teller, to_progress


class WorkerContext:
    """Behind `abi.Context`; any thread of the program may use it. Made by the thread that runs the
    program. `pulse`, called every few milliseconds, sends what has gathered."""

    def __init__(self, run: msg.Run, outlet: Outlet, signals: Signals, scratch: Path) -> None:
        self._run = run
        self._outlet = outlet
        self._signals = signals
        self._scratch = scratch
        self._files = MappingProxyType(run.files)
        self._models = MappingProxyType(run.models)
        self._inputs = MappingProxyType(run.inputs)
        self._done_keys = frozenset(run.done_keys)
        self.teller = Teller(outlet.send, signals, run.max_log_lines_per_s)
        self._meter = IdleMeter(outlet.send)
        self._results = ResultWindow(outlet.send, signals, run.max_results_in_flight)
        self._calls = CallWindow(outlet.send, signals, run.max_calls_in_flight, self._meter)
        self._questions = Questions(outlet.send, signals, self._meter)
        self._checkpointing = threading.Lock()
        self._kept: list[ErrorInfo | None] = []
        self._gathering = threading.Lock()
        self._gathered: list[msg.Gathered] = []
        self._registering = threading.Lock()
        self._registered: list[msg.Registered] = []

    # abi.Context

    @property
    def job_id(self) -> str:
        return self._run.job_id

    @property
    def attempt(self) -> int:
        return self._run.attempt

    @property
    def inputs(self) -> Mapping[str, Any]:
        return self._inputs

    @property
    def files(self) -> Mapping[str, str]:
        return self._files

    @property
    def models(self) -> Mapping[str, str]:
        return self._models

    @property
    def scratch(self) -> str:
        return str(self._scratch)

    @property
    def resumed_from(self) -> str | None:
        return self._run.checkpoint

    @property
    def done_keys(self) -> frozenset[tuple[str, str]]:
        return self._done_keys

    @property
    def should_yield(self) -> bool:
        return self._signals.should_yield

    @property
    def should_stop(self) -> bool:
        return self._signals.should_stop

    def emit(self, kind: str, value: Mapping[str, Any]) -> None:
        self._signals.check_grace()
        self.teller.emit(kind, value)

    def progress(
        self,
        done: float,
        total: float = 0.0,
        unit: str = "",
        what: str = "",
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self._signals.check_grace()
        self.teller.progress(to_progress(done, total, unit, what, counts))

    def result(self, stream: str, key: str, order: int, body: bytes) -> None:
        if (stream, key) not in self._done_keys:
            self._results.put(stream, key, order, body)

    def gather(self, stream: str) -> str:
        with self._gathering:
            self._results.drain()
            self._outlet.send(msg.Gather(stream))
            with self._signals.changed:
                while not self._gathered:
                    self._signals.check_over()
                    self._signals.changed.wait()
                gathered = self._gathered.pop()
        if gathered.error is not None:
            raise from_info(gathered.error)
        return gathered.path

    def call(self, request: Generate) -> Answer:
        self._signals.check_stop()
        return self._calls.call(request)

    def calls(
        self, requests: Iterable[tuple[Any, Generate]], window: int
    ) -> Iterator[tuple[Any, Answer]]:
        return self._calls.calls(requests, window)

    def ask(self, call: msgspec.Struct) -> Any:
        return self._questions.ask(call)

    def checkpoint(self, path: str) -> None:
        """What was put before it is durable before it. The file is the server's from now on."""
        file = self._own_file(path)
        with self._checkpointing:
            self._results.drain()
            self._kept.clear()
            self._outlet.send(msg.Checkpoint(str(file)))
            with self._signals.changed:
                while not self._kept:
                    self._signals.check_over()
                    self._signals.changed.wait()
                error = self._kept.pop()
        if error is not None:
            raise from_info(error)

    def register(self, folder: str, name: str) -> str:
        """What was put before it is durable before it."""
        path = self._own_folder(folder)
        with self._registering:
            self._results.drain()
            self._outlet.send(msg.Register(str(path), name))
            with self._signals.changed:
                while not self._registered:
                    self._signals.check_over()
                    self._signals.changed.wait()
                registered = self._registered.pop()
        if registered.error is not None:
            raise from_info(registered.error)
        return registered.ref

    def _own_folder(self, path: str) -> Path:
        """Raises InvalidRequest for what is no folder below the scratch folder."""
        scratch = self._scratch.resolve()
        folder = (scratch / path).resolve()
        if not folder.is_dir() or scratch not in folder.parents:
            raise InvalidRequest("a model lies in a folder of the scratch folder", param="folder")
        return folder

    def _own_file(self, path: str) -> Path:
        """Raises InvalidRequest for what is no file of the scratch folder."""
        file = self._scratch / path
        try:
            mode = os.lstat(file).st_mode
            folder = file.parent.resolve(strict=True)
        except (OSError, ValueError) as error:
            raise InvalidRequest(f"a checkpoint cannot be read: {error}", param="path") from None
        if not stat.S_ISREG(mode):
            raise InvalidRequest("a checkpoint is a plain file", param="path")
        if not folder.is_relative_to(self._scratch.resolve()):
            raise InvalidRequest("a checkpoint lies in the scratch folder", param="path")
        return folder / file.name

    # the worker's

    def pulse(self) -> None:
        """Send what has gathered since the last one."""
        self.teller.flush()
        self._results.flush()
        self._meter.look()

    def settle(self) -> None:
        """Returns when everything is told and every result is durable. Raises what kept one from
        becoming so, Interrupted."""
        self.teller.flush(final=True)
        self._results.drain()

    def on_answers(self, message: msg.Answers) -> None:
        self._calls.on_answers(message.answers)

    def on_replied(self, message: msg.Replied) -> None:
        self._questions.on_replied(message)

    def on_gathered(self, message: msg.Gathered) -> None:
        with self._signals.changed:
            self._gathered.append(message)
            self._signals.changed.notify_all()

    def on_registered(self, message: msg.Registered) -> None:
        with self._signals.changed:
            self._registered.append(message)
            self._signals.changed.notify_all()

    def on_kept(self, message: msg.Kept) -> None:
        """Of results, of a checkpoint, or of both."""
        lost = message.error if not message.checkpoint else None
        if message.checkpoint or (lost and self._checkpointing.locked()):
            with self._signals.changed:
                self._kept.append(message.error)
                self._signals.changed.notify_all()
        self._results.on_kept(message.num_results, lost)
