"""Tasks on the real server: each row exactly once, whatever dies on the way."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmos.abi.jobs import ENDED
from llmos.abi.syscall_jobs import JobReply
from llmos.errors import NotFound
from llmos.sdk import Client
from tests.system.server import POLL_S, Server
from tests.system.test_batches import PATIENCE_POLLS, SETTINGS, pids_of
from tests.unit.drivers.encoder.folders import make_folder

LOAD_TIMEOUT_S = 240.0
"""A worker that loads an engine takes its time where others are at work."""

NUM_ROWS = 3000
"""So many that there is time to kill somebody in the middle, however fast the machine."""

TEXTS = [f'第 {i} 行, "quoted" 🙂\nsecond' for i in range(NUM_ROWS)]


@pytest.fixture
def own(own_server: Server) -> Iterator[Server]:
    own_server.options = SETTINGS
    yield own_server.start()


@pytest.fixture
def sdk(server: Server) -> Iterator[Client]:
    with Client(server.url, server.token) as client:
        yield client


def until(client: Client, task_id: str, done: Callable[[JobReply], bool]) -> JobReply:
    pause = threading.Event()
    for _ in range(PATIENCE_POLLS):
        reply = client.tasks.show(task_id)
        if done(reply):
            return reply
        assert reply.job.state not in ENDED, reply
        pause.wait(POLL_S)
    pytest.fail(f"not in time: {client.tasks.show(task_id)}")


def end(client: Client, task_id: str) -> JobReply:
    return until(client, task_id, lambda reply: reply.job.state in ENDED)


def until_done(client: Client, task_id: str, least: int) -> None:
    until(client, task_id, lambda reply: num_done(reply) >= least)


def result(client: Client, task_id: str, name: str | None = None) -> bytes:
    made = io.BytesIO()
    client.tasks.result(task_id, made.write, name)
    return made.getvalue()


def num_done(reply: JobReply) -> int:
    return 0 if reply.job.progress is None else int(reply.job.progress.done)


def csv_file(folder: Path, texts: list[str] = TEXTS) -> Path:
    path = folder / "rows.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text"])
        writer.writerows(enumerate(texts))
    return path


def paced(file_id: str, **fields: Any) -> dict[str, Any]:
    """A task of echo that takes a while: its prompt asks for a long answer."""
    return {
        "type": "generate",
        "model": "echo",
        "input": {"file": file_id, "format": "csv"},
        "sampling": {"max_tokens": 200},
        "output": {"formats": ["csv", "jsonl", "html"]},
        "policy": {"window": 8},
        **fields,
    }


def check_each_once(client: Client, task_id: str) -> None:
    reply = end(client, task_id)
    assert reply.job.state == "succeeded", reply
    assert reply.job.outputs is not None
    counts = {"total": NUM_ROWS, "completed": NUM_ROWS, "failed": 0}
    assert reply.job.outputs["counts"] == counts
    text = result(client, task_id, "csv").decode()
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [int(row["id"]) for row in rows] == list(range(NUM_ROWS))
    assert [row["text"] for row in rows] == TEXTS
    assert [row["output"] for row in rows] == TEXTS
    kept = [json.loads(line) for line in result(client, task_id, "rows").splitlines()]
    assert [row["row"] for row in kept] == list(range(NUM_ROWS))
    assert len({row["request_id"] for row in kept}) == NUM_ROWS
    assert all(row["model"].startswith("echo:") and row["completion_tokens"] for row in kept)
    assert b"<svg" in result(client, task_id, "html")


def has_program(server: Server) -> bool:
    """Progress outlives the server, so it tells nothing of whether the next attempt has begun."""
    return pids_of(server, "program") != []


def test_a_server_killed_in_the_middle_costs_no_row_and_doubles_none(
    own: Server, tmp_path: Path
) -> None:
    """Twice kill -9 of the whole server, then of the program's worker alone."""
    path = csv_file(tmp_path)
    with Client(own.url, own.token) as client:
        task_id = client.tasks.create(paced(client.files.put(path).id)).job.job_id
        until_done(client, task_id, NUM_ROWS // 8)
    for share in (5, 4):
        own.kill()
        own.start()
        with Client(own.url, own.token) as client:
            until_done(client, task_id, NUM_ROWS // share)
    with Client(own.url, own.token) as client:
        until(client, task_id, lambda _: has_program(own))
    (pid,) = pids_of(own, "program")
    os.kill(pid, signal.SIGKILL)
    with Client(own.url, own.token) as client:
        check_each_once(client, task_id)


def test_bad_rows_fail_alone(sdk: Client, tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes("text\n好 🙂\none,two\n".encode() + b'\xff\n""\nlast\n')
    file = sdk.files.put(path)
    task = {"type": "generate", "model": "echo", "input": {"file": file.id}}
    reply = end(sdk, sdk.tasks.create(task).job.job_id)
    assert reply.job.outputs is not None
    assert reply.job.outputs["counts"] == {"total": 5, "completed": 2, "failed": 3}
    rows = [json.loads(line) for line in result(sdk, reply.job.job_id).splitlines()]
    assert [row["output"] for row in rows] == ["好 🙂", None, None, None, "last"]
    assert "2 fields" in rows[1]["error"]
    assert "UTF-8" in rows[2]["error"]
    assert "empty" in rows[3]["error"]


def test_errors_of_a_task_without_one_are_empty(sdk: Client) -> None:
    wanted = {"type": "generate", "model": "echo", "input": {"items": ["fine"]}}
    task_id = sdk.tasks.create(wanted).job.job_id
    assert end(sdk, task_id).job.state == "succeeded"
    assert result(sdk, task_id, "errors") == b""
    with pytest.raises(NotFound, match="no results as 'csv'"):
        result(sdk, task_id, "csv")


@pytest.mark.parametrize(
    ("columns", "says"), [({}, "it has 'a', 'b'"), ({"text": "aa"}, "did you mean 'a'")]
)
def test_a_missing_column_fails_the_task_at_once(
    sdk: Client, tmp_path: Path, columns: dict[str, str], says: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\n1,2\n")
    given = {"file": sdk.files.put(path).id, "columns": columns}
    reply = sdk.tasks.create({"type": "generate", "model": "echo", "input": given})
    ended = end(sdk, reply.job.job_id).job
    assert ended.state == "failed"
    assert ended.error is not None
    assert says in ended.error.message
    assert ended.attempt == 1


def test_a_cancelled_task_keeps_its_rows(sdk: Client, tmp_path: Path) -> None:
    task_id = sdk.tasks.create(paced(sdk.files.put(csv_file(tmp_path)).id)).job.job_id
    until_done(sdk, task_id, 20)
    sdk.tasks.cancel(task_id)
    assert end(sdk, task_id).job.state == "cancelled"
    assert len(result(sdk, task_id, "rows").splitlines()) >= 20


def test_an_expired_task_says_what_was_left(sdk: Client, tmp_path: Path) -> None:
    task = paced(sdk.files.put(csv_file(tmp_path)).id, policy={"deadline_s": 1.0, "window": 1})
    ended = end(sdk, sdk.tasks.create(task).job.job_id).job
    assert ended.state == "succeeded"
    assert ended.outputs is not None
    assert ended.outputs["status"] == "expired"
    assert ended.outputs["counts"]["failed"] == ended.outputs["errors"]["deadline_exceeded"]
    assert ended.outputs["counts"]["total"] == NUM_ROWS


# the command line


def test_a_task_file_from_end_to_end(server: Server, tmp_path: Path) -> None:
    csv_file(tmp_path, ["一 🙂", "two"])
    task = tmp_path / "task.yaml"
    task.write_text(
        "type: generate\nmodel: echo\ninput: {path: rows.csv}\n"
        "prompt: 'Row {{ id }}: {{ text }}'\n"
        "output: {path: [out.csv, out.md, out.html, out.json, out.txt], columns: [id]}\n",
        encoding="utf-8",
    )
    done = server.cli("task", "run", str(task))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.csv").read_text() == "id,output,error\n0,Row 0: 一 🙂,\n1,Row 1: two,\n"
    assert (tmp_path / "out.txt").read_text() == "Row 0: 一 🙂\nRow 1: two\n"
    assert json.loads((tmp_path / "out.json").read_text())[1]["output"] == "Row 1: two"
    assert "completed: 2 of 2" in done.stderr


def test_stdin_to_stdout(server: Server) -> None:
    done = server.cli("task", "generate", "-m", "echo", stdin="你好 🙂\n\nsecond\n")
    assert (done.returncode, done.stdout) == (0, "你好 🙂\nsecond\n"), done.stderr


def test_an_unknown_model_is_refused_with_near_names(server: Server) -> None:
    done = server.cli("task", "generate", "-m", "ecko", "--text", "x", "--json")
    assert done.returncode == 1
    assert json.loads(done.stderr)["error"]["code"] == "model_not_found"
    assert "echo" in done.stderr


def test_nobody_classifies_without_labels_or_a_classifier(server: Server) -> None:
    done = server.cli("task", "embed", "-m", "echo", "--text", "x")
    assert done.returncode == 1
    assert "is for generate" in done.stderr


@pytest.mark.timeout(600)
def test_a_classifier_and_an_embedder_do_many_rows_a_call(server: Server, tmp_path: Path) -> None:
    classifier = make_folder(
        tmp_path / "judge",
        "BertForSequenceClassification",
        id2label={0: "bad", 1: "good"},
        label2id={"bad": 0, "good": 1},
    )
    embedder = make_folder(tmp_path / "vectors", "BertModel")
    rows = [f"the cat sat on a mat {i}" for i in range(100)] + ["  "]
    csv_file(tmp_path, rows)
    for folder in (classifier, embedder):
        assert server.cli("pull", str(folder)).returncode == 0
    source = ("--csv", str(tmp_path / "rows.csv"), "--column", "text")
    out = tmp_path / "out.csv"
    task = ("task", "classify", "-m", "judge", *source, "-o", str(out))
    done = server.cli(*task, timeout_s=LOAD_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    made = list(csv.DictReader(io.StringIO(out.read_text("utf-8"), newline="")))
    assert len(made) == 101
    assert {row["label"] for row in made[:100]} <= {"good", "bad"}
    assert all(0.5 <= float(row["score"]) <= 1 for row in made[:100])
    assert "empty" in made[100]["error"]
    vectors = tmp_path / "v.jsonl"
    task = ("task", "embed", "-m", "vectors", *source, "-o", str(vectors))
    done = server.cli(*task, timeout_s=LOAD_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    first = json.loads(vectors.read_text().splitlines()[0])["output"]
    assert len(first) == 32
    assert sum(x * x for x in first) == pytest.approx(1.0, abs=1e-4)
