"""Looking after workers: who is silent, who stands still, and what that means for readiness."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable

from llmos.abi import worker as msg
from llmos.abi.channel import ChannelClosed
from llmos.errors import LLMOSError, WorkerLost
from llmos.kernel.config import KernelConfig
from llmos.kernel.worker import Worker, WorkerState

_AT_WORK = (WorkerState.LOADING, WorkerState.SERVING)


class Watch:
    """Called every `probe_interval_s`. `kill(worker, why)` ends one for good.

    A worker that we froze is left alone. One that somebody else stopped (SIGSTOP, a debugger) or
    that does not answer makes the server not ready at once, and is replaced after a time.
    """

    def __init__(
        self,
        workers: Callable[[], Iterable[Worker]],
        kill: Callable[[Worker, LLMOSError], None],
        config: KernelConfig,
    ) -> None:
        self._workers = workers
        self._kill = kill
        self._config = config
        self.troubles: list[tuple[Worker, str]] = []

    def look(self, now_s: float) -> None:
        """At every worker, now (monotonic seconds)."""
        troubles = []
        for worker in list(self._workers()):
            if worker.handle is None or worker.is_frozen:
                continue
            worker.handle.trim()
            trouble = self._stands_still(worker, now_s) or self._is_silent(worker, now_s)
            if trouble and worker.state in _AT_WORK:
                troubles.append((worker, trouble))
        self.troubles = troubles

    def _stands_still(self, worker: Worker, now_s: float) -> str | None:
        assert worker.handle is not None
        if not worker.handle.is_stopped():
            worker.stopped_s = None
            return None
        if worker.stopped_s is None:
            worker.stopped_s = now_s
        still_s = now_s - worker.stopped_s
        if still_s >= self._config.stopped_timeout_s:
            self._kill(worker, WorkerLost(f"the worker stood still for {still_s:.0f} s"))
        return "is stopped by a signal"

    def _is_silent(self, worker: Worker, now_s: float) -> str | None:
        """Asks who serves how it is; one question at a time."""
        assert worker.handle is not None
        if worker.state is not WorkerState.SERVING:
            return None
        if worker.probe_sent is None:
            worker.probe_sent = now_s
            with contextlib.suppress(ChannelClosed):
                worker.handle.channel.send(msg.Probe(0))
            return None
        silent_s = now_s - worker.probe_sent
        if silent_s > self._config.probe_timeout_s:
            self._kill(worker, WorkerLost(f"the worker was silent for {silent_s:.0f} s"))
        return f"says nothing for {silent_s:.0f} s" if silent_s > self._config.silent_s else None
