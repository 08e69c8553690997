"""One loaded model in llama.cpp: batches in, logits out, and the state of each sequence.

Every row of the batch has a sequence, and every sequence keys and values of its own
(`kv_unified` false), so that a row's place says nothing about its numbers.
"""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llmos.drivers.gguf.library import last_words, library
from llmos.drivers.gguf.limits import LIMITS
from llmos.drivers.gguf.vocab import Vocab, open_model
from llmos.errors import EngineFailed, LoadFailed

Logits = NDArray[np.float32]


@dataclasses.dataclass(frozen=True, slots=True)
class Rows:
    """Tokens of one sequence, from `start` on; `wanted`: logits after the last of them."""

    slot: int
    start: int
    tokens: Sequence[int]
    wanted: bool


class Engine:
    """Not thread-safe. Raises LoadFailed, ModelRejected."""

    def __init__(
        self,
        path: Path,
        *,
        num_slots: int,
        context_length: int,
        num_threads: int,
        kv_dtype: str,
        progress: Callable[[float], None],
    ) -> None:
        self._lib = lib = library()

        def tell(fraction: float, _: Any) -> bool:
            progress(fraction)
            return True

        self.num_slots = num_slots
        self._context: Any = None
        self._model = open_model(path, progress_callback=lib.llama_progress_callback(tell))
        self.vocab = Vocab(self._model)
        self.trained_length = int(lib.llama_model_n_ctx_train(self._model))
        self._num_tokens = max(LIMITS.prefill_tokens, LIMITS.exact_chunk) + num_slots
        self._context = lib.llama_init_from_model(
            self._model, self._params(context_length, num_threads, kv_dtype)
        )
        if not self._context:
            self.close()
            raise LoadFailed(f"no context of {num_slots} x {context_length}: {last_words()}")
        self._memory = lib.llama_get_memory(self._context)
        self.slot_tokens = int(lib.llama_n_ctx_seq(self._context))
        self._make_batch()

    def _params(self, context_length: int, num_threads: int, kv_dtype: str) -> Any:
        lib = self._lib
        given = lib.llama_context_default_params()
        given.n_ctx = context_length * self.num_slots
        given.n_seq_max = self.num_slots
        given.n_batch = self._num_tokens
        given.n_ubatch = self._num_tokens
        given.n_outputs_max = self.num_slots
        given.n_threads = given.n_threads_batch = num_threads
        given.type_k = given.type_v = (
            lib.GGML_TYPE_F32 if kv_dtype == "float32" else lib.GGML_TYPE_F16
        )
        given.flash_attn_type = lib.LLAMA_FLASH_ATTN_TYPE_DISABLED
        given.offload_kqv = given.op_offload = False
        given.kv_unified = False
        return given

    def _make_batch(self) -> None:
        """Arrays that llama.cpp reads; NumPy fills them."""
        lib, size = self._lib, self._num_tokens
        self._tokens = np.zeros(size, np.int32)
        self._places = np.zeros(size, np.int32)
        self._slots = np.zeros(size, np.int32)
        self._ones = np.ones(size, np.int32)
        self._wanted = np.zeros(size, np.int8)
        at = self._slots.ctypes.data
        one = ctypes.POINTER(ctypes.c_int32)
        self._slot_of = (one * size)(*(ctypes.cast(at + 4 * number, one) for number in range(size)))
        self._batch = lib.llama_batch(
            n_tokens=0,
            token=self._tokens.ctypes.data_as(one),
            embd=None,
            pos=self._places.ctypes.data_as(one),
            n_seq_id=self._ones.ctypes.data_as(one),
            seq_id=ctypes.cast(self._slot_of, ctypes.POINTER(one)),
            logits=self._wanted.ctypes.data_as(ctypes.POINTER(ctypes.c_int8)),
        )

    def close(self) -> None:
        """Give everything back. Idempotent."""
        if self._context:
            self._lib.llama_free(self._context)
        if self._model:
            self._lib.llama_model_free(self._model)
        self._context = self._model = None

    @property
    def weights_bytes(self) -> int:
        return int(self._lib.llama_model_size(self._model))

    def decode(self, rows: Sequence[Rows]) -> Logits:
        """One pass over all of these: logits of the rows that want them, in order, valid until the
        next pass. Raises EngineFailed; then nothing of these rows can be relied on."""
        at = 0
        for row in rows:
            end = at + len(row.tokens)
            self._tokens[at:end] = row.tokens
            self._places[at:end] = np.arange(row.start, row.start + len(row.tokens))
            self._slots[at:end] = row.slot
            self._wanted[at:end] = 0
            self._wanted[end - 1] = row.wanted
            at = end
        self._batch.n_tokens = at
        status = self._lib.llama_decode(self._context, self._batch)
        if status != 0:
            raise EngineFailed(f"llama.cpp ended with {status}: {last_words()}")
        num_wanted = sum(row.wanted for row in rows)
        if not num_wanted:
            return np.empty((0, self.vocab.size), np.float32)
        first = self._lib.llama_get_logits(self._context)
        return np.ctypeslib.as_array(first, (num_wanted, self.vocab.size))

    def warm_up(self) -> None:
        """The largest pass there is, so that all memory is taken; nothing is left of it."""
        num_read = min(self._num_tokens - self.num_slots, self.slot_tokens - 1)
        rows = [Rows(slot, 0, [0], wanted=True) for slot in range(1, self.num_slots)]
        self.decode([*rows, Rows(0, 0, [0] * num_read, wanted=True)])
        self._lib.llama_memory_clear(self._memory, True)

    def forget(self, slot: int) -> None:
        """Its sequence is empty then."""
        self._lib.llama_memory_seq_rm(self._memory, slot, -1, -1)

    def scrub(self, slots: Sequence[int]) -> None:
        """Zeroes everywhere but in these sequences: what was forgotten is masked, and a NaN there
        would come through the mask."""
        kept = {slot: self.state(slot) for slot in slots}
        self._lib.llama_memory_clear(self._memory, True)
        for slot, state in kept.items():
            self.restore(slot, state)

    def state(self, slot: int) -> memoryview:
        """A copy of a sequence's keys and values. Raises EngineFailed."""
        size = int(self._lib.llama_state_seq_get_size(self._context, slot))
        buffer = (ctypes.c_uint8 * size)()
        if self._lib.llama_state_seq_get_data(self._context, buffer, size, slot) != size:
            raise EngineFailed(f"the state of a sequence cannot be read: {last_words()}")
        return memoryview(buffer).cast("B")

    def restore(self, slot: int, state: memoryview) -> None:
        """Into an empty sequence. Raises EngineFailed."""
        buffer = (ctypes.c_uint8 * len(state)).from_buffer(state)
        if self._lib.llama_state_seq_set_data(self._context, buffer, len(state), slot) == 0:
            self.forget(slot)
            raise EngineFailed(f"the state of a sequence cannot be used: {last_words()}")
