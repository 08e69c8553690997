"""The parts of a batch that the processes of a run learn from."""

from __future__ import annotations

from typing import Any

import pytest

from llmos.programs.train.examples import WEIGHT, Examples, Loader, Order, Part, padded


def examples(number: int) -> Examples:
    rows = [{"ids": [place + 1] * (1 + place % 5)} for place in range(number)]

    def collate(given: list[Any], rng: Any) -> dict[str, Any]:
        return {"ids": padded([row["ids"] for row in given], 0)}

    return Examples(rows, [len(row["ids"]) for row in rows], collate)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_parts_are_the_batches_of_one_process(size: int) -> None:
    alone = list(Order(examples(47), 10, seed=3))
    parts = [list(Order(examples(47), 10, 3, rank, size)) for rank in range(size)]
    for whole, *of_each in zip(alone, *parts, strict=True):
        assert [row for part in of_each for row in part] == whole
        assert all(isinstance(part, Part) and part.whole == whole for part in of_each)
        mean = sum(sum(p) / len(p) * p.weight for p in of_each if isinstance(p, Part)) / size
        assert mean == pytest.approx(sum(whole) / len(whole))


def test_of_fewer_rows_than_processes_one_stands_in_and_weighs_nothing() -> None:
    parts = [Part([7, 8], rank, 3) for rank in range(3)]
    assert [list(part) for part in parts] == [[7], [8], [7]]
    assert [part.weight for part in parts] == [1.5, 1.5, 0.0]


def test_a_part_that_weighs_more_says_so_and_tokens_are_those_of_all() -> None:
    one = examples(5)
    batches = list(Loader(one, Order(one, 3, 0, rank=0, size=2)))
    assert [float(b[WEIGHT]) for b in batches if WEIGHT in b] == [pytest.approx(4 / 3)]
    assert len(batches) == 2
    assert one.num_tokens == int(one.lengths.sum())
