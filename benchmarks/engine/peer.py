"""A peer's program as the parent sees it: started, run, frozen while it is not its turn."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from benchmarks import models
from benchmarks.engine import environments
from benchmarks.engine.environments import Absent, Peer
from benchmarks.engine.peers.protocol import Request, Setup, encode_setup
from benchmarks.harness import ROOT

PROGRAMS = "benchmarks.engine.peers"
START_TIMEOUT_S = 900.0
RUN_TIMEOUT_S = 600.0
STOP_TIMEOUT_S = 10.0
READ_BYTES = 1 << 16
UNWANTED = ("PYTHON", "VIRTUAL_ENV", "LD_PRELOAD")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}


def setup(model: str, precision: str, num_threads: int, num_slots: int, context: int) -> Setup:
    """What every peer is told."""
    cache = models.cache() / f"{model}-peers-v{models.VERSION}"
    folder = str(models.folder(model))
    return Setup(folder, precision, num_threads, num_slots, context, str(cache))


class Running:
    """One program in a process group of its own; between runs it is stopped, so that it rests."""

    def __init__(self, peer: Peer, setup: Setup) -> None:
        """Started, its model loaded, frozen. Raises Absent."""
        if setup.precision not in peer.precisions:
            raise Absent(f"has no {setup.precision}")
        interpreter = environments.python(peer.environment)
        self.peer = peer
        self._log = environments.folder(peer.name).with_name(
            f"{peer.name}-{Path(setup.cache).name}-{setup.precision}.log"
        )
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(interpreter), "-m", f"{PROGRAMS}.{peer.module}", encode_setup(setup)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(setup.num_threads, interpreter, peer.preload),
                start_new_session=True,
            )
        self._buffer = b""
        try:
            self.facts = dict(self._read(START_TIMEOUT_S)["ready"])
        except BaseException:
            self.stop()
            raise
        self._signal(signal.SIGSTOP)

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def run(self, requests: list[Request]) -> list[list[float]]:
        """When each token of each request came. Raises Absent when it breaks."""
        self._signal(signal.SIGCONT)
        body = [{"prompt": r.prompt, "num_new": r.num_new, "due_s": r.due_s} for r in requests]
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"requests": body}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError as error:
            raise Absent(f"ended: {environments.last_lines(self._log)}") from error
        last_s = max(request.due_s for request in requests)
        token_s: list[list[float]] = self._read(RUN_TIMEOUT_S + last_s)["token_s"]
        self._signal(signal.SIGSTOP)
        return token_s

    def _read(self, timeout_s: float) -> dict[str, Any]:
        """The next line."""
        assert self._process.stdout is not None
        descriptor, deadline = self._process.stdout.fileno(), time.monotonic() + timeout_s
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([descriptor], [], [], deadline - time.monotonic())
            if not ready:
                raise Absent(f"no answer in {timeout_s:.0f} s")
            data = os.read(descriptor, READ_BYTES)
            if not data:
                raise Absent(f"ended: {environments.last_lines(self._log)}")
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    def stop(self) -> None:
        """Idempotent; also what it has started."""
        self._signal(signal.SIGKILL)
        self._process.wait(STOP_TIMEOUT_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def environment(num_threads: int, interpreter: Path, preload: str = "") -> dict[str, str]:
    """Ours without what would reach into the peer's imports; its tools are found first."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(UNWANTED)}
    path = f"{interpreter.parent}{os.pathsep}{kept.get('PATH', '')}"
    if preload:
        kept["LD_PRELOAD"] = str(interpreter.parent.parent / preload)
    return {**kept, **OFFLINE, "PATH": path, "OMP_NUM_THREADS": str(num_threads)}
