"""Sentences in CoNLL's form: read, learned, and measured with all their words."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmos.errors import InvalidRequest
from llmos.programs.task.conll import Sentence, read_conll
from llmos.programs.train.recipe import Data, Format
from llmos.programs.train.rows import read_splits
from tests.contract.train.context import run
from tests.contract.train.data import OTHER, TINY, sentences

TEXT = "-DOCSTART- -X- O\n\nEU\tB-ORG\nsays\tO\n\nNo\tO\n"


def write(path: Path, text: str) -> Path:
    path.write_text(text, "utf-8")
    return path


def test_a_space_of_chinese_texts_is_a_token(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "\u5357 B-LOC\n\u4eac  I-LOC\n\u3000 O\n \n\u5728 O\n")
    assert list(read_conll(path)) == [
        Sentence(["\u5357", "\u4eac", "\u3000"], ["B-LOC", "I-LOC", "O"]),
        Sentence(["\u5728"], ["O"]),
    ]


def tagged(number: int, seed: int = 0) -> str:
    """Telling words are names."""
    rows = [text.split() for text, _ in sentences(number, seed)]
    lines = [[f"{word} {'O' if word in OTHER else 'B-KEY'}" for word in row] for row in rows]
    return "\n\n".join("\n".join(one) for one in lines) + "\n"


@pytest.mark.parametrize(
    "data", [Data(train="a.conll"), Data(train="a.bio"), Data(train="a.txt", format=Format.CONLL)]
)
def test_sentences_are_rows(tmp_path: Path, data: Data) -> None:
    path = write(tmp_path / "a", TEXT)
    rows = read_splits(data, {"train": str(path)}, 0)["train"]
    assert rows == [
        {"text": ["EU", "says"], "label": ["B-ORG", "O"]},
        {"text": ["No"], "label": ["O"]},
    ]


def test_columns_have_the_names_that_are_wanted_and_no_more_rows_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "a", TEXT + "\nalone\n")
    data = Data(train="a.conll", text="tokens", label="tags", limit=1)
    rows = read_splits(data, {"train": str(path)}, 0)["train"]
    assert rows == [{"tokens": ["EU", "says"], "tags": ["B-ORG", "O"]}]


def test_a_token_without_a_tag_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a", "EU B-ORG\nsays\n")
    with pytest.raises(InvalidRequest, match="line 2 is no token with a tag: 'says'") as raised:
        read_splits(Data(train="a.conll"), {"train": str(path)}, 0)
    assert raised.value.param == "files.train"


def test_it_is_learned_from(tmp_path: Path) -> None:
    files = {
        "train": write(tmp_path / "train.conll", tagged(300)),
        "test": write(tmp_path / "test.conll", tagged(30, seed=1)),
    }
    recipe = {
        "name": "names",
        "objective": "tag",
        "data": {split: path.name for split, path in files.items()},
        "model": TINY,
        "training": {"epochs": 6, "learning_rate": 1e-2},
    }
    outputs, _ = run(tmp_path / "run", recipe, files)
    assert outputs["metrics"]["test"]["f1"] > 0.9


def test_a_name_beyond_what_the_model_reads_is_one_that_was_not_found(tmp_path: Path) -> None:
    far = "\n".join([*["film O"] * 20, "good B-KEY"]) + "\n"
    files = {
        "train": write(tmp_path / "train.conll", tagged(300)),
        "test": write(tmp_path / "test.conll", tagged(10, seed=1) + f"\n{far}\n{far}\n{far}"),
    }
    recipe = {
        "name": "names",
        "objective": "tag",
        "data": {split: path.name for split, path in files.items()},
        "model": TINY | {"max_length": 16},
        "training": {"epochs": 6, "learning_rate": 1e-2},
    }
    outputs, _ = run(tmp_path / "run", recipe, files)
    assert 0.6 < outputs["metrics"]["test"]["recall"] < 0.9


def test_one_label_for_each_word_is_measured_by_words(tmp_path: Path) -> None:
    text = tagged(200).replace(" O", " NOUN").replace(" B-KEY", " ADJ")
    files = {"train": write(tmp_path / "train.conll", text)}
    recipe = {"name": "p", "objective": "tag", "data": {"train": "a.conll"}, "model": TINY}
    outputs, _ = run(tmp_path / "run", recipe, files)
    assert {"accuracy", "f1_macro"} < outputs["metrics"]["validation"].keys()
    assert "f1" not in outputs["metrics"]["validation"]
