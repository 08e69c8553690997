"""What vLLM is told by variables of its process, all before it is imported."""

from __future__ import annotations

import os
from pathlib import Path

from llmos.abi.driver import ReplicaSpec
from llmos.drivers.vllm.limits import MAX_SOCKET_PATH


def variables(spec: ReplicaSpec) -> dict[str, str]:
    """No word to anybody, nothing written but to the folders we were given, and threads that are
    not bound to cores: other workers compute there as well."""
    scratch = Path(spec.scratch).resolve()
    cache = Path(spec.cache).resolve() if spec.cache else scratch / "cache"
    found = {
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_CACHE_ROOT": str(cache / "vllm"),
        "VLLM_CONFIG_ROOT": str(scratch / "vllm"),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(num_threads(spec)),
    }
    if len(str(scratch)) <= MAX_SOCKET_PATH:
        found["VLLM_RPC_BASE_PATH"] = str(scratch)
    return found


def num_threads(spec: ReplicaSpec) -> int:
    """As many as were asked for, else one for each core."""
    return spec.num_threads or len(os.sched_getaffinity(0))
