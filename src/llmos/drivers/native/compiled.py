"""Packed steps compiled by torch, in the background; who asks for one meanwhile gets none.

A forward is compiled for one width, a power of two, when a step first comes up to it. Attention is
one operation in its graph (`attention.OpaquePlan`), so that neither lengths nor places of keys are
part of what is compiled. Results differ from the eager ones by rounding: deterministic steps never
come here (ADR 26).
"""

# ruff: noqa: N803, N806 (tensor names carry their shape)
from __future__ import annotations

import copy
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llmos.drivers.native.attention import NoPlan, OpaquePlan, Plan, running
from llmos.drivers.native.failures import mapped
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.load import LoadedModel
from llmos.errors import EngineFailed

_log = logging.getLogger(__name__)

_compiling = threading.Lock()
"""One at a time in a process: a replica that was parked may not be done when it is back."""

COMPILER_BYTES = 256 << 20
"""What torch's compiler takes itself, its modules included."""


def options_for(device: torch.device) -> dict[str, Any]:
    """What inductor is told. On a processor weights are frozen: packed as its kernels want them.

    On CUDA the parts between attentions are CUDA graphs (the mode `reduce-overhead`).
    """
    if device.type == "cpu":
        return {"freezing": True}
    if device.type == "cuda":
        return {"triton.cudagraphs": True, "graph_partition": True}
    return {}


def width_of(num_rows: int) -> int:
    """The width that so many rows are filled up to."""
    return 1 << (num_rows - 1).bit_length()


class Forward:
    """One width. `run` gives None where what was compiled does not hold for the caller."""

    def __init__(self, model: torch.nn.Module, width: int, device: torch.device) -> None:
        self.width = width
        self._device = device
        self._num_eager = 0
        plan = OpaquePlan()

        def forward(ids_B1: torch.Tensor, positions_B1: torch.Tensor) -> torch.Tensor:
            if not torch.compiler.is_compiling():
                self._num_eager += 1
            out = model(
                input_ids=ids_B1,
                position_ids=positions_B1,
                use_cache=False,
                logits_to_keep=1,
                llmos_plan=plan,
            )
            logits_BV: torch.Tensor = out.logits[:, -1]
            return logits_BV

        # what is compiled is kept with the code: it goes when this does
        forward.__code__ = forward.__code__.replace()
        self._compile: Callable[..., torch.Tensor] = torch.compile(
            forward, fullgraph=True, dynamic=False
        )
        self._ready: Callable[..., torch.Tensor] = torch._dynamo.run(forward)

    def compile(self) -> None:
        """Takes seconds to minutes. Raises whatever the compiler does."""
        from torch._inductor import config  # takes a second

        # tracing has to know as well, or weights stay inputs and are not frozen
        told = config.patch(options_for(self._device))
        try:
            with told, torch.inference_mode(), torch.no_grad(), running(NoPlan()):
                rows_B1 = torch.tensor([0] * self.width, device=self._device)[:, None]
                self._compile(rows_B1, rows_B1.clone())
        except torch._dynamo.exc.BackendCompilerFailed as error:
            raise error.inner_exception from error  # what it says itself is who said it

    def run(
        self, ids_B1: torch.Tensor, positions_B1: torch.Tensor, plan: Plan
    ) -> torch.Tensor | None:
        """Logits BV, in a thread that compiles nothing."""
        before = self._num_eager
        with torch.no_grad(), running(plan):
            logits_BV = self._ready(ids_B1, positions_B1)
        return logits_BV if self._num_eager == before else None


