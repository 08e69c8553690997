"""The processor a model runs on, as far as the choice of kernels depends on it."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

import torch


@cache
def processor_name(device: torch.device) -> str:
    """For people, and for telling whether bits can be equal."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return " ".join([*names[:1], torch.backends.cpu.get_cpu_capability()])


def num_cores() -> int:
    """That this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
