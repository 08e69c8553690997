"""The NodeAgent of this machine: workers are subprocesses on a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

import llmos
from llmos.abi.node import DeviceInfo, NodeMemory, WorkerSpec
from llmos.abi.spent import NodeEnergy
from llmos.cluster import memory, proc
from llmos.cluster.devices import Devices
from llmos.cluster.energy import Energy
from llmos.cluster.leftovers import Notebook
from llmos.errors import WorkerError
from llmos.ipc.codec import kernel_codec
from llmos.ipc.stream import StreamChannel, connect

LAST_WORDS_CHARS = 2000
MAX_STDERR_BYTES = 8 * 1024 * 1024

OURS = Path(llmos.__file__).resolve().parent
"""The package."""

OOM_SCORE = 500
"""Added to a worker's badness (0 to 1000): where memory ends, the system kills one of them and not
the server."""


class LocalWorker:
    """A subprocess in a process group of its own."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        channel: StreamChannel,
        stderr: Path,
        notebook: Notebook | None,
    ) -> None:
        self._process = process
        self._channel = channel
        self._stderr = stderr
        self._notebook = notebook

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def channel(self) -> StreamChannel:
        return self._channel

    async def wait(self) -> int:
        status = await self._process.wait()
        if self._notebook is not None:
            self._notebook.remove(self.pid)
        return status

    def kill(self) -> None:
        self._signal(signal.SIGKILL)

    def freeze(self) -> None:
        if self._process.returncode is None:
            self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process.returncode is None:
            self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def is_stopped(self) -> bool:
        if self._process.returncode is not None:
            return False
        stat = proc.find_stat(self._process.pid)
        return stat is not None and stat.state in {"T", "t"}

    def rss_bytes(self) -> int:
        if self._process.returncode is not None:
            return 0
        return proc.tree_rss_bytes(self._process.pid)

    def cpu_s(self) -> float:
        if self._process.returncode is not None:
            return 0.0
        return proc.tree_cpu_s(self._process.pid)

    def trim(self) -> None:
        with contextlib.suppress(OSError):
            # what it takes, not how long it is: a program worker makes holes in it
            if self._stderr.stat().st_blocks * 512 > MAX_STDERR_BYTES:
                os.truncate(self._stderr, 0)

    def last_words(self) -> str:
        try:
            with self._stderr.open("rb") as file:
                file.seek(max(0, self._stderr.stat().st_size - 4 * LAST_WORDS_CHARS))
                return file.read().decode("utf-8", "replace")[-LAST_WORDS_CHARS:].strip()
        except OSError:
            return ""


class LocalNode:
    """Starts `python -m llmos.worker` with one inherited socket.

    `env` is all a worker learns of our environment: a worker's own `spec.env` is laid over it.
    With `run`, a folder of the home, workers are written down there, and `reap` kills what an
    earlier server left.
    """

    def __init__(self, env: dict[str, str], run: Path | None = None) -> None:
        self._env = env
        self._devices = Devices(env)
        self._energy = Energy(env)
        self._notebook = None if run is None else Notebook(run / "workers")

    def reap(self) -> int:
        """Kill the workers of a dead server of this home; how many processes that were. Blocking,
        once, before the first `start`."""
        return 0 if self._notebook is None else self._notebook.reap()

    async def start(self, spec: WorkerSpec) -> LocalWorker:
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:  # no file is left to open
            raise WorkerError(f"a worker cannot be started: {error}") from error
        scratch = Path(spec.scratch)
        stderr = scratch / "stderr.log"
        try:
            os.makedirs(scratch, mode=0o700, exist_ok=True)  # noqa: PTH103 - one short local call
            env = self._env | (_lent(scratch) if spec.python else {}) | spec.env
            with theirs, stderr.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    spec.python or sys.executable,
                    *("-P", "-m", "llmos.worker", str(theirs.fileno()), str(os.getpid())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=scratch,
                    env=env,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise WorkerError(f"a worker cannot be started: {error}") from error
        try:
            if self._notebook is not None:
                self._notebook.add(process.pid, scratch)
            _prefer_to_kill(process.pid)
            channel = await connect(ours, kernel_codec())
            return LocalWorker(process, channel, stderr, self._notebook)
        except OSError as error:
            ours.close()
            process.kill()
            await process.wait()
            raise WorkerError(f"a worker cannot be reached: {error}") from error

    def measure(self) -> NodeMemory:
        """From /proc and the container's own limits."""
        return memory.measure()

    def energy(self) -> NodeEnergy:
        """From RAPL and NVML where they answer."""
        return self._energy.read()

    def memory_bytes(self) -> tuple[int, int]:
        """See `abi.NodeAgent`."""
        found = self.measure()
        return found.total_bytes, found.available_bytes or 0

    async def devices(self) -> list[DeviceInfo]:
        """NVIDIA's, those that workers see."""
        return await self._devices.current()


def _lent(scratch: Path) -> dict[str, str]:
    """Our own code, and nothing else of our environment, for an interpreter of another one: what
    is installed there needs no copy of it that could be of another version."""
    folder = scratch / "lent"
    folder.mkdir(exist_ok=True)
    link = folder / OURS.name
    if not link.is_symlink():
        link.symlink_to(OURS)
    return {"PYTHONPATH": str(folder)}


def _prefer_to_kill(pid: int) -> None:
    with contextlib.suppress(OSError):
        (proc.PROC / str(pid) / "oom_score_adj").write_text(str(OOM_SCORE), "ascii")
