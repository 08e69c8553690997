"""`llmos task …`: what it asks the server for, and where results go."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit.cli.conftest import Run
from tests.unit.cli.test_jobs import FILE, RECORD, ok
from tests.unit.sdk.fake import Server, refusal

TASK_ID = RECORD["job_id"]
OUTPUTS = {
    "status": "completed",
    "counts": {"total": 3, "completed": 2, "failed": 1},
    "errors": {"engine_failed": 1},
    "first_error": {"row": 7, "code": "engine_failed", "message": "it broke"},
    "usage": {"prompt_tokens": 1200, "completion_tokens": 3},
    "labels": {"good": 2},
    "rows_per_s": 1.5,
    "ms": {"p50": 100.0, "p95": 1780.0},
    "files": {"rows": "file_2", "errors": None, "raw:csv": "file_3"},
    "seconds": 2.0,
    "cost": 0.25,
}
SPEC = {"program": "task", "inputs": {"task": {"kind": "classify", "model": "m:1"}}}
LIVE = {**RECORD, "spec": SPEC}
DONE = {**LIVE, "state": "succeeded", "outputs": OUTPUTS, "reason": "it returned"}
CSV = 'text,label,error\r\n"好, 🙂",good,\r\n'.encode()


@pytest.fixture
def tasks(server: Server) -> Server:
    server.routes["POST /os/v1/tasks"] = ok({"job": LIVE})
    server.routes["GET /os/v1/tasks"] = ok({"jobs": [LIVE], "has_more": False})
    server.routes["POST /v1/files"] = ok(FILE)
    server.routes[f"GET /os/v1/tasks/{TASK_ID}"] = ok({"job": DONE})
    server.routes[f"GET /os/v1/tasks/{TASK_ID}/result"] = httpx.Response(200, content=CSV)
    return server


def asked(server: Server) -> Any:
    (request,) = [r for r in server.requests if r.method == "POST" and r.url.path == "/os/v1/tasks"]
    return json.loads(request.content)


def sent(server: Server) -> bytes:
    (request,) = [r for r in server.requests if r.url.path == "/v1/files"]
    return request.content


def test_classify_sends_the_file_and_saves_the_results(
    llmos: Run, tasks: Server, tmp_path: Path
) -> None:
    source = tmp_path / "reviews.csv"
    source.write_text("text\n很好 🙂\n")
    done = llmos(
        *("task", "classify", "-m", "m", "--csv", str(source), "--column", "text"),
        *("-o", str(tmp_path / "out.csv"), "-o", str(tmp_path / "r.html"), "--label", "good"),
        *("--deadline", "2h", "--retries", "1", "--budget-tokens", "9", "--map", "a=b"),
    )
    assert done.code == 0, done.err
    assert asked(tasks) == {
        "type": "classify",
        "model": "m",
        "input": {
            "format": "csv",
            "column": "text",
            "columns": {"a": "b"},
            "file": "file_1",
        },
        "output": {"formats": ["csv", "html"]},
        "policy": {"class": "batch", "deadline_s": 7200.0, "retries": 1, "max_tokens": 9},
        "labels": ["good"],
    }
    assert "很好 🙂".encode() in sent(tasks)
    assert (tmp_path / "out.csv").read_bytes() == CSV
    assert {p.name for p in tmp_path.iterdir()} >= {"out.csv", "r.html"}
    assert not list(tmp_path.glob("*.partial")) + list(tmp_path.glob(".*.partial"))
    assert "completed: 2 of 3" in done.err
    assert "1 engine_failed" in done.err
    assert "row 7: it broke" in done.err
    assert "llmos task result 00000001 --errors" in done.err
    assert "$0.2500" in done.err


def test_without_a_file_results_go_to_stdout(llmos: Run, tasks: Server) -> None:
    done = llmos("task", "summarize", "--text", "一", "--text", "two")
    assert done.code == 0
    assert asked(tasks)["input"] == {"items": ["一", "two"]}
    assert asked(tasks)["output"] == {"formats": ["txt"]}


def test_what_is_piped_in_is_the_input(llmos: Run, tasks: Server) -> None:
    done = llmos("task", "translate", "--to", "English", stdin="你好\n🙂\n")
    assert done.code == 0, done.err
    assert asked(tasks)["to"] == "English"
    assert asked(tasks)["input"] == {"file": "file_1"}
    assert "你好\n🙂\n".encode() in sent(tasks)
    assert b'filename="stdin.txt"' in sent(tasks)


def test_a_folder_is_one_row_a_file(llmos: Run, tasks: Server, tmp_path: Path) -> None:
    folder = tmp_path / "minutes"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_text("一月")
    (folder / "sub" / "b.md").write_text("feb")
    (folder / "c.bin").write_bytes(b"\xff\x00")
    (folder / ".hidden").write_text("x")
    done = llmos("task", "summarize", "--input", str(folder))
    assert done.code == 0, done.err
    rows = [json.loads(line) for line in sent(tasks).splitlines() if line.startswith(b'{"file"')]
    assert rows == [
        {"file": "a.txt", "text": "一月"},
        {"file": "c.bin", "text": None},
        {"file": "sub/b.md", "text": "feb"},
    ]
    assert b'filename="minutes.jsonl"' in sent(tasks)


def test_a_task_file_is_sent_as_it_says(llmos: Run, tasks: Server, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\nx\n")
    task = tmp_path / "t.yaml"
    task.write_text(
        "type: classify\nlabels: [好, 坏]\ninput: {path: in.csv, column: text}\n"
        "output:\n  path: [out.csv, report.html]\npolicy: {class: batch, retries: 2}\n",
        encoding="utf-8",
    )
    done = llmos("task", "run", str(task))
    assert done.code == 0, done.err
    assert asked(tasks) == {
        "type": "classify",
        "labels": ["好", "坏"],
        "input": {"column": "text", "file": "file_1"},
        "output": {"formats": ["csv", "html"]},
        "policy": {"class": "batch", "retries": 2},
    }
    assert (tmp_path / "out.csv").read_bytes() == CSV
    assert (tmp_path / "report.html").exists()


def test_yes_and_no_are_words(llmos: Run, tasks: Server, tmp_path: Path) -> None:
    task = tmp_path / "t.yaml"
    task.write_text("type: classify\nlabels: [yes, no, on, off]\ninput: {items: [x]}\n")
    assert llmos("task", "run", str(task)).code == 0
    assert asked(tasks)["labels"] == ["yes", "no", "on", "off"]


def test_another_output_than_the_task_files(llmos: Run, tasks: Server, tmp_path: Path) -> None:
    task = tmp_path / "t.yaml"
    task.write_text("type: generate\ninput: {items: [x]}\noutput: {path: a.csv, columns: []}\n")
    assert llmos("task", "run", str(task), "-o", str(tmp_path / "b.json")).code == 0
    assert asked(tasks)["output"] == {"columns": [], "formats": ["json"]}
    assert (tmp_path / "b.json").exists()
    assert not (tmp_path / "a.csv").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("type: [", "not YAML"),
        ("- a\n- b\n", "holds no task"),
        ("!!python/object:os.system x", "not YAML"),
        ("type: generate\ninput: {path: 3}\n", "input.path"),
        ("type: generate\noutput: {path: [3]}\n", "output.path"),
        ("type: generate\noutput: {path: a.xls}\n", "suffix"),
        ("type: generate\noutput: {path: [a.csv, b.csv]}\n", "both csv"),
        ("type: generate\noutput: {path: no/such/folder/a.csv}\n", "no folder"),
        ("type: generate\ninput: {path: nothing.csv}\n", "cannot be read"),
    ],
)
def test_a_task_file_that_is_none(
    llmos: Run, tasks: Server, tmp_path: Path, text: str, says: str
) -> None:
    task = tmp_path / "t.yaml"
    task.write_text(text)
    done = llmos("task", "run", str(task))
    assert done.code == 1
    assert says in done.err.replace("\n", " ")
    assert not [r for r in tasks.requests if r.url.path == "/os/v1/tasks"]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("classify", "--text", "x", "--to", "English"), "--to is none of"),
        (("translate", "--text", "x", "--label", "a"), "--label is none of"),
        (("classify", "--text", "x", "--csv", "y"), "one of them"),
        (("classify", "--text", "x", "--map", "ab"), "NAME=COLUMN"),
        (("classify", "--text", "x", "--deadline", "soon"), "soon"),
    ],
)
def test_options_that_make_no_sense(
    llmos: Run, tasks: Server, args: tuple[str, ...], says: str
) -> None:
    done = llmos("task", *args)
    assert done.code == 2
    assert says in done.err


def test_no_input_on_a_terminal(llmos: Run, tasks: Server) -> None:
    done = llmos("task", "classify", is_tty=True)
    assert done.code == 2
    assert "there is no input" in done.err


def test_schema_and_prompt_come_from_files(llmos: Run, tasks: Server, tmp_path: Path) -> None:
    (tmp_path / "s.json").write_text('{"type": "object"}')
    (tmp_path / "p.txt").write_text("Reply: {{ text }}")
    args = ("--schema", f"@{tmp_path / 's.json'}", "--prompt", f"@{tmp_path / 'p.txt'}")
    assert llmos("task", "extract", "--text", "x", *args).code == 0
    assert asked(tasks)["schema"] == {"type": "object"}
    assert asked(tasks)["prompt"] == "Reply: {{ text }}"
    assert llmos("task", "extract", "--text", "x", "--schema", "{").code == 1


def test_detached_only_the_id_is_told(llmos: Run, tasks: Server) -> None:
    done = llmos("task", "generate", "--text", "x", "--detach")
    assert (done.code, done.out) == (0, f"{TASK_ID}\n")


def test_as_json_the_end_is_told(llmos: Run, tasks: Server) -> None:
    done = llmos("task", "generate", "--text", "x", "--json")
    assert done.code == 0
    assert done.json["outputs"]["status"] == "completed"


@pytest.mark.parametrize(
    ("record", "says"),
    [
        (
            {**LIVE, "state": "failed", "error": {"code": "invalid_request", "message": "no col"}},
            "no col (invalid_request)",
        ),
        (
            {
                **LIVE,
                "state": "failed",
                "error": {"code": "invalid_request", "message": "no", "param": "columns.text"},
            },
            "hint: --column NAME",
        ),
        ({**LIVE, "state": "cancelled", "reason": "by ada"}, "cancelled: by ada"),
        ({**DONE, "outputs": {**OUTPUTS, "status": "expired"}}, "expired: 2 of 3"),
        (
            {**DONE, "outputs": {**OUTPUTS, "counts": {"total": 3, "completed": 0, "failed": 3}}},
            "completed: 0 of 3",
        ),
    ],
)
def test_what_was_not_done_is_an_exit_code(
    llmos: Run, tasks: Server, record: dict[str, Any], says: str
) -> None:
    tasks.routes[f"GET /os/v1/tasks/{TASK_ID}"] = ok({"job": record})
    done = llmos("task", "generate", "--text", "x")
    assert done.code == 1
    assert says in done.err


def test_an_unknown_model_is_told_with_its_hint(llmos: Run, tasks: Server) -> None:
    tasks.routes["POST /os/v1/tasks"] = refusal(404, "model_not_found")
    done = llmos("task", "generate", "--text", "x", "-m", "nobody")
    assert done.code == 1
    assert "llmos ls" in done.err


def test_ls_show_cancel_result(llmos: Run, tasks: Server, tmp_path: Path) -> None:
    tasks.routes[f"GET /os/v1/jobs/{TASK_ID}"] = ok({"job": DONE})
    spent = {
        "cpu_s": 1.25,
        "engine_s": 2,
        "memory_bytes": 3_000_000,
        "joules": 8.5,
        "basis": "rapl",
    }
    more = {**spent, "memory_bytes": 5_000_000, "joules": None, "basis": "estimate: 7 W"}
    tasks.routes[f"GET /os/v1/jobs/{TASK_ID}/events"] = ok(
        {
            "events": [
                {"job_id": TASK_ID, "number": n, "at_ns": n, "kind": "spent", "value": value}
                for n, value in enumerate((spent, {"cpu_s": "a program's own"}, more), 1)
            ]
        }
    )
    tasks.routes["GET /os/v1/jobs"] = ok({"jobs": [LIVE], "has_more": False})
    tasks.routes[f"POST /os/v1/tasks/{TASK_ID}/cancel"] = ok({"job": DONE})
    listed = llmos("task", "ls")
    assert "classify" in listed.out
    assert "25 % of 12" in listed.out
    assert llmos("task", "ls", "--json").json["jobs"][0]["job_id"] == TASK_ID
    shown = llmos("task", "show", "00000001").out
    for line in (
        r"model +m:1",
        r"chosen +by name",
        r"state +succeeded",
        r"rows +2 done, 1 failed",
        r"tokens +1,200 in, 3 out",
        r"answered +half within 0.1 s, 95 % within 1.78 s",
        r"cost +\$0.2500",
        r"labels +2 good",
        r"used +2\.500 s of processors, 4\.000 s of its engine, 5\.0 MB, 8\.5 J \(estimate: 7 W\)",
        r"results +rows, csv: llmos task result 00000001",
    ):
        assert re.search(line, shown), (line, shown)
    assert "succeeded" in llmos("task", "cancel", "00000001").out
    assert llmos("task", "result", TASK_ID, "-o", str(tmp_path / "x.csv")).code == 0
    assert (tmp_path / "x.csv").read_bytes() == CSV
    assert llmos("task", "result", TASK_ID, "--rows").code == 0
    assert tasks.requests[-1].url.query == b"format=rows"
