"""The NodeAgent of this machine: workers are subprocesses on a socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from pathlib import Path

from llmos.abi.node import WorkerSpec
from llmos.errors import WorkerError
from llmos.ipc.codec import kernel_codec
from llmos.ipc.stream import StreamChannel, connect

LAST_WORDS_CHARS = 2000
MAX_STDERR_BYTES = 8 * 1024 * 1024


class LocalWorker:
    """A subprocess in a process group of its own."""

    def __init__(
        self, process: asyncio.subprocess.Process, channel: StreamChannel, stderr: Path
    ) -> None:
        self._process = process
        self._channel = channel
        self._stderr = stderr

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def channel(self) -> StreamChannel:
        return self._channel

    async def wait(self) -> int:
        return await self._process.wait()

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def trim(self) -> None:
        with contextlib.suppress(OSError):
            if self._stderr.stat().st_size > MAX_STDERR_BYTES:
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
    """

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env

    async def start(self, spec: WorkerSpec) -> LocalWorker:
        ours, theirs = socket.socketpair()
        scratch = Path(spec.scratch)
        stderr = scratch / "stderr.log"
        try:
            os.makedirs(scratch, mode=0o700, exist_ok=True)  # noqa: PTH103 - one short local call
            with theirs, stderr.open("ab") as log:
                process = await asyncio.create_subprocess_exec(
                    spec.python or sys.executable,
                    *("-m", "llmos.worker", str(theirs.fileno()), str(os.getpid())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=scratch,
                    env=self._env | spec.env,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except OSError as error:
            ours.close()
            raise WorkerError(f"a worker cannot be started: {error}") from error
        try:
            return LocalWorker(process, await connect(ours, kernel_codec()), stderr)
        except OSError as error:
            process.kill()
            await process.wait()
            raise WorkerError(f"a worker cannot be reached: {error}") from error

    def memory_bytes(self) -> tuple[int, int]:
        """From /proc/meminfo, within the container's own limit where there is one."""
        total, available = _meminfo()
        limit = _cgroup_limit()
        return (total, available) if limit is None else (min(total, limit), min(available, limit))


def _meminfo() -> tuple[int, int]:
    fields = {}
    for line in Path("/proc/meminfo").read_text("ascii").splitlines():
        name, _, value = line.partition(":")
        fields[name] = int(value.split()[0]) * 1024
    return fields["MemTotal"], fields["MemAvailable"]


def _cgroup_limit() -> int | None:
    """The memory limit of cgroup v2 or v1 in bytes; None when there is none."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            limit = int(Path(path).read_text("ascii"))
            return limit if limit < 1 << 60 else None
    return None
