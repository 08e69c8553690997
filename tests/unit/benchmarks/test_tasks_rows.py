"""The rows of `bench_tasks`: all there, mixed, always the same."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from benchmarks.tasks.rows import accuracies, write_rows


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "classify"
    folder.mkdir()
    (folder / "online_shopping_sample.csv").write_text(
        "cat,label,review\n书,1,好\n书,0,差\n书,1,  \n", encoding="utf-8"
    )
    for suffix in ("neg", "pos"):
        lines = [f"{suffix} {n}\n" for n in range(20)]
        (folder / f"rt-polarity.{suffix}").write_text("".join(lines), encoding="utf-8")
    return tmp_path


def test_rows_are_mixed_and_always_the_same(data: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "one.csv", tmp_path / "two.csv"]
    for path in paths:
        write_rows(data, path, 30)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with paths[0].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == [str(n) for n in range(30)]
    assert sorted(row["text"] for row in rows if row["source"] == "online_shopping") == ["好", "差"]
    films = [row for row in rows if row["source"] == "rt-polarity"]
    assert len({row["text"] for row in films}) == 28
    assert all(row["text"].startswith(row["gold"][:3]) for row in films)
    assert {row["gold"] for row in films} == {"positive", "negative"}
    assert rows != sorted(rows, key=lambda row: row["source"])


def test_too_few_rows_are_an_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="42 rows"):
        write_rows(data, tmp_path / "rows.csv", 43)


def test_what_is_right_is_counted_by_source(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("source,gold,label\na,x,x\na,x,y\nb,x,x\nb,x,\n")
    assert accuracies(path) == {"a": 0.5, "b": 0.5}
