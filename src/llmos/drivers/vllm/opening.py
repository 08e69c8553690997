"""A model into vLLM: what it is asked for, what it takes, and what it cannot do here."""

from __future__ import annotations

import math
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

from llmos.abi.driver import ReplicaSpec
from llmos.drivers.batcher.engine import Opened, Progress
from llmos.drivers.catalog import say_missing
from llmos.drivers.resident import read_family
from llmos.drivers.text.folder import find_ends
from llmos.drivers.vllm.engine import VLLMEngine
from llmos.drivers.vllm.limits import BATCHED_TOKENS, BLOCK_TOKENS, ROOM_BYTES
from llmos.drivers.vllm.line import Line
from llmos.drivers.vllm.settings import variables
from llmos.errors import LoadFailed, ModelRejected
from llmos.weights import ModelFacts
from llmos.weights.dtypes import ITEM_BYTES

EXECUTOR = "llmos.drivers.vllm.executor.BoundExecutor"
OPTIONS = {"eager"}
COMPILERS = ("g++", "c++", "clang++")


def open_vllm(spec: ReplicaSpec, facts: ModelFacts, progress: Progress) -> Opened:
    """Raises LoadFailed, ModelRejected."""
    unknown = sorted(set(spec.options) - OPTIONS)
    if unknown:
        raise LoadFailed(f"the vllm driver has no option {', '.join(unknown)[:200]}")
    eager, told = choose_eager(spec.options.get("eager"))
    dtype = choose_dtype(spec.dtype, facts)
    os.environ.update(variables(spec))
    Path(spec.scratch).mkdir(parents=True, exist_ok=True)
    version, device = _import(spec)
    if device == "cpu":
        _check_head(facts)
    progress(0.2, "engine")
    context_length = min(spec.context_length, facts.context_length)
    num_blocks = 1 + spec.num_slots * math.ceil(context_length / BLOCK_TOKENS)
    per_token = 2 * facts.num_layers * facts.num_kv_heads * facts.head_dim * ITEM_BYTES[dtype]
    kv_bytes = num_blocks * BLOCK_TOKENS * per_token
    line = Line()
    try:
        line.open(lambda: _start(spec, dtype, context_length, num_blocks, kv_bytes, eager=eager))
    except Exception as error:  # whatever it or its libraries raise: none of them is ours to know
        line.close()
        raise LoadFailed(f"vLLM: {_first_line(error)}") from error
    how = "eager" if eager else "compiled"
    return Opened(
        engine=VLLMEngine(line, find_ends(Path(spec.folder))),
        dtype=dtype,
        device=device,
        context_length=context_length,
        num_slots=spec.num_slots,
        kv_token_bytes=per_token,
        kv_reserved_bytes=kv_bytes,
        weights_bytes=facts.weights_bytes,
        resident=read_family,
        room_bytes=ROOM_BYTES + (kv_bytes if device == "cpu" else 0),
        about=f"vLLM {version}, {device}, {how}",
        warnings=told,
    )


def choose_eager(asked: Any) -> tuple[bool, list[str]]:
    """Whether the model is run as it is, not compiled at its first load; what to say of that.
    Raises LoadFailed."""
    if asked is not None and not isinstance(asked, bool):
        raise LoadFailed("the vllm driver's option eager is true or false")
    if asked is None and not any(map(shutil.which, COMPILERS)):
        return True, ["slower: vLLM compiles models with a C++ compiler, and there is none"]
    return bool(asked), []


def choose_dtype(asked: str, facts: ModelFacts) -> str:
    """What the weights are loaded as. Raises LoadFailed."""
    if asked == "auto":
        return "bfloat16" if facts.dtype == "float64" else facts.dtype
    if asked not in {"float32", "bfloat16", "float16"}:
        raise LoadFailed(f"dtype {asked!r}: the vllm driver loads float32, bfloat16 and float16")
    return asked


def _import(spec: ReplicaSpec) -> tuple[str, str]:
    """Version, and the kind of device that it was built for. Raises LoadFailed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import vllm
            from vllm.platforms import current_platform
    except (ImportError, OSError, RuntimeError) as error:
        raise LoadFailed(f"{say_missing('vllm', 'vllm')} ({str(error)[:200]})") from error
    device = str(current_platform.device_type)
    if spec.device.partition(":")[0] != device:
        raise LoadFailed(
            f"device {spec.device!r}: the vLLM that is installed computes on {device or 'nothing'}"
        )
    return str(vllm.__version__), device


def _check_head(facts: ModelFacts) -> None:
    """Found out at the first pass otherwise, which ends the engine. Raises ModelRejected."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    sizes = CPUAttentionBackend.get_supported_head_sizes()
    if facts.head_dim not in sizes:
        raise ModelRejected(
            f"config.json: heads of {facts.head_dim}; on a CPU vLLM computes with heads of "
            f"{', '.join(map(str, sizes))}"
        )


def _start(
    spec: ReplicaSpec,
    dtype: str,
    context_length: int,
    num_blocks: int,
    kv_bytes: int,
    *,
    eager: bool,
) -> Any:
    """In the line's thread."""
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=spec.folder,
        dtype=dtype,
        max_model_len=context_length,
        max_num_seqs=spec.num_slots,
        max_num_batched_tokens=max(BATCHED_TOKENS, context_length),
        block_size=BLOCK_TOKENS,
        num_gpu_blocks_override=num_blocks,
        kv_cache_memory_bytes=kv_bytes,
        enable_prefix_caching=True,
        enforce_eager=eager,
        skip_tokenizer_init=True,
        trust_remote_code=False,
        generation_config="vllm",
        disable_log_stats=True,
        distributed_executor_backend=EXECUTOR,
    )
    return AsyncLLM.from_engine_args(arguments)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines[:3])[:500] or type(error).__name__
