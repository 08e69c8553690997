"""Inputs as rows, one at a time, whatever holds them. What one row has wrong is that row's error.

A row that is not an object is one with the single column `text`. Rows are numbered from 0.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from llmos.abi.tasks import InputFormat, TaskSpec
from llmos.errors import InvalidRequest, LLMOSError, PayloadTooLarge, PluginError

TEXT = "text"
FILE_COLUMN = "file"

MAX_ROW_BYTES = 8 << 20
MAX_ROWS = 1_000_000
MAX_DOCUMENT_BYTES = 64 << 20
MAX_COLUMNS = 1000
PARQUET_BATCH = 256

csv.field_size_limit(MAX_ROW_BYTES)


class Row(NamedTuple):
    """One input: its columns, or what is wrong with it."""

    number: int
    values: Mapping[str, Any]
    error: LLMOSError | None = None


def read_rows(spec: TaskSpec, path: str | None) -> Iterator[Row]:
    """All of them, in order. Raises InvalidRequest for what cannot be read as its format at all,
    PluginError where an extra is missing."""
    rows: Iterable[Row]
    if path is None:
        rows = (_of_value(number, value) for number, value in enumerate(spec.items))
    else:
        rows = read_file(Path(path), spec.format)
    for row in rows:
        if row.number >= MAX_ROWS:
            raise InvalidRequest(f"a task has at most {MAX_ROWS} inputs", param="input")
        yield row


def read_file(path: Path, file_format: InputFormat) -> Iterator[Row]:
    """All rows of a file, however many. Raises as `read_rows`."""
    return _READERS[file_format](path)


def _of_value(number: int, value: Any) -> Row:
    if isinstance(value, str):
        return Row(number, {TEXT: value})
    if isinstance(value, dict):
        return Row(number, value)
    found = type(value).__name__
    return _bad(number, f"an input is a text or an object, not {found}")


def _bad(number: int, why: str) -> Row:
    return Row(number, {}, InvalidRequest(why, param="input"))


# text


def _lines(path: Path) -> Iterator[Row]:
    for number, raw in enumerate(_raw_lines(path)):
        yield _decoded(number, raw)


def _raw_lines(path: Path) -> Iterator[bytes | None]:
    """Lines that are not blank, without their ends; None for one that is too long."""
    with path.open("rb") as file:
        is_first = True
        while raw := file.readline(MAX_ROW_BYTES + 2):
            is_whole = raw.endswith(b"\n") or len(raw) <= MAX_ROW_BYTES
            if not is_whole:
                while (rest := file.readline(MAX_ROW_BYTES)) and not rest.endswith(b"\n"):
                    pass
                yield None
                continue
            line = raw.removeprefix(b"\xef\xbb\xbf") if is_first else raw
            is_first = False
            if line.strip():
                yield line.rstrip(b"\r\n")


def _decoded(number: int, raw: bytes | None) -> Row:
    if raw is None:
        return Row(number, {}, PayloadTooLarge(f"an input is over {MAX_ROW_BYTES} bytes"))
    try:
        return Row(number, {TEXT: raw.decode()})
    except UnicodeDecodeError as error:
        return _bad(number, f"not UTF-8 (byte {error.start} of the line)")


def _document(path: Path) -> Iterator[Row]:
    data = _whole(path)
    try:
        yield Row(0, {TEXT: data.decode("utf-8-sig")})
    except UnicodeDecodeError as error:
        yield _bad(0, f"not UTF-8 (byte {error.start})")


def _whole(path: Path) -> bytes:
    if (size := path.stat().st_size) > MAX_DOCUMENT_BYTES:
        text = f"the file has {size} bytes, over {MAX_DOCUMENT_BYTES}: give it as JSONL or CSV"
        raise InvalidRequest(text, param="input")
    return path.read_bytes()


# JSON


def _jsonl(path: Path) -> Iterator[Row]:
    for number, raw in enumerate(_raw_lines(path)):
        if raw is None:
            yield _decoded(number, raw)
            continue
        try:
            yield _of_value(number, msgspec.json.decode(raw))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            yield _bad(number, f"not JSON: {error}")


def _json(path: Path) -> Iterator[Row]:
    """An array of inputs, or one object."""
    try:
        value = msgspec.json.decode(_whole(path).removeprefix(b"\xef\xbb\xbf"))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the input is not JSON: {error}", param="input") from None
    values = value if isinstance(value, list) else [value]
    return (_of_value(number, item) for number, item in enumerate(values))


# tables


def _csv(path: Path) -> Iterator[Row]:
    return _table(path, ",")


def _tsv(path: Path) -> Iterator[Row]:
    return _table(path, "\t")


def _table(path: Path, delimiter: str) -> Iterator[Row]:
    """RFC 4180, with the names in the first line. Bytes that are no UTF-8 spoil their row alone."""
    with path.open("r", encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        names = _header(reader)
        number = 0
        while True:
            try:
                fields = next(reader, None)
            except csv.Error as error:
                yield _bad(number, f"line {reader.line_num}: {error}")
                number += 1
                continue
            if fields is None:
                return
            if not fields:
                continue
            yield _of_fields(number, names, fields, reader.line_num)
            number += 1


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        names = [name.strip() for name in next(reader, [])]
    except csv.Error as error:
        raise InvalidRequest(f"the input is no CSV: {error}", param="input") from None
    if not names or len(names) > MAX_COLUMNS:
        text = f"the input has no line of names, or more than {MAX_COLUMNS}"
        raise InvalidRequest(text, param="input")
    if "\0" in "".join(names) or not _is_text("".join(names)):
        raise InvalidRequest("the input's first line is not UTF-8 text", param="input")
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidRequest(f"the input has two columns {twice[:64]!r}", param="input")
    return names


def _of_fields(number: int, names: list[str], fields: list[str], line: int) -> Row:
    if len(fields) != len(names):
        return _bad(number, f"line {line} has {len(fields)} fields, not {len(names)}")
    if not all(map(_is_text, fields)):
        return _bad(number, f"line {line} is not UTF-8")
    return Row(number, dict(zip(names, fields, strict=True)))


def _is_text(field: str) -> bool:
    return field.isascii() or not any("\ud800" <= char <= "\udfff" for char in field)


def _parquet(path: Path) -> Iterator[Row]:
    parquet = load_parquet()
    import pyarrow

    try:
        file = parquet.ParquetFile(path)
        batches = file.iter_batches(batch_size=PARQUET_BATCH)
        numbers = itertools.count()
        for batch in batches:
            for value in batch.to_pylist():
                yield _of_value(next(numbers), _plain(value))
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidRequest(f"the input is no Parquet: {error}", param="input") from None


def load_parquet() -> Any:
    """`pyarrow.parquet`. Raises PluginError naming what to install."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise PluginError("Parquet needs an extra: pip install 'llmos[parquet]'") from None
    return pyarrow.parquet


def _plain(value: dict[str, Any]) -> dict[str, Any]:
    """As JSON would have it: dates become text, bytes are refused later by who reads them."""
    made: dict[str, Any] = msgspec.to_builtins(value, enc_hook=str)
    return made


_READERS = {
    InputFormat.CSV: _csv,
    InputFormat.TSV: _tsv,
    InputFormat.JSONL: _jsonl,
    InputFormat.JSON: _json,
    InputFormat.PARQUET: _parquet,
    InputFormat.LINES: _lines,
    InputFormat.DOCUMENT: _document,
}
