"""Inputs as rows: every format, and what people's files have wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmos.abi.tasks import InputFormat, TaskKind, TaskSpec
from llmos.errors import InvalidRequest
from llmos.programs.task import source
from llmos.programs.task.source import Row, read_rows


def read(path: Path, form: str, data: bytes | str) -> list[Row]:
    path = path / "input"
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    spec = TaskSpec(kind=TaskKind.GENERATE, model="m", format=InputFormat(form))
    return list(read_rows(spec, str(path)))


def values(rows: list[Row]) -> list[Any]:
    return [None if row.error is not None else dict(row.values) for row in rows]


def test_csv_as_spreadsheets_write_it(tmp_path: Path) -> None:
    data = '\ufefftext,标签\r\n"a, ""b""",好\r\n\r\n"two\nlines 🙂",坏\r\n'
    assert values(read(tmp_path, "csv", data)) == [
        {"text": 'a, "b"', "标签": "好"},
        {"text": "two\nlines 🙂", "标签": "坏"},
    ]


def test_bad_rows_of_csv_are_known_by_their_line(tmp_path: Path) -> None:
    data = b"a,b\n1,2\n1\n1,2,3\n\xff\xfe,2\n3,4\n"
    rows = read(tmp_path, "csv", data)
    assert values(rows) == [{"a": "1", "b": "2"}, None, None, None, {"a": "3", "b": "4"}]
    assert [row.number for row in rows] == [0, 1, 2, 3, 4]
    assert [str(row.error) for row in rows if row.error is not None] == [
        "line 3 has 1 fields, not 2",
        "line 4 has 3 fields, not 2",
        "line 5 is not UTF-8",
    ]


@pytest.mark.parametrize("data", [b"", b"a,a\n1,2\n", b"\xff\n1\n", b"a\x00b\n1\n"])
def test_a_file_without_usable_names_is_no_csv(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read(tmp_path, "csv", data)


def test_a_cell_that_is_too_long_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import csv

    before = csv.field_size_limit(100)
    try:
        rows = read(tmp_path, "csv", "a\nok\n" + "x" * 200 + "\nok\n")
    finally:
        csv.field_size_limit(before)
    assert values(rows) == [{"a": "ok"}, None, {"a": "ok"}]


def test_tsv(tmp_path: Path) -> None:
    assert values(read(tmp_path, "tsv", "a\tb\n1,5\t2\n")) == [{"a": "1,5", "b": "2"}]


def test_lines_and_documents(tmp_path: Path) -> None:
    data = "\ufeff第一行\r\n\n second \n🙂".encode()
    assert values(read(tmp_path, "lines", data)) == [
        {"text": "第一行"},
        {"text": " second "},
        {"text": "🙂"},
    ]
    assert values(read(tmp_path, "document", data)) == [{"text": "第一行\r\n\n second \n🙂"}]
    assert values(read(tmp_path, "lines", b"ok\n\xff\n")) == [{"text": "ok"}, None]
    assert values(read(tmp_path, "document", b"\xff")) == [None]


def test_a_line_that_is_too_long_fails_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source, "MAX_ROW_BYTES", 10)
    for data in ("a\n" + "x" * 50 + "\nb\n", "a\n" + "x" * 13 + "\nb\n", "a\n" + "x" * 50):
        rows = read(tmp_path, "lines", data)
        assert rows[1].error is not None
        assert [row.values.get("text") for row in rows if row.error is None] == (
            ["a", "b"] if data.endswith("b\n") else ["a"]
        )


def test_json(tmp_path: Path) -> None:
    assert values(read(tmp_path, "json", '["a", {"text": "b"}, 3]')) == [
        {"text": "a"},
        {"text": "b"},
        None,
    ]
    assert values(read(tmp_path, "json", '{"text": "b"}')) == [{"text": "b"}]
    with pytest.raises(InvalidRequest, match="not JSON"):
        read(tmp_path, "json", "[")


def test_deep_json_is_no_crash(tmp_path: Path) -> None:
    rows = read(tmp_path, "jsonl", "[" * 100_000 + "\n" + '"ok"\n')
    assert values(rows) == [None, {"text": "ok"}]


def test_parquet(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    import pyarrow.parquet

    table = pa.table({"text": ["好", None, "🙂"], "n": [1, 2, 3]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", compression="snappy")
    data = (tmp_path / "t.parquet").read_bytes()
    assert values(read(tmp_path, "parquet", data)) == [
        {"text": "好", "n": 1},
        {"text": None, "n": 2},
        {"text": "🙂", "n": 3},
    ]
    with pytest.raises(InvalidRequest, match="no Parquet"):
        read(tmp_path, "parquet", b"PAR1 nothing")


def test_too_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_ROWS", 3)
    assert len(read(tmp_path, "lines", "a\nb\nc\n")) == 3
    with pytest.raises(InvalidRequest, match="at most 3"):
        read(tmp_path, "lines", "a\nb\nc\nd\n")
