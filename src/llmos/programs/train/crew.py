"""The other processes of a run: started, watched and ended by the first, which is the job's worker.

They are its children in its process group, so what freezes or kills the worker freezes or kills
them, and none outlives it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from llmos.abi.program import Context
from llmos.errors import ErrorInfo, LLMOSError, ProgramFailed, WorkerLost, from_info
from llmos.programs.train.libraries import be_quiet, import_all
from llmos.programs.train.post import LOST, Post
from llmos.programs.train.ranks import Ranks

BLAME_S = 10.0
"""Whoever took the others down has ended by then."""

POLL_S = 0.02

LEAVE_S = 30.0
"""Learning is over: whoever has not ended by then is killed."""


@contextlib.contextmanager
def crew(ctx: Context, num_processes: int, threads: int) -> Iterator[Ranks]:
    """The places of a run's processes, all of them joined. Raises what ended one of the others."""
    if num_processes == 1:
        yield Ranks()
        return
    others = Others(ctx, num_processes, threads)
    be_quiet()
    from llmos.programs.train import joining

    try:
        import_all()  # as the others do meanwhile
        with joining.joined(0, num_processes, threads, others.meeting, others.look) as ranks:
            yield ranks
        others.leave()
    except Exception as error:
        if joining.is_lost(error):
            others.blame(error)
        raise
    finally:
        others.end()


class Others:
    """All but the first."""

    def __init__(self, ctx: Context, num_processes: int, threads: int) -> None:
        self._size = num_processes
        self._scratch = Path(ctx.scratch)
        self.meeting = self._scratch / "meeting"
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        try:
            for rank in range(1, num_processes):
                self._running[rank] = self._start(ctx, rank, threads)
        except OSError as error:
            self.end()
            raise WorkerLost(f"process {rank} cannot be started: {error}") from error

    def _folder(self, rank: int) -> Path:
        return self._scratch / f"rank-{rank}"

    def _start(self, ctx: Context, rank: int, threads: int) -> subprocess.Popen[bytes]:
        folder = self._folder(rank)
        folder.mkdir()
        post = Post(
            rank=rank,
            size=self._size,
            threads=threads,
            parent_pid=os.getpid(),
            meeting=str(self.meeting),
            job_id=ctx.job_id,
            attempt=ctx.attempt,
            inputs=dict(ctx.inputs),
            files=dict(ctx.files),
            models=dict(ctx.models),
            scratch=str(folder),
            resumed_from=ctx.resumed_from,
        )
        file = folder / "post.json"
        file.write_bytes(msgspec.json.encode(post))
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "llmos.programs.train.rank", str(file)],
            stdin=subprocess.DEVNULL,
        )

    def look(self) -> None:
        """Raises what one of them ended with."""
        ended = {rank: process.poll() for rank, process in self._running.items()}
        found = {rank: code for rank, code in ended.items() if code and code != LOST}
        for rank, code in sorted(found.items(), key=lambda one: one[1]):  # signals first
            raise self._error_of(rank, code)

    def blame(self, error: BaseException) -> None:
        """Raises what the others ended with, if `error` is that one of them has gone."""
        until_s = time.monotonic() + BLAME_S
        while time.monotonic() < until_s:
            try:
                self.look()
            except LLMOSError as told:
                raise told from error
            time.sleep(POLL_S)

    def _error_of(self, rank: int, code: int) -> LLMOSError:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            told = (self._folder(rank) / "error.json").read_bytes()
            return from_info(msgspec.json.decode(told, type=ErrorInfo))
        which = f"process {rank} of {self._size}"
        if code < 0:
            return WorkerLost(
                f"{which} was killed by {_signal_name(-code)}: the others are stopped, the last "
                "good checkpoint is kept"
            )
        return ProgramFailed(
            f"{which} exited with {code}: the others are stopped, the last good checkpoint is kept"
        )

    def leave(self) -> None:
        """Returns when all have ended by themselves. Raises what one of them ended with."""
        until_s = time.monotonic() + LEAVE_S
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until_s - time.monotonic()))
        self.look()

    def end(self) -> None:
        """Kill those that are left."""
        for process in self._running.values():
            process.kill()
        for process in self._running.values():
            process.wait()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
