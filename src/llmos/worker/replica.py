"""The loop of a worker that holds a replica: take commands, step the driver, tell what happened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from llmos.abi import worker as msg
from llmos.abi.driver import Driver, Waking
from llmos.abi.events import Event, Failed
from llmos.errors import Conflict, EngineFailed, LLMOSError
from llmos.ipc.blocking import BlockingChannel

log = logging.getLogger(__name__)


class ReplicaLoop:
    """One thread, so that the driver needs no locks and no step waits for a queue."""

    def __init__(self, channel: BlockingChannel, driver: Driver) -> None:
        self._channel = channel
        self._driver = driver
        self._refused: list[Event] = []
        self._loaded = False
        self._cpu_s = 0.0
        self._parked = False
        self._running = True
        self._handlers: dict[type, Callable[[Any], None]] = {
            msg.Load: self._load,
            msg.Submit: self._submit,
            msg.Pause: lambda m: self._each(self._driver.pause, m.request_ids),
            msg.Unpause: lambda m: self._each(self._driver.unpause, m.request_ids),
            msg.Abort: self._abort,
            msg.Suspend: self._suspend,
            msg.Resume: self._resume,
            msg.Park: self._park,
            msg.Unpark: self._unpark,
            msg.Probe: self._probe,
            msg.Shutdown: self._shutdown,
        }

    def run(self) -> None:
        """Until `Shutdown`. Raises ChannelClosed when the kernel is gone, or what `step` raised."""
        while self._running:
            for message in self._channel.receive(self._wait_s()):
                self._handlers[type(message)](message)
            if self._refused or self._serving:
                self._step()

    @property
    def _serving(self) -> bool:
        return self._loaded and not self._parked

    def _wait_s(self) -> float | None:
        if self._refused:
            return 0.0
        return self._driver.wait_s() if self._serving else None

    def _step(self) -> None:
        begun = time.perf_counter()
        events = self._driver.step() if self._serving else []
        if self._refused:
            events = self._refused + events
            self._refused = []
        if events:
            before_s, self._cpu_s = self._cpu_s, time.process_time()
            step_s = time.perf_counter() - begun
            self._channel.send(msg.Step(events, step_s, self._cpu_s - before_s))

    def _load(self, message: msg.Load) -> None:
        def progress(fraction: float, what: str) -> None:
            self._channel.send(msg.Progress(fraction, what))

        try:
            report = self._driver.load(message.spec, progress)
        except LLMOSError as error:
            self._channel.send(msg.LoadError(error.to_info()))
        else:
            self._loaded = True
            self._cpu_s = time.process_time()  # loading is nobody's
            if isinstance(self._driver, Waking):
                self._channel.watch(self._driver.wake_fd())
            self._channel.send(msg.Loaded(report))

    def _submit(self, message: msg.Submit) -> None:
        for item in message.items:
            try:
                self._check_awake()
                self._driver.submit(item)
            except LLMOSError as error:
                self._refused.append(Failed(item.request_id, error.to_info()))

    def _abort(self, message: msg.Abort) -> None:
        if self._parked:  # nobody is inside
            return
        for request_id in message.request_ids:
            self._driver.abort(request_id, message.reason)

    def _suspend(self, message: msg.Suspend) -> None:
        for request_id in message.request_ids:
            try:
                self._check_awake()
                snapshot = self._driver.suspend(request_id, message.folder)
                reply = msg.Suspended(request_id, snapshot)
            except LLMOSError as error:
                reply = msg.Suspended(request_id, None, error.to_info())
            self._channel.send(reply)

    def _resume(self, message: msg.Resume) -> None:
        try:
            self._check_awake()
            self._driver.resume(message.item, message.snapshot)
        except LLMOSError as error:
            self._refused.append(Failed(message.item.request_id, error.to_info()))

    def _park(self, _: msg.Park) -> None:
        try:
            if not self._loaded:
                raise EngineFailed("no model is loaded")
            reply = msg.Parked(self._driver.park())
            self._parked = True
        except LLMOSError as error:
            reply = msg.Parked(self._driver.memory(), error.to_info())
        self._channel.send(reply)

    def _unpark(self, _: msg.Unpark) -> None:
        try:
            if not self._loaded:
                raise EngineFailed("no model is loaded")
            memory = self._driver.unpark()
        except LLMOSError as error:
            self._channel.send(msg.LoadError(error.to_info()))
        else:
            self._parked = False
            self._channel.send(msg.Unparked(memory))

    def _check_awake(self) -> None:
        """The kernel unparks before it submits; what crossed a `Park` on its way is refused."""
        if self._parked:
            raise Conflict("the replica is parked")

    def _probe(self, message: msg.Probe) -> None:
        driver = self._driver
        self._channel.send(msg.Report(message.nonce, driver.health(), driver.memory()))

    def _shutdown(self, _: msg.Shutdown) -> None:
        if self._loaded:
            if isinstance(self._driver, Waking):
                self._channel.unwatch(self._driver.wake_fd())
            self._driver.unload()
        self._running = False

    def _each(self, verb: Callable[[str], None], request_ids: list[str]) -> None:
        for request_id in () if self._parked else request_ids:
            verb(request_id)


def engine_error(error: BaseException) -> LLMOSError:
    """What a worker says of an exception that ended it."""
    if isinstance(error, LLMOSError):
        return error
    return EngineFailed(f"{type(error).__name__}: {error}")
