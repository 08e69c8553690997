"""A real worker of any driver, and the kernel's end of its socket."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

from llmos.abi import ABI_VERSION
from llmos.abi import worker as msg
from llmos.abi.driver import ReplicaSpec
from llmos.abi.events import Event
from llmos.drivers.catalog import DRIVERS
from llmos.ipc.blocking import BlockingChannel
from llmos.ipc.codec import kernel_codec

PATIENCE_S = 120.0


class WorkerProcess:
    """`python -m llmos.worker` with a replica, loaded."""

    def __init__(self, spec: ReplicaSpec, driver: str = "native") -> None:
        self._ours, theirs = socket.socketpair()
        kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
        self.process = subprocess.Popen(
            [
                DRIVERS[driver].python or sys.executable,
                *("-m", "llmos.worker", str(theirs.fileno()), str(os.getpid())),
            ],
            pass_fds=(theirs.fileno(),),
            stderr=subprocess.DEVNULL,
            env=kept | {"OMP_NUM_THREADS": "1"},
        )
        theirs.close()
        self._channel = BlockingChannel(self._ours, kernel_codec())
        self._seen: list[object] = []
        self.send(msg.Hello(ABI_VERSION, "wrk_1", msg.WorkerRole.REPLICA, DRIVERS[driver].entry))
        self.until(msg.Ready)
        self.send(msg.Load(spec))
        self.until(msg.Loaded)

    def send(self, message: object) -> None:
        self._channel.send(message)

    def events(self) -> list[Event]:
        """Of the next message of a step."""
        step = self.until(msg.Step)
        assert isinstance(step, msg.Step)
        return step.events

    def until(self, *kinds: type) -> object:
        """The next message, which is one of these. Raises ChannelClosed when the worker is gone."""
        while not self._seen:
            received = self._channel.receive(PATIENCE_S)
            assert received, "the worker says nothing"
            self._seen += [m for m in received if not isinstance(m, msg.Progress)]
        message = self._seen.pop(0)
        assert isinstance(message, kinds), message
        return message

    def crash(self) -> None:
        """As the system does it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._ours.close()
