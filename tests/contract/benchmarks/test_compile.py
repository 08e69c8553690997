"""Rows of `bench_compile`, without its compiler."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import bench_compile
from benchmarks.harness import Result
from tests.unit.drivers.tiny import make_model


def test_compiled_steps_beside_eager_ones_and_the_fused_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path, dtype="bfloat16")
    monkeypatch.setitem(bench_compile.SIDES, "compiled", {"engine": "torch"})
    monkeypatch.setattr(bench_compile, "TURN_STEPS", 2)
    drivers = {side: bench_compile.load(tmp_path, side, tmp_path) for side in bench_compile.SIDES}
    result = Result("compile", "x")
    bench_compile.measure(result, drivers, 2, 3)
    assert [row.peer for row in result.rows] == ["eager", "fused"]
    for row in result.rows:
        assert row.ratio is not None and row.low is not None and row.low <= row.ratio
        assert row.figure == "60m bfloat16, 2 streams: decode, compiled"
    for driver in drivers.values():
        assert driver.wait_s() is None
        driver.unload()