class Compiled:
    """The forwards of one model that are ready. `find` and `run` are for the thread of the steps.

    `cache`: a folder for compiled code, found again by later workers.
    """

    def __init__(self, loaded: LoadedModel, cache: Path) -> None:
        self._loaded = loaded
        self._cache = cache
        self._num_threads = torch.get_num_threads()
        self._wanted: list[int] = []
        self._ready: dict[int, Forward] = {}
        self._failure = ""
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def room_bytes(self) -> int:
        """What all of them may come to take beside the model."""
        copies = LIMITS.compiled_widths if self._loaded.device.type == "cpu" else 0
        return COMPILER_BYTES + copies * self._loaded.weights.size_bytes

    def find(self, num_rows: int) -> Forward | None:
        """One for so many rows; None: not yet, or not at all."""
        width = width_of(num_rows)
        found = self._ready.get(width)
        if found is None and width not in self._wanted:
            self._want(width)
        return found

    def run(
        self, forward: Forward, ids_B1: torch.Tensor, positions_B1: torch.Tensor, plan: Plan
    ) -> torch.Tensor | None:
        """Logits BV. None: it cannot be had, now or later; an eager step has to do."""
        try:
            with mapped():
                logits_BV = forward.run(ids_B1, positions_B1, plan)
            if logits_BV is not None:
                return logits_BV
            self._fail("what was compiled does not hold for the steps")
        except EngineFailed as error:
            self._fail(error.message)
        self._drop()
        return None

    def progress(self) -> str:
        """How far it is, for people."""
        if self._failure:
            return f"not compiled: {self._failure}"
        num_ready, num_wanted = len(self._ready), len(self._wanted)
        if num_ready < num_wanted:
            return f"compiling {num_ready + 1} of {num_wanted}"
        if not num_ready:
            return ""
        return f"compiled for {', '.join(map(str, sorted(self._ready)))} rows"

    def wait(self, timeout_s: float) -> bool:
        """Until all that is wanted is compiled or has failed; False: not in this time."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    def close(self) -> None:
        """Give everything back; what is being compiled, when that is done. For good."""
        with self._lock:
            self._closed = True
            if self._thread is None:
                self._drop()

    # in the background

    def _want(self, width: int) -> None:
        with self._lock:
            if self._failure or self._closed or len(self._wanted) >= LIMITS.compiled_widths:
                return
            self._wanted.append(width)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="compiling", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        try:
            with mapped():
                self._prepare()
                model = _sharing(self._loaded.model)
                while (width := self._next()) is not None:
                    self._compile(model, width)
        except EngineFailed as error:
            self._fail(error.message)
            with self._lock:
                self._thread = None

    def _next(self) -> int | None:
        """The next width; None, and no thread any more, where there is none."""
        with self._lock:
            width = next((w for w in self._wanted if w not in self._ready), None)
            if width is None or self._closed:
                self._thread = None
                if self._closed:
                    self._drop()
                return None
            return width

    def _prepare(self) -> None:
        self._cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(self._cache)
        from torch._inductor import config

        # compiling is not in a hurry, and workers of its own would outlive a killed one
        config.compile_threads = 1
        torch.set_num_threads(self._num_threads)

    def _compile(self, model: torch.nn.Module, width: int) -> None:
        began_s = time.monotonic()
        forward = Forward(model, width, self._loaded.device)
        with _compiling:
            forward.compile()
        _log.info("compiled for %d rows in %.1f s", width, time.monotonic() - began_s)
        self._ready[width] = forward

    def _fail(self, why: str) -> None:
        if not self._failure:
            self._failure = why
            _log.warning("not compiled, steps stay eager: %s", why)

    def _drop(self) -> None:
        if not self._wanted:
            return
        self._ready.clear()
        from torch._inductor.codecache import PyCodeCache

        PyCodeCache.cache_clear()  # it holds frozen weights


def _sharing(model: torch.nn.Module) -> torch.nn.Module:
    """A model of its own over the same weights: parking takes the first one's tensors away, at a
    time when this one may be in use."""
    memo: dict[int, Any] = {}
    for parameter in model.parameters():
        memo[id(parameter)] = torch.nn.Parameter(parameter.detach(), requires_grad=False)
    for buffer in model.buffers():
        memo[id(buffer)] = buffer.detach()
    return copy.deepcopy(model, memo)
