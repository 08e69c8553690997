"""The loop of a program worker: the program in the main thread, the kernel's words in another."""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
from collections.abc import Callable
from pathlib import Path

from llmos.abi import worker as msg
from llmos.abi.channel import ChannelClosed
from llmos.abi.driver import Health, MemoryReport
from llmos.errors import ProtocolViolation
from llmos.ipc.blocking import BlockingChannel
from llmos.worker.capture import Capture
from llmos.worker.context import WorkerContext
from llmos.worker.entry import load_entry
from llmos.worker.nicer import be_nicer
from llmos.worker.outcome import Outcome, raised, returned
from llmos.worker.outlet import Outlet
from llmos.worker.signals import Signals

PULSE_S = 0.02
"""What a program tells is gathered for so long."""


WARM_AFTER_S = 0.5
WARM = ("llmos.programs.batch.program",)
"""A spare that nobody has needed for so long imports what takes longest to import."""


class ProgramLoop:
    """Runs one attempt, says how it ended, then waits to be shut down.

    `die` ends the process at once when the kernel is gone. `capture` takes what is printed.
    """

    def __init__(
        self,
        channel: BlockingChannel,
        folder: Path,
        die: Callable[[int], None] = os._exit,
        capture: bool = True,
    ) -> None:
        self._channel = channel
        self._folder = folder
        self._die = die
        self._captures = capture
        self._outlet = Outlet(channel)
        self._signals = Signals()
        self._run: msg.Run | None = None
        self._context: WorkerContext | None = None
        self._has_ended = threading.Event()
        self._pid = os.getpid()
        if capture:
            os.register_at_fork(after_in_child=self._disown)

    def run(self) -> None:
        """Until `Shutdown`. Never raises."""
        threading.Thread(target=self._listen, name="llmos-listener", daemon=True).start()
        if not self._await_run(WARM_AFTER_S):
            _warm()
            self._await_run(None)
        if self._run is not None:
            outcome = self._attempt(self._run)
            if os.getpid() != self._pid:  # a child that the program forked and let run on to here
                self._die(1)
            self._signals.end("the attempt is over")
            self._outlet.finish(outcome)
        self._has_ended.wait()

    def _await_run(self, timeout_s: float | None) -> bool:
        """True when it has come, or never will."""
        with self._signals.changed:
            return self._signals.changed.wait_for(
                lambda: self._run is not None or self._signals.is_over, timeout_s
            )

    def _disown(self) -> None:
        """In a forked child: the socket is not its own, and must not outlive its parent in it."""
        self._signals.abandon("a forked child has no context")
        self._channel.close()

    # the program's thread

    def _attempt(self, run: msg.Run) -> Outcome:
        try:
            scratch = self._folder / "work"
            scratch.mkdir(mode=0o700, exist_ok=True)
            context = WorkerContext(run, self._outlet, self._signals, scratch)
            capture = Capture(self._folder, context.teller) if self._captures else None
            if capture is not None:
                os.chdir(scratch)
            self._context = context
            with Pulse(context, capture):
                outcome = self._run_program(run, context)
            if capture is not None:
                capture.finish()
            context.settle()
            return outcome
        except BaseException as error:  # noqa: BLE001 - the disk, the store, our own: one outcome
            return raised(error, self._signals)

    def _run_program(self, run: msg.Run, context: WorkerContext) -> Outcome:
        """In this thread, and those it starts: the listener answers as promptly as ever."""
        try:
            if run.niceness:
                be_nicer(run.niceness)
            return returned(load_entry(run.entry)().run(context))
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is the outcome
            outcome = raised(error, self._signals)
            error.__traceback__ = None  # its frames hold the program's data
            return outcome

    # the listener's thread

    def _listen(self) -> None:
        try:
            while not self._has_ended.is_set():
                for message in self._channel.receive(None):
                    self._take(message)
            return
        except ChannelClosed:
            self._signals.end("the kernel is gone")
        except ProtocolViolation as error:
            self._outlet.finish(msg.Fatal(error.to_info()))
            self._signals.end("the kernel is not understood")
        self._has_ended.set()
        self._die(1)

    def _take(self, message: msg.ToWorker) -> None:
        if isinstance(message, msg.Probe):
            report = msg.Report(message.nonce, Health(True), MemoryReport(_rss_bytes()))
            self._outlet.report(report)
        elif isinstance(message, msg.Answers) and self._context is not None:
            self._context.on_answers(message)
        elif isinstance(message, msg.Replied) and self._context is not None:
            self._context.on_replied(message)
        elif isinstance(message, msg.Kept) and self._context is not None:
            self._context.on_kept(message)
        elif isinstance(message, msg.Gathered) and self._context is not None:
            self._context.on_gathered(message)
        elif isinstance(message, msg.Registered) and self._context is not None:
            self._context.on_registered(message)
        elif isinstance(message, msg.GiveWay):
            self._signals.give_way(message.reason, message.stop)
        elif isinstance(message, msg.Run) and self._run is None:
            with self._signals.changed:
                self._run = message
                self._signals.changed.notify_all()
        elif isinstance(message, msg.Shutdown):
            self._signals.end("the worker is shut down")
            self._has_ended.set()
        else:
            raise ProtocolViolation(f"a program worker was sent {type(message).__name__}")


class Pulse:
    """While it is entered, a thread sends what gathers. Nobody polls once it is left."""

    def __init__(self, context: WorkerContext, capture: Capture | None) -> None:
        self._context = context
        self._capture = capture
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="llmos-pulse", daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._over.wait(PULSE_S):
            if self._capture is not None:
                with contextlib.suppress(OSError):  # the disk's: lines are lost, results are not
                    self._capture.poll()
            self._context.pulse()


def _warm() -> None:
    for name in WARM:
        with contextlib.suppress(ImportError):  # another environment: its programs are others
            importlib.import_module(name)


def _rss_bytes() -> int:
    """Resident memory of this process; 0 where /proc is not known."""
    try:
        pages = Path("/proc/self/statm").read_text("ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
