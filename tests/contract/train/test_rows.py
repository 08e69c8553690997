"""Parts of a file that are held out: rows by a draw, the end of a text."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.errors import InvalidRequest
from llmos.programs.train.recipe import Data
from llmos.programs.train.rows import TEXT_CHARS, read_splits


def shared(tmp_path: Path, text: str, **shares: float) -> dict[str, str]:
    path = tmp_path / "corpus.txt"
    path.write_text(text, "utf-8")
    data = Data(train="corpus.txt", **shares)
    found = read_splits(data, {"train": str(path)}, 0)
    return {split: "".join(row["text"] for row in rows) for split, rows in found.items()}


def test_the_end_of_a_text_is_held_out_by_whole_lines(tmp_path: Path) -> None:
    text = "".join(f"line {number:04}\n" for number in range(1000))
    found = shared(tmp_path, text, validation=0.1, test=0.2)
    assert found["train"] + found["validation"] + found["test"] == text
    assert {split: len(part) for split, part in found.items()} == {
        "train": 7000,
        "validation": 1000,
        "test": 2000,
    }
    odd = shared(tmp_path, text, validation=0.0333)
    assert odd["validation"].startswith("line 0966\n")
    assert odd["train"] + odd["validation"] == text


def test_of_a_text_without_lines_so_many_characters(tmp_path: Path) -> None:
    found = shared(tmp_path, "x" * (3 * TEXT_CHARS), validation=0.5)
    assert len(found["validation"]) == len(found["train"]) == 3 * TEXT_CHARS // 2


def test_a_text_of_one_character_is_not_shared_out(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="1 characters are too few"):
        shared(tmp_path, "x", validation=0.5)
