"""What a task writes: whole, in order, harmless to whoever opens it."""

from __future__ import annotations

import csv
import io
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi.events import Served
from llmos.abi.inference import Usage
from llmos.abi.program import Answer, Generate
from llmos.abi.tasks import OutputFormat, TaskKind, TaskSpec
from llmos.errors import EngineFailed
from llmos.programs.task import outputs
from llmos.programs.task.program import TaskProgram
from llmos.programs.task.records import Tally, bucket_of, upper_ms
from llmos.programs.task.rows import Failure, Kept
from llmos.programs.task.svg import Bar, columns_chart, rows_chart
from tests.unit.programs.fake_context import FakeContext

EVIL = '<script>alert("x")</script>'
ITEMS = [
    {"text": EVIL, "label": "mine", "n": 1},
    {"text": "两行\n第二行 | 竖线 🙂", "label": "", "n": 2},
    {"text": "bad", "label": None, "n": 2.5},
]


def run(
    tmp_path: Path, formats: list[str], items: list[Any] = ITEMS, **fields: object
) -> dict[str, bytes]:
    def answer(request: Generate) -> Answer:
        text = str(request.prompt)
        if "bad" in text:
            return Answer(error=EngineFailed("<b>boom</b>").to_info())
        label = "<i>good</i>" if "script" in text else "坏"
        return Answer(
            model="m:1", text=label, usage=Usage(3, 2), served=Served(0.01, 0), created_ns=1
        )

    task = TaskSpec(
        kind=TaskKind.CLASSIFY,
        model="m:1",
        labels=["<i>good</i>", "坏"],
        items=items,
        outputs=[OutputFormat(name) for name in formats],
        policy=msgspec.convert({"retries": 0}, type=type(TaskSpec(TaskKind.QA, "m").policy)),
        **fields,  # type: ignore[arg-type]
    )
    ctx = FakeContext(tmp_path, {"task": msgspec.to_builtins(task)}, answer=answer)
    TaskProgram().run(ctx)
    return {name: b"".join(ctx.lines(f"raw:{name}")) for name in formats}


def test_csv_reads_back_as_it_was(tmp_path: Path) -> None:
    made = run(tmp_path, ["csv"])["csv"].decode()
    rows = list(csv.DictReader(io.StringIO(made, newline="")))
    assert [row["text"] for row in rows] == [item["text"] for item in ITEMS]
    assert list(rows[0]) == ["text", "label", "n", "output_label", "score", "error"]
    assert [row["output_label"] for row in rows] == ["<i>good</i>", "坏", ""]
    assert rows[2]["error"] == "engine_failed: <b>boom</b>"


def test_json_in_both_ways_says_the_same(tmp_path: Path) -> None:
    made = run(tmp_path, ["jsonl", "json"], keep=["n"])
    rows = [json.loads(line) for line in made["jsonl"].splitlines()]
    assert json.loads(made["json"]) == rows
    assert [row["n"] for row in rows] == [1, 2, 2.5]
    assert [list(row) for row in rows] == [["n", "label", "score", "error"]] * 3


def test_parquet_has_types(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra 'parquet' is not installed")
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(io.BytesIO(run(tmp_path, ["parquet"])["parquet"]))
    assert table.column("n").to_pylist() == [1.0, 2.0, 2.5]
    assert table.column("output_label").to_pylist() == ["<i>good</i>", "坏", None]
    assert str(table.schema.field("n").type) == "double"


def test_nothing_of_the_input_is_markup_in_the_report(tmp_path: Path) -> None:
    page = run(tmp_path, ["html"], title=EVIL)["html"].decode()
    assert "<script" not in page
    assert "<i>good" not in page
    assert "<b>boom" not in page
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=", page)
    assert page.count("<svg") == 3
    for chart in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ET.fromstring(chart)
    assert "第二行" in page
    assert "🙂" in page


def test_the_report_has_a_column_of_errors_where_there_are_any(tmp_path: Path) -> None:
    assert "<th>error</th>" in run(tmp_path, ["html"])["html"].decode()
    whole = run(tmp_path, ["html"], ITEMS[:2])["html"].decode()
    assert "<th>output_label</th>" in whole
    assert "<th>error</th>" not in whole
    assert "engine_failed" not in whole


def test_markdown_keeps_its_table(tmp_path: Path) -> None:
    page = run(tmp_path, ["md"])["md"].decode()
    table = [line for line in page.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ITEMS)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {7}


def test_text_has_the_results_alone(tmp_path: Path) -> None:
    assert run(tmp_path, ["txt"])["txt"].decode() == "<i>good</i>\n坏\n\n"


def test_a_large_file_is_handed_out_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path, ["csv"])["csv"]
    monkeypatch.setattr(outputs, "PIECE_BYTES", 7)
    assert run(tmp_path, ["csv"])["csv"] == whole


def test_quantiles_are_at_most_a_third_off() -> None:
    tally = Tally()
    for ms in range(1, 1001):
        tally.add(Kept(0, ms=float(ms), at=ms / 1000))
    assert 500 <= tally.quantile_ms(0.5) <= 667
    assert 950 <= tally.quantile_ms(0.95) <= 1267
    assert tally.seconds == pytest.approx(1.0, abs=0.01)
    for ms in (0.0, 0.5, 1.0, 12_345.0):
        assert ms <= upper_ms(bucket_of(ms)) * 1.001


def test_a_task_without_one_result_still_has_figures() -> None:
    tally = Tally()
    tally.add(Kept(0, error=Failure("x", "y"), at=5.0))
    assert tally.to_dict()["counts"] == {"total": 1, "completed": 0, "failed": 1}
    assert tally.to_dict()["rows_per_s"] is None
    assert Tally().to_dict()["seconds"] == 0.0


@pytest.mark.parametrize("bars", [[], [Bar("a" * 99, 0, "0")], [Bar("&<>\"'", 3, "<3>")] * 30])
def test_charts_are_xml_whatever_is_in_them(bars: list[Bar]) -> None:
    for chart in (rows_chart("t", bars), columns_chart("t", bars, "ms")):
        root = ET.fromstring(chart)
        rects = [el for el in root.iter() if el.tag.endswith("rect")]
        assert len(rects) == len(bars)
        assert all(float(rect.get("width", "0")) > 0 for rect in rects)
