"""The model that is made wide says what it was made of; the benchmark's sides say the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import bench_speculation as bench
from benchmarks import drafts, harness


@pytest.fixture
def stories(test_data: Path) -> Path:
    return test_data / "models" / "stories260k"


def test_a_stretched_model_says_the_same(stories: Path, tmp_path: Path) -> None:
    wide = drafts.stretched(stories, tmp_path / "wide", factor=4, intermediate_size=256)
    config = json.loads((wide / "config.json").read_text())
    assert (config["hidden_size"], config["num_attention_heads"]) == (256, 32)
    driver = bench.opened(wide)
    said = bench.run(driver, 1, 0.0, 0)[1]["r0"]
    small = bench.opened(stories)
    assert said[:20] == bench.run(small, 1, 0.0, 0)[1]["r0"][:20]  # bfloat16 differs in the end
    assert driver._runner is not None and driver._runner.info.dtype == "bfloat16"
    driver.unload()
    small.unload()
    with pytest.raises(ValueError, match="no square"):
        drafts.stretched(stories, tmp_path / "odd", factor=8, intermediate_size=256)


def test_rows_of_a_comparison(
    stories: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "NUM_TOKENS", 20)
    made = bench.made_of(stories, tmp_path)
    assert sorted(made) == ["near", "random", "short"]
    plain = bench.opened(stories, guesses=False)
    sides = [bench.Side("draft near", bench.opened(stories, made["near"]))]
    result = harness.Result("speculation", "make bench-speculation")
    bench.compare(result, "small", plain, sides, 3)
    assert len(result.rows) == len(bench.WIDTHS) * len(bench.TEMPERATURES)
    assert all(row.ratio is not None and row.low is not None for row in result.rows)
    other = [bench.Side("other", bench.opened(made["random"]))]
    with pytest.raises(RuntimeError, match="says something else"):
        bench.compare(result, "small", plain, other, 2)
    for driver in (plain, sides[0].driver, other[0].driver):
        driver.unload()
