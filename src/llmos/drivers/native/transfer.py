"""Numbers of a step to the device: one copy for all of them, which nobody waits for."""

from __future__ import annotations

from collections.abc import Sequence

import torch

_ALIGNED = 4
"""Numbers that each list is filled up to a multiple of: vector loads want aligned addresses."""


def to_device(
    device: torch.device, *lists: Sequence[float], dtype: torch.dtype = torch.long
) -> list[torch.Tensor]:
    """A tensor for each list, one-dimensional.

    A copy from ordinary memory to CUDA stops the host until the device is idle; from pinned memory
    it does not, and torch keeps that memory until the copy has been made.
    """
    if device.type == "cpu":
        return [torch.tensor(numbers, dtype=dtype) for numbers in lists]
    flat: list[float] = []
    spans = []
    for numbers in lists:
        spans.append(slice(len(flat), len(flat) + len(numbers)))
        flat += numbers
        flat += [0] * (-len(flat) % _ALIGNED)
    host = torch.tensor(flat, dtype=dtype, device="cpu", pin_memory=device.type == "cuda")
    there = host.to(device, non_blocking=True)
    return [there[span] for span in spans]


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy of its own in host memory."""
    return tensor.clone() if tensor.device.type == "cpu" else tensor.cpu()


def wait_for(device: torch.device) -> None:
    """Until what the device was given is done. A processor is never given anything."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
