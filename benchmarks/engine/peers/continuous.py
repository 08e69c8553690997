"""Transformers' continuous batching (what `generate_batch` does), its loop kept between runs."""

from __future__ import annotations

import sys
import time
from typing import Any

from benchmarks.engine.peers.protocol import Request, Run, Setup, serve
from benchmarks.engine.peers.transformers import load_model

PAGE_TOKENS = 256
BATCH_TOKENS = 2048
RUN_TIMEOUT_S = 600.0


def load(setup: Setup) -> tuple[Run, dict[str, Any]]:
    """The model, and its batching in a thread that waits between runs."""
    import transformers
    from transformers import ContinuousBatchingConfig, GenerationConfig

    model = load_model(setup)
    num_pages = -(-max(setup.context_tokens, 512 * setup.num_slots) // PAGE_TOKENS)
    batching = ContinuousBatchingConfig(
        page_size=PAGE_TOKENS,
        num_blocks=num_pages,
        max_batch_tokens=BATCH_TOKENS,
        max_requests_per_batch=setup.num_slots,
    )
    generation = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
    manager = model.init_continuous_batching(generation, batching)
    manager.start()

    def run(requests: list[Request]) -> list[list[float]]:
        began = time.perf_counter()
        ids = [
            manager.add_request(
                request.prompt, max_new_tokens=request.num_new, record_timestamps=True
            )
            for request in requests
        ]
        done: dict[str, list[float]] = {}
        while len(done) < len(requests):
            result = manager.get_result(timeout=1.0)
            if result is not None and result.error:
                raise RuntimeError(result.error)
            if result is not None and result.is_finished():
                done[result.request_id] = [at - began for at in result.timestamps]
            elif not manager.is_running() or time.perf_counter() - began > RUN_TIMEOUT_S:
                raise RuntimeError("the batching thread has ended or does not go on")
        return [done[name] for name in ids]

    return run, {"version": transformers.__version__}


if __name__ == "__main__":
    sys.exit(serve(load))
