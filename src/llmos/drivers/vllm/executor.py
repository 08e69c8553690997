"""What vLLM runs in its own processes of ours: they end when the worker does."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

from vllm.v1.executor.multiproc_executor import MultiprocExecutor

_PR_SET_PDEATHSIG = 1


class BoundExecutor(MultiprocExecutor):  # type: ignore[misc]
    """vLLM's own. It is made in the process of the engine, which nobody else tells that the worker
    is gone; its own workers hear of it by a pipe."""

    def _init_executor(self) -> None:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == 1:
                os._exit(1)
        super()._init_executor()
