"""OpenVINO GenAI's pipeline of continuous batching as a `batcher` engine: one step, one pass."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np

from llmos.abi.inference import Sampling
from llmos.drivers.batcher.engine import Row
from llmos.drivers.openvino.library import library
from llmos.drivers.openvino.limits import BATCHED_TOKENS, BLOCK_TOKENS
from llmos.drivers.openvino.sampling import check_range, to_config
from llmos.errors import EngineFailed, InvalidRequest, LoadFailed

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """How a model is loaded. `precision` is what is computed in, by the engine's name."""

    folder: Path
    num_slots: int
    context_length: int
    num_threads: int
    precision: str
    kv_precision: str


class OpenVINOEngine:
    """Not thread-safe. Raises LoadFailed.

    Nothing is cached of one request for another: the engine would not tell tenants apart.
    """

    def __init__(self, plan: Plan) -> None:
        self._openvino, self._genai = library()
        scheduler = self._genai.SchedulerConfig()
        # a row that has left keeps its place and its blocks until the end of the next step
        scheduler.max_num_seqs = 2 * plan.num_slots
        scheduler.num_kv_blocks = (1 + plan.num_slots) * -(-plan.context_length // BLOCK_TOKENS)
        scheduler.max_num_batched_tokens = max(BATCHED_TOKENS, 2 * plan.num_slots)
        scheduler.dynamic_split_fuse = True
        scheduler.enable_prefix_caching = False
        properties = {
            "INFERENCE_PRECISION_HINT": plan.precision,
            "KV_CACHE_PRECISION": plan.kv_precision,
            "INFERENCE_NUM_THREADS": plan.num_threads,
            "PERFORMANCE_HINT": "LATENCY",
        }
        try:
            self._pipeline: Any = self._genai.ContinuousBatchingPipeline(
                str(plan.folder), scheduler, "CPU", properties
            )
        except (RuntimeError, ValueError, TypeError) as error:
            raise LoadFailed(f"OpenVINO: {_last_line(error)}") from error
        self._warm_tokens = max(1, min(BATCHED_TOKENS, plan.context_length - 2))
        self._handles: dict[Row, Any] = {}
        self._num_added = 0

    @property
    def kv_bytes(self) -> int:
        """Reserved for keys and values."""
        return int(self._pipeline.get_metrics().kv_cache_size_in_bytes)

    def check(self, sampling: Sampling, num_new: int) -> None:
        check_range(sampling)
        try:
            to_config(sampling, num_new, 0).validate()
        except (RuntimeError, ValueError, TypeError) as error:
            raise InvalidRequest(f"OpenVINO: {_last_line(error)}", param="sampling") from error

    def add(self, row: Row) -> None:
        self._num_added += 1
        config = to_config(row.item.sampling, row.num_left, row.next_seed)
        tokens = self._openvino.Tensor(np.array([row.known], dtype=np.int64))
        try:
            self._handles[row] = self._pipeline.add_request(self._num_added, tokens, config)
        except RuntimeError as error:
            row.error = EngineFailed(f"OpenVINO: {_last_line(error)}")

    def drop(self, row: Row) -> None:
        if handle := self._handles.pop(row, None):
            handle.cancel()

    def has_work(self) -> bool:
        return bool(self._handles)

    def is_well(self) -> bool:
        return self._pipeline is not None

    def poll(self) -> None:
        """One pass over the batch. Raises EngineFailed."""
        try:
            self._pipeline.step()
        except RuntimeError as error:
            raise EngineFailed(f"OpenVINO: {_last_line(error)}") from error
        status = self._genai.GenerationStatus
        for row, handle in list(self._handles.items()):
            while handle.can_read():
                for output in handle.read().values():
                    row.unsaid.extend(output.generated_ids)
            said = handle.get_status()
            if said == status.IGNORED:
                row.error = EngineFailed("OpenVINO had no room left for its keys and values")
            if said != status.RUNNING:
                del self._handles[row]

    def warm_up(self) -> None:
        """The largest pass there is, so that its memory is taken. Raises LoadFailed."""
        # a request whose handle nobody holds is given up: this one must outlive the loop
        config = to_config(Sampling(temperature=0.0), 2, 0)
        tokens = self._openvino.Tensor(np.zeros((1, self._warm_tokens), dtype=np.int64))
        try:
            handle = self._pipeline.add_request(1 << 62, tokens, config)
            while self._pipeline.has_non_finished_requests():
                self._pipeline.step()
            if handle.get_status() != self._genai.GenerationStatus.FINISHED:
                raise LoadFailed("OpenVINO: the first pass did not end")
        except RuntimeError as error:
            raise LoadFailed(f"OpenVINO: {_last_line(error)}") from error

    def close(self) -> None:
        self._handles.clear()
        self._pipeline = None


def _last_line(error: BaseException) -> str:
    """Of what it says, the end is for people: it begins with places in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:400] if lines else type(error).__name__
