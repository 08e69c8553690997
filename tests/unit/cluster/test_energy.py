"""Counters of energy: they only grow, whatever the hardware's do, and say when there are none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from llmos.cluster import energy, proc
from llmos.cluster.energy import Energy, Nvml


def package(folder: Path, name: str, microjoules: int, span: int = 1000_000_000) -> Path:
    path = folder / name
    path.mkdir(exist_ok=True)
    (path / "energy_uj").write_text(f"{microjoules}\n")
    (path / "max_energy_range_uj").write_text(f"{span}\n")
    return path


@pytest.fixture
def powercap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(energy, "POWERCAP", tmp_path)
    monkeypatch.setattr(energy, "NVML", "no-such-library.so")
    return tmp_path


def test_packages_are_added_up_and_their_parts_are_not_counted_again(powercap: Path) -> None:
    package(powercap, "intel-rapl:0", 3_000_000)
    package(powercap, "intel-rapl:1", 4_000_000)
    package(powercap, "intel-rapl:0:0", 2_000_000)
    assert Energy({}).read().cpu_joules == 7.0


def test_a_counter_that_turns_over_goes_on_growing(powercap: Path) -> None:
    package(powercap, "intel-rapl:0", 900, span=1000)
    counters = Energy({})
    before = counters.read().cpu_joules
    package(powercap, "intel-rapl:0", 100, span=1000)
    after = counters.read().cpu_joules
    assert before is not None
    assert after is not None
    assert after - before == pytest.approx(200e-6)


def test_no_counter_is_no_answer(powercap: Path) -> None:
    assert Energy({}).read().cpu_joules is None
    unreadable = package(powercap, "intel-rapl:0", 1)
    counters = Energy({})
    (unreadable / "energy_uj").unlink()
    assert counters.read().cpu_joules is None
    assert counters.read().device_joules == {}


def test_busy_seconds_are_of_all_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hertz = os.sysconf("SC_CLK_TCK")
    ticks = [10, 20, 30, 4000, 5000, 1, 2, 3, 0, 0]
    (tmp_path / "stat").write_text("cpu  " + " ".join(str(t * hertz) for t in ticks) + "\ncpu0 1\n")
    monkeypatch.setattr(proc, "PROC", tmp_path)
    assert energy.busy_s() == 66


class Library:
    """NVML with two devices, of which the second does not tell."""

    def nvmlDeviceGetCount_v2(self, count: object) -> int:
        count._obj.value = 2  # type: ignore[attr-defined]
        return 0

    def nvmlDeviceGetHandleByIndex_v2(self, number: int, handle: object) -> int:
        handle._obj.value = number + 1  # type: ignore[attr-defined]
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: object, out: object) -> int:
        number = handle.value  # type: ignore[attr-defined]
        out._obj.value = 2500 * number  # type: ignore[attr-defined]
        return 3 if number == 2 else 0


def test_devices_are_called_as_workers_call_them() -> None:
    assert Nvml(Library(), None).joules() == {"cuda:0": 2.5}
    assert Nvml(Library(), energy._numbers("1,0")).joules() == {"cuda:1": 2.5}
    assert Nvml(Library(), energy._numbers("GPU-abc")).joules() == {}
