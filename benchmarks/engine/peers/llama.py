"""llama.cpp through llama-cpp-python's low-level API, batched over sequences as its server does.

Each step decodes one token of every running sequence and fills the batch up with prompts. Weights:
GGUF in bf16, or its own quantizer's q8_0 and q4_0.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

from benchmarks.engine.peers import gguf_weights
from benchmarks.engine.peers.protocol import Request, Run, Setup, drive, made, serve

BATCH_TOKENS = 2048
MICRO_BATCH_TOKENS = 512
QUANTIZED = {"int8": "LLAMA_FTYPE_MOSTLY_Q8_0", "int4": "LLAMA_FTYPE_MOSTLY_Q4_0"}


class Sequence:
    """One request: what of the prompt is read, the token to decode next."""

    def __init__(self, index: int, request: Request) -> None:
        self.index, self.request = index, request
        self.num_read, self.num_new, self.last = 0, 0, -1


class LlamaCpp:
    """Continuous batching over `llama_decode`."""

    def __init__(self, api: Any, context: Any, num_vocab: int, num_slots: int) -> None:
        self._api, self._context, self._num_vocab = api, context, num_vocab
        self._batch = api.llama_batch_init(BATCH_TOKENS, 0, 1)
        self._sampler = api.llama_sampler_init_greedy()
        self._free = list(range(num_slots))
        self._running: dict[int, Sequence] = {}
        self._waiting: list[Sequence] = []

    def close(self) -> None:
        self._api.llama_batch_free(self._batch)
        self._api.llama_sampler_free(self._sampler)

    def add(self, index: int, request: Request) -> None:
        self._waiting.append(Sequence(index, request))

    def step(self) -> list[tuple[int, int]]:
        while self._free and self._waiting:
            self._running[self._free.pop()] = self._waiting.pop(0)
        self._batch.n_tokens = 0
        sampled = self._fill()
        if code := self._api.llama_decode(self._context, self._batch):
            raise RuntimeError(f"llama_decode: {code}")
        got = []
        for slot, row in sampled:
            sequence = self._running[slot]
            sequence.last = self._api.llama_sampler_sample(self._sampler, self._context, row)
            sequence.num_new += 1
            got.append((sequence.index, 1))
            if sequence.num_new == sequence.request.num_new:
                memory = self._api.llama_get_memory(self._context)
                self._api.llama_memory_seq_rm(memory, slot, -1, -1)
                del self._running[slot]
                self._free.append(slot)
        return got

    def _fill(self) -> list[tuple[int, int]]:
        """The step's batch; slots whose next token is drawn from it, and in which row."""
        sampled = []
        for slot, sequence in self._running.items():
            if sequence.num_new:
                at = len(sequence.request.prompt) + sequence.num_new - 1
                sampled.append((slot, self._put(slot, sequence.last, at, True)))
        for slot, sequence in self._running.items():
            prompt = sequence.request.prompt
            if sequence.num_new:
                continue
            while sequence.num_read < len(prompt) and self._batch.n_tokens < BATCH_TOKENS:
                at = sequence.num_read
                is_last = at == len(prompt) - 1
                row = self._put(slot, prompt[at], at, is_last)
                sequence.num_read += 1
                if is_last:
                    sampled.append((slot, row))
        return sampled

    def _put(self, slot: int, token: int, position: int, wants_logits: bool) -> int:
        batch = self._batch
        row = int(batch.n_tokens)
        batch.token[row], batch.pos[row], batch.n_seq_id[row] = token, position, 1
        batch.seq_id[row][0], batch.logits[row] = slot, wants_logits
        batch.n_tokens = row + 1
        return row


def weights(api: Any, setup: Setup) -> Path:
    """The GGUF file of the precision, made once."""
    plain, found = made(setup.cache, "llama-bf16.gguf")
    if not found:
        gguf_weights.write(Path(setup.model), Path(plain + ".made"))
        Path(plain + ".made").rename(plain)
    if setup.precision == "bf16":
        return Path(plain)
    target, found = made(setup.cache, f"llama-{setup.precision}.gguf")
    if not found:
        parameters = api.llama_model_quantize_default_params()
        parameters.ftype = getattr(api, QUANTIZED[setup.precision])
        parameters.nthread = setup.num_threads
        scratch = target + ".made"
        code = api.llama_model_quantize(plain.encode(), scratch.encode(), ctypes.byref(parameters))
        if code:
            raise RuntimeError(f"llama_model_quantize: {code}")
        Path(scratch).rename(target)
    return Path(target)


def load(setup: Setup) -> tuple[Run, dict[str, Any]]:
    """Convert if need be, open."""
    import llama_cpp as api

    api.llama_backend_init()
    path = weights(api, setup)
    model = api.llama_model_load_from_file(str(path).encode(), api.llama_model_default_params())
    if not model:
        raise RuntimeError(f"{path.name} cannot be loaded")
    parameters = api.llama_context_default_params()
    parameters.n_ctx = max(setup.context_tokens, 512 * setup.num_slots)
    parameters.n_batch, parameters.n_ubatch = BATCH_TOKENS, MICRO_BATCH_TOKENS
    parameters.n_seq_max = setup.num_slots
    parameters.kv_unified = True
    parameters.n_threads = parameters.n_threads_batch = setup.num_threads
    context = api.llama_init_from_model(model, parameters)
    if not context:
        raise RuntimeError("no context")
    num_vocab = api.llama_vocab_n_tokens(api.llama_model_get_vocab(model))

    def run(requests: list[Request]) -> list[list[float]]:
        batcher = LlamaCpp(api, context, num_vocab, setup.num_slots)
        try:
            return drive(batcher, requests)
        finally:
            batcher.close()

    return run, {"version": api.__version__}


if __name__ == "__main__":
    sys.exit(serve(load))
