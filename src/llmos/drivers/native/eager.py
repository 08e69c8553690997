"""Transformers' own modules through torch, on any device, over slots of KV.

Prompts are read in forwards of their own, in chunks on an absolute grid; a decode is one forward of
all rows (`batch` says in which ways). What bits rest on is measured at load.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import transformers

from llmos.abi.driver import MemoryReport, ReplicaSpec
from llmos.drivers.adapters.folder import Adapted
from llmos.drivers.native import determinism, pages, sampling
from llmos.drivers.native.batch import Batch, DecodeMode
from llmos.drivers.native.compiled import Compiled
from llmos.drivers.native.failures import mapped
from llmos.drivers.native.kv import ParkedKV
from llmos.drivers.native.limits import LIMITS
from llmos.drivers.native.load import load_model
from llmos.drivers.native.machine import num_cores, processor_name
from llmos.drivers.native.memory import Accounts
from llmos.drivers.native.request import Request, in_order
from llmos.drivers.native.runner import Drawn, Grounds, ModelInfo
from llmos.drivers.native.sight import Eyes
from llmos.drivers.native.transfer import wait_for
from llmos.drivers.native.virtual import Virtual
from llmos.errors import EngineFailed, LoadFailed
from llmos.weights.footprint import scratch_bytes, sight_bytes
from llmos.weights.seeing import find_tower

_log = logging.getLogger(__name__)


class EagerRunner:
    """`Runner` over torch. Raises ModelRejected, LoadFailed."""

    def __init__(self, spec: ReplicaSpec, why: str, adapted: Adapted | None = None) -> None:
        self._virtual = Virtual(adapted)
        self.num_threads = spec.num_threads or _most_threads()
        torch.set_num_threads(self.num_threads)
        self.loaded = load_model(
            Path(spec.folder),
            dtype=spec.dtype,
            device=spec.device,
            context_length=spec.context_length + self._virtual.num_tokens,
            adapt=self._virtual.add,
        )
        self._eyes = Eyes(self.loaded, Path(spec.folder))
        self.num_slots = spec.num_slots
        self.num_guessed = self.num_accepted = 0
        self._cache = _cache_of(spec) if spec.options.get("compile", False) else None
        self._num_steps = 0
        self._owes_decode = False
        try:
            self.batch = Batch(self.loaded, spec.num_slots)
            # the proof also warms the kernels up
            alike = self.batch.rows_are_alike()
        except (RuntimeError, MemoryError, OSError, OverflowError) as error:
            raise LoadFailed(f"no room for the KV of {spec.num_slots} slots: {error}") from error
        self.batch.compiled = self._open_compiled()
        if not alike:
            _log.warning("equal rows differ on this machine: deterministic requests run singly")
        fixed = alike and not self.loaded.mixes_rows
        self.exact_mode = DecodeMode.FIXED if fixed else DecodeMode.SINGLE
        self.layers = [(s.num_heads, s.key_size, s.value_size) for s in self.batch.kv.shapes]
        self.info = self._info(why)
        self.grounds = Grounds(
            decode_mode=self.exact_mode.value,
            width=self.batch.width,
            prefill_chunk=LIMITS.prefill_chunk,
            engine=f"torch {torch.__version__}, transformers {transformers.__version__}",
            processor=processor_name(self.loaded.device),
        )
        pages.trim()
        scratch = scratch_bytes(self.loaded.shape(), spec.num_slots, self.loaded.context_length)
        scratch += sight_bytes(
            find_tower(Path(spec.folder)), spec.num_slots, self.loaded.dtype.itemsize
        )
        if self.batch.compiled is not None:
            scratch += self.batch.compiled.room_bytes
        self._accounts = Accounts(self.loaded.weights, self.batch.kv, self.loaded.device, scratch)

    def _open_compiled(self) -> Compiled | None:
        return None if self._cache is None else Compiled(self.loaded, self._cache)

    def _info(self, why: str) -> ModelInfo:
        loaded = self.loaded
        return ModelInfo(
            engine="torch",
            dtype=str(loaded.dtype).removeprefix("torch."),
            device=str(loaded.device),
            vocab_size=loaded.vocab_size,
            context_length=loaded.context_length - self._virtual.num_tokens,
            eos_ids=loaded.eos_ids,
            # who has steps compiled wants the fast ones, which deterministic steps are not
            exact_by_default=self._cache is None
            and determinism.is_default(loaded.device.type, loaded.dtype),
            why=why,
            virtual=self._virtual.ids(loaded.vocab_size),
        )

    # KV

    def seat(self, request: Request, slot: int) -> bool:
        if request.parked is not None:
            assert isinstance(request.parked, ParkedKV)
            with mapped():
                self.batch.kv.restore(slot, request.parked)
            request.parked = None
        if request.num_cached == 0:
            request.num_cached = self._virtual.begin(self.batch.kv, slot)
        return True

    def leave(self, request: Request, *, broken: bool = False) -> None:
        if broken and request.slot is not None:
            # whoever gets the slot next must not meet a NaN in what is masked away
            self.batch.kv.clear(request.slot, request.num_cached + LIMITS.prefill_chunk)

    def set_aside(self, request: Request) -> None:
        assert request.slot is not None
        with mapped():
            request.parked = self.batch.kv.park(request.slot, request.num_cached)

    def kv_bytes(self, num_tokens: int) -> int:
        return num_tokens * self.batch.kv.bytes_per_token

    def kv_of(self, request: Request) -> Iterable[torch.Tensor]:
        assert request.slot is not None
        return self.batch.kv.read_all(request.slot, request.num_cached)

    def empty_copy(self, num_tokens: int) -> ParkedKV:
        return self.batch.kv.empty_parked(num_tokens)

    # work

    def advance(self, running: list[Request]) -> list[Drawn]:
        """Prefill for a bounded time, decode one token of every running request.

        First tokens are not held back by a decode: those of a step leave without one, and the next
        step decodes whatever else it does.
        """
        self._num_steps += 1
        failed: list[Drawn] = []
        decoding = [request for request in running if not request.prefilling]
        prefilling = [request for request in running if request.prefilling]
        ready, logits = self._prefill(in_order(prefilling, self._num_steps), decoding, failed)
        if decoding and (self._owes_decode or not ready):
            self._owes_decode = False
            done = self._decode(decoding, failed)
            if done is not None:
                ready, logits = ready + decoding, [*logits, done]
        else:
            self._owes_decode = bool(decoding)
        return failed + (self._sample(ready, torch.cat(logits)) if ready else [])

    def _prefill(
        self, requests: list[Request], decoding: list[Request], failed: list[Drawn]
    ) -> tuple[list[Request], list[torch.Tensor]]:
        """Chunks of prompts in this order, as many as the time bound holds, at least one."""
        highest = max((request.item.service_class for request in decoding), default=None)
        began_s = time.monotonic()
        num_read = 0
        ready: list[Request] = []
        logits: list[torch.Tensor] = []
        for request in requests:
            bound_s = LIMITS.prefill_s_per_step
            if highest is not None and request.item.service_class > highest and not ready:
                bound_s = LIMITS.urgent_prefill_s_per_step
            until = began_s + bound_s
            last: torch.Tensor | None = None
            while request.prefilling and (num_read == 0 or time.monotonic() < until):
                start = request.num_cached
                end = min(len(request.to_read), start + LIMITS.prefill_chunk)
                assert request.slot is not None
                try:
                    with mapped():
                        if request.sight and not self._eyes.look(request.sight, start, end, until):
                            break
                        last = self._read(request, request.to_read[start:end])
                        wait_for(self.loaded.device)  # else the clock sees nothing of it
                except EngineFailed as error:
                    failed.append((request, error))
                    break
                request.num_cached = end
                num_read += 1
            else:
                if last is not None and not request.prefilling:
                    ready.append(request)
                    logits.append(last)
            if time.monotonic() >= until:
                break
        return ready, logits

    def _read(self, request: Request, tokens: list[int]) -> torch.Tensor:
        """Logits of the last of the tokens, 1V."""
        assert request.slot is not None
        start, sight = request.num_cached, request.sight
        seen = None if sight is None else self._eyes.read(sight, start, tokens)
        if not request.scores_prompt:
            return self.batch.prefill(request.slot, start, tokens, seen=seen)
        logits = self.batch.prefill(request.slot, start, tokens, len(tokens), seen)
        request.score(logits)
        return logits[-1:]

    def _decode(self, requests: list[Request], failed: list[Drawn]) -> torch.Tensor | None:
        exact = any(request.exact for request in requests)
        slots = [request.slot for request in requests if request.slot is not None]
        try:
            with mapped():
                logits = self.batch.decode(
                    slots,
                    [request.generated[-1] for request in requests],
                    [request.num_cached for request in requests],
                    self.exact_mode if exact else DecodeMode.PACKED,
                    [request.turn for request in requests],
                )
        except EngineFailed as error:
            failed += [(request, error) for request in requests]
            return None
        for request in requests:
            request.num_cached += 1
            request.only_exact = request.only_exact and exact
        return logits

    def _sample(self, requests: list[Request], logits: torch.Tensor) -> list[Drawn]:
        rows = [(request.sampler, len(request.generated)) for request in requests]
        try:
            with mapped(), torch.inference_mode():
                tokens = sampling.sample(logits, rows)
        except EngineFailed as error:
            return [(request, error) for request in requests]
        return [
            (request, NOT_FINITE if token is None else [token])
            for request, token in zip(requests, tokens, strict=True)
        ]

    # memory

    def park(self) -> None:
        if self._accounts.parked:
            return
        with mapped():
            self.close()
            self.batch.compiled = None
            self.loaded.weights.park()
            self.batch.kv.give_back()
            gc.collect()  # what a load left behind holds weights, too
            pages.trim()
        self._accounts.parked = True

    def unpark(self) -> None:
        if not self._accounts.parked:
            return
        self.loaded.weights.unpark()
        try:
            self.batch.kv.take()
        except (RuntimeError, MemoryError, OSError) as error:
            raise LoadFailed(f"no room for the KV: {error}") from error
        self.batch.compiled = self._open_compiled()
        self._accounts.parked = False

    def close(self) -> None:
        """Other memory goes with the last reference."""
        if self.batch.compiled is not None:
            self.batch.compiled.close()

    def progress(self) -> str:
        return "" if self.batch.compiled is None else self.batch.compiled.progress()

    def memory(self, requests: Sequence[Request]) -> MemoryReport:
        copies = sum(r.parked.size_bytes for r in requests if r.parked is not None)
        used = sum(r.num_cached for r in requests) * self.batch.kv.bytes_per_token
        return self._accounts.report(copies, used)


def _cache_of(spec: ReplicaSpec) -> Path:
    return (Path(spec.cache) if spec.cache else Path(spec.scratch) / "cache") / "torch"


def _most_threads() -> int:
    """One core is left to the server and its clients.

    An OpenMP region as wide as the machine stalls for milliseconds whenever another process wants a
    core.
    """
    return max(1, num_cores() - 1)


NOT_FINITE = EngineFailed("the model's logits are not finite")
