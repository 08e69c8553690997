"""vLLM's CPU build, its engine in this process: bf16, compressed-tensors int8 (W8A8) and int4."""

from __future__ import annotations

import os
import sys
from typing import Any

from benchmarks.engine.peers import vllm_weights
from benchmarks.engine.peers.protocol import Request, Run, Setup, drive, serve

KV_GIB = 2
MAX_BATCHED_TOKENS = 2048


class Vllm:
    """Steps of an LLMEngine."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._seen: dict[str, int] = {}

    def add(self, index: int, request: Request) -> None:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=request.num_new,
            min_tokens=request.num_new,
            ignore_eos=True,
            detokenize=False,
        )
        self._seen[str(index)] = 0
        prompt = TokensPrompt(prompt_token_ids=request.prompt)
        self._engine.add_request(str(index), prompt, sampling)

    def step(self) -> list[tuple[int, int]]:
        got = []
        for output in self._engine.step():
            name = output.request_id.split("-")[0]
            total = len(output.outputs[0].token_ids)
            if total > self._seen[name]:
                got.append((int(name), total - self._seen[name]))
                self._seen[name] = total
        return got


def load(setup: Setup) -> tuple[Run, dict[str, Any]]:
    """Quantize if need be, compile (its cache is kept beside the weights), hand over."""
    # no thread of its own for the scheduler: two cores are all there is
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(KV_GIB)
    cores = sorted(os.sched_getaffinity(0))[: setup.num_threads]
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(map(str, cores))
    os.environ["VLLM_CACHE_ROOT"] = os.path.join(setup.cache, "vllm")  # noqa: PTH118
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    from vllm import EngineArgs, LLMEngine, __version__

    arguments = EngineArgs(
        model=str(vllm_weights.folder(setup)),
        dtype="bfloat16",
        max_model_len=setup.context_tokens,
        max_num_seqs=setup.num_slots,
        max_num_batched_tokens=MAX_BATCHED_TOKENS,
        skip_tokenizer_init=True,
        disable_log_stats=True,
    )
    engine = LLMEngine.from_engine_args(arguments)
    return lambda requests: drive(Vllm(engine), requests), {"version": __version__}


if __name__ == "__main__":
    sys.exit(serve(load))
