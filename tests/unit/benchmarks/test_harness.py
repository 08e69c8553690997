from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import harness

values = st.lists(st.floats(0.001, 1e6), min_size=1, max_size=30)


@settings(max_examples=50, deadline=None)
@given(values, st.floats(0.01, 1.0))
def test_percentile_is_the_smallest_value_with_that_share_below(
    found: list[float], share: float
) -> None:
    result = harness.percentile(found, share)
    assert result in found
    assert sum(v <= result for v in found) >= math.ceil(share * len(found) - 1e-9)
    assert sum(v < result for v in found) < share * len(found) + 1e-9


def test_percentile_of_a_hundred() -> None:
    assert harness.percentile(list(range(1, 101)), 0.5) == 50
    assert harness.percentile(list(range(1, 101)), 0.99) == 99
    assert harness.percentile([7.0], 0.99) == 7.0


def test_paired_divides_run_by_run() -> None:
    # both sides double in the second run: the pairs say exactly 3
    row = harness.paired("f", "ms", [3.0, 6.0, 3.0], "peer", [1.0, 2.0, 1.0])
    assert (row.value, row.peer_value) == (3.0, 1.0)
    assert (row.ratio, row.low, row.high) == (3.0, 3.0, 3.0)


def test_paired_refuses_unequal_runs() -> None:
    with pytest.raises(ValueError, match="2 runs of ours, 1 of the peer"):
        harness.paired("f", "ms", [1.0, 2.0], "peer", [1.0])


def test_the_interval_holds_the_median_and_repeats_itself() -> None:
    runs = [1.0, 2.0, 3.0, 4.0, 100.0]
    row = harness.single("f", "ms", runs)
    assert row.low is not None
    assert row.high is not None
    assert row.low <= 3.0 <= row.high
    assert row == harness.single("f", "ms", runs)
    assert row.ratio is None


def test_a_result_is_written_with_its_plot(tmp_path: Path) -> None:
    result = harness.Result("trial", "make bench-trial")
    result.add(harness.paired("speed", "req/s", [2.0], "peer", [4.0]))
    result.add(harness.single("alone", "s", [1.5]))
    body = json.loads(result.write(tmp_path).read_text())
    assert list(body) == ["name", "date", "machine", "commit", "command", "rows"]
    assert body["rows"][0] == {
        "figure": "speed",
        "value": 2.0,
        "unit": "req/s",
        "peer": "peer",
        "peer_value": 4.0,
        "ratio": 0.5,
        "low": 0.5,
        "high": 0.5,
    }
    assert body["rows"][1]["peer"] is None
    assert (tmp_path / "trial.svg").read_text().startswith("<?xml")
