"""Files of examples as rows, and which of them are learned from, chosen by, measured on."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from llmos.abi.tasks import InputFormat
from llmos.errors import InvalidRequest
from llmos.programs.task.conll import read_conll
from llmos.programs.task.source import read_file
from llmos.programs.train.recipe import SPLITS, TEST, TRAIN, VALIDATION, Data, Format

TYPE_OF = {
    ".csv": Format.CSV,
    ".tsv": Format.TSV,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".json": Format.JSON,
    ".parquet": Format.PARQUET,
    ".pq": Format.PARQUET,
    ".conll": Format.CONLL,
    ".bio": Format.CONLL,
    ".txt": Format.TEXT,
    ".md": Format.TEXT,
    ".tar": Format.FOLDER,
}
_READ_AS = {
    Format.CSV: InputFormat.CSV,
    Format.TSV: InputFormat.TSV,
    Format.JSONL: InputFormat.JSONL,
    Format.JSON: InputFormat.JSON,
    Format.PARQUET: InputFormat.PARQUET,
    Format.LINES: InputFormat.LINES,
}
TEXT_CHARS = 1 << 16
"""A text file is taken in pieces of so many characters."""

LINE_CHARS = 1 << 12
"""A part of a text begins with a line, if there is one so near."""

DEFAULT_SHARE = 0.1
SMALLEST_TO_SHARE = 20

Rows = list[Mapping[str, Any]]


def read_splits(data: Data, files: Mapping[str, str], seed: int) -> dict[str, Rows]:
    """Rows of every split there is, `train` always. Raises InvalidRequest naming the row."""
    if TRAIN not in files:
        raise InvalidRequest("there is nothing to learn from: data.train", param="files.train")
    found = {
        name: read_table(Path(files[name]), _format(data, name), name, data)
        for name in SPLITS
        if name in files
    }
    wanted = _shares(found, data)
    if wanted and _format(data, TRAIN) is Format.TEXT:
        return _share_text(found, wanted)
    return _share_out(found, wanted, seed)


def _format(data: Data, split: str) -> Format:
    if data.format is not None:
        return data.format
    named = getattr(data, split)
    suffix = Path(named).suffix.lower() if isinstance(named, str) else ""
    if suffix not in TYPE_OF:
        known = ", ".join(sorted(TYPE_OF))
        raise InvalidRequest(
            f"{split}: what is {named!r}? Say data.format, or name it with one of {known}",
            param="recipe.data.format",
        )
    return TYPE_OF[suffix]


def read_table(path: Path, file_format: Format, split: str, data: Data) -> Rows:
    """All rows of a file. Raises InvalidRequest: for a row that is none, for no rows at all."""
    limit = data.limit
    if file_format is Format.TEXT:
        rows = _pieces(path, split)
    elif file_format is Format.FOLDER:
        from llmos.programs.train.folders import read_folder

        rows = read_folder(path, split)
    elif file_format is Format.CONLL:
        read = itertools.islice(read_conll(path, f"files.{split}"), limit)
        rows = [{data.text: one.tokens, data.label: one.tags} for one in read]
    else:
        rows = _table(path, file_format, split, limit)
    if not rows:
        raise InvalidRequest(f"{split}: there are no examples", param=f"files.{split}")
    return rows if limit is None else rows[:limit]


def _table(path: Path, file_format: Format, split: str, limit: int | None) -> Rows:
    rows: Rows = []
    for row in read_file(path, _READ_AS[file_format]):
        if row.error is not None:
            raise InvalidRequest(
                f"{split}: row {row.number + 1}: {row.error.message}", param=f"files.{split}"
            )
        rows.append(row.values)
        if limit is not None and len(rows) == limit:
            break
    return rows


def _pieces(path: Path, split: str) -> Rows:
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest(
            f"{split}: not UTF-8 (byte {error.start})", param=f"files.{split}"
        ) from None
    return _cut(text)


def _cut(text: str) -> Rows:
    return [{"text": text[at : at + TEXT_CHARS]} for at in range(0, len(text), TEXT_CHARS)]


def _shares(found: Mapping[str, Rows], data: Data) -> dict[str, float]:
    """Of `train`, for the splits that are to be parts of it."""
    wanted: dict[str, float] = {}
    for name in (VALIDATION, TEST):
        said = getattr(data, name)
        if name not in found and isinstance(said, float):
            wanted[name] = said
    is_told = VALIDATION in found or VALIDATION in wanted
    if not is_told and len(found[TRAIN]) >= SMALLEST_TO_SHARE:
        wanted[VALIDATION] = DEFAULT_SHARE
    return wanted


def _share_text(found: dict[str, Rows], wanted: Mapping[str, float]) -> dict[str, Rows]:
    """The end of the text is held out, from where a line begins."""
    text = "".join(row["text"] for row in found[TRAIN])
    shared, end, size = dict(found), len(text), len(text)
    for name, share in reversed([*wanted.items()]):
        begin = end - max(1, round(share * size))
        begin = text.rfind("\n", max(0, begin - LINE_CHARS), max(0, begin)) + 1 or begin
        shared[name], end = _cut(text[begin:end]), begin
    if end <= 0:
        raise InvalidRequest(
            f"{size} characters are too few to share out", param="recipe.data.validation"
        )
    shared[TRAIN] = _cut(text[:end])
    return shared


def _share_out(found: dict[str, Rows], wanted: Mapping[str, float], seed: int) -> dict[str, Rows]:
    """By a draw that the seed decides."""
    rows = found[TRAIN]
    if not wanted:
        return found
    drawn = iter(np.random.Generator(np.random.Philox(seed)).permutation(len(rows)).tolist())
    shared = dict(found)
    for name, share in wanted.items():
        size = max(1, round(share * len(rows)))
        shared[name] = _in_order(rows, (next(drawn) for _ in range(min(size, len(rows)))))
    shared[TRAIN] = _in_order(rows, drawn)
    if not shared[TRAIN]:
        raise InvalidRequest(
            f"{len(rows)} examples are too few to share out", param="recipe.data.validation"
        )
    return shared


def _in_order(rows: Rows, numbers: Iterable[int]) -> Rows:
    return [rows[number] for number in sorted(numbers)]


def texts_of(rows: Rows, column: str, split: str) -> list[str]:
    """A column as texts. Raises InvalidRequest naming the row, or the columns there are."""
    made = []
    for number, row in enumerate(rows):
        value = row.get(column)
        if value is None and column not in row:
            raise no_column(row, column, split)
        if not isinstance(value, str):
            found = type(value).__name__
            raise InvalidRequest(
                f"{split}: row {number + 1}: {column!r} is {found}, no text",
                param=f"files.{split}",
            )
        made.append(value)
    return made


def no_column(row: Mapping[str, Any], column: str, split: str) -> InvalidRequest:
    """The error of a column that is missing."""
    known = ", ".join(map(repr, list(row)[:20]))
    return InvalidRequest(
        f"{split}: no column {column!r}; there are {known}", param=f"files.{split}"
    )


def labels_of(rows: Rows, column: str, split: str) -> list[str]:
    """A column as labels: what is no text is written as JSON would. Raises InvalidRequest for a
    row without one."""
    made = []
    for number, row in enumerate(rows):
        if column not in row:
            raise no_column(row, column, split)
        value = row[column]
        if value is None or value == "":
            raise InvalidRequest(
                f"{split}: row {number + 1} has no {column!r}", param=f"files.{split}"
            )
        made.append(_spelled(value))
    return made


def _spelled(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
