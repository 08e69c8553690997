"""Counters of energy: Intel's and AMD's RAPL as Linux shows it (powercap), and NVIDIA's NVML.

Most machines let only root read RAPL, and virtual ones have none: then there is no answer.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmos.abi.spent import NodeEnergy
from llmos.cluster import proc

POWERCAP = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"
VISIBLE = "CUDA_VISIBLE_DEVICES"
_BUSY = (0, 1, 2, 5, 6, 7)
"""Of /proc/stat's `cpu` line: user, nice, system, irq, softirq, steal; not idle, not iowait."""


class Energy:
    """Reads a few small files, and asks a library where there is one. Never raises."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._zones = _Zones(POWERCAP)
        self._devices = Nvml.open(env.get(VISIBLE))

    def read(self) -> NodeEnergy:
        """The counters now."""
        devices = self._devices.joules() if self._devices else {}
        return NodeEnergy(self._zones.joules(), busy_s(), devices)


class _Zones:
    """RAPL's packages. Each counter turns over at a range of its own: that is added up here."""

    def __init__(self, folder: Path) -> None:
        self._last: dict[Path, int] = {}
        self._turned: dict[Path, int] = {}
        try:
            found = sorted(folder.glob("intel-rapl:*"))  # AMD's too are called so
        except OSError:
            found = []
        # a package is `intel-rapl:0`; `intel-rapl:0:1` is a part of it
        self._packages = [path for path in found if path.name.count(":") == 1]

    def joules(self) -> float | None:
        total = 0
        for package in self._packages:
            try:
                now = int((package / "energy_uj").read_text("ascii"))
                if now < self._last.get(package, 0):
                    span = int((package / "max_energy_range_uj").read_text("ascii"))
                    self._turned[package] = self._turned.get(package, 0) + span
            except (OSError, ValueError):
                return None  # a sum of some would look like a fall
            self._last[package] = now
            total += now + self._turned.get(package, 0)
        return total / 1e6 if self._packages else None


def busy_s() -> float:
    """Of all cores together, since boot; 0 where it is not told."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        line = (proc.PROC / "stat").read_text("ascii").partition("\n")[0]
        ticks = line.split()[1:]
        return sum(int(ticks[place]) for place in _BUSY) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Nvml:
    """NVIDIA's management library, as the driver installs it; nothing of it is ours to install.

    `nvmlDeviceGetTotalEnergyConsumption`: mJ since the driver was loaded (Volta and newer).
    """

    def __init__(self, library: Any, chosen: list[int] | None) -> None:
        self._library = library
        self._chosen = chosen

    @classmethod
    def open(cls, visible: str | None) -> Nvml | None:
        """None where there is no such library, or no device that it knows."""
        try:
            library = ctypes.CDLL(NVML)
            if library.nvmlInit_v2() != 0:
                return None
        except (OSError, AttributeError):
            return None
        return cls(library, _numbers(visible))

    def joules(self) -> dict[str, float]:
        """By the names that workers know devices by."""
        count = ctypes.c_uint()
        if self._library.nvmlDeviceGetCount_v2(ctypes.byref(count)) != 0:
            return {}
        found = {}
        numbers = range(count.value) if self._chosen is None else self._chosen
        for place, number in enumerate(numbers):
            handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
            if self._library.nvmlDeviceGetHandleByIndex_v2(number, ctypes.byref(handle)) != 0:
                continue
            told = self._library.nvmlDeviceGetTotalEnergyConsumption(
                handle, ctypes.byref(millijoules)
            )
            if told == 0:
                found[f"cuda:{place}"] = millijoules.value / 1e3
        return found


def _numbers(visible: str | None) -> list[int] | None:
    """Which devices workers see; None: all of them. Of UUIDs nothing is told: an empty list."""
    if visible is None:
        return None
    words = [word.strip() for word in visible.split(",") if word.strip()]
    return [int(word) for word in words] if all(word.isdecimal() for word in words) else []
