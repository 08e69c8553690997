"""What pages show, made of what the sdk answers."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmos.abi.jobs import JobEvent, JobProgress, JobRecord, JobSpec, JobState
from llmos.abi.memory import DeviceMemory, Holding, LackOfRoom, MemoryInfo
from llmos.abi.principal import Principal, ServiceClass
from llmos.abi.registry import ModelVersion, PullProgress
from llmos.abi.settings import SettingInfo
from llmos.abi.syscall import Decided, ProcessInfo, ProcessStory, ReplicaInfo, StatusInfo
from llmos.abi.syscall_jobs import JobReply
from llmos.console.config import ConsoleConfig
from llmos.console.views import models, overview, runs, settings, talk, tasks
from llmos.console.views.processes import PAGE_SIZE, Query, select, short
from llmos.errors import InvalidRequest
from llmos.library.catalogue import search
from llmos.sdk.draw import charts, curves
from llmos.sdk.draw.life import stays, timeline

NS = 1_000_000_000


def _process(number: int, state: str = "running", **fields: Any) -> ProcessInfo:
    base = {
        "process_id": f"req_{number:032x}",
        "kind": "generate",
        "state": state,
        "model": "pilot:1",
        "tenant_id": "ten_1",
        "principal": "ann",
        "service_class": ServiceClass.DEFAULT,
        "nice": 0,
        "prompt_tokens": number,
        "completion_tokens": 0,
        "created_ns": number * NS,
        "started_ns": None,
        "ended_ns": None,
        "reason": "",
    }
    return ProcessInfo(**base | fields)


def test_ten_thousand_processes_are_shown_a_page_at_a_time() -> None:
    many = [_process(n, "running" if n % 2 else "finished") for n in range(10_000)]
    began = time.process_time()
    shown = select(many, Query("all", sort="tokens", descending=True), 20_000 * NS)
    assert time.process_time() - began < 1.0
    assert (shown.total, shown.first, len(shown.rows)) == (10_000, 1, PAGE_SIZE)
    assert shown.rows[0].prompt_tokens == 9999
    live = select(many, Query("live", number=99), 20_000 * NS)
    assert (live.total, live.number, live.first) == (5000, 99, 4951)
    assert select(many, Query("live", number=10**6), 0).number == 99
    assert select([], Query(), 0).total == 0


def test_words_are_found_wherever_they_stand() -> None:
    some = [_process(1, name="review"), _process(2, principal="Bea"), _process(3, "waiting")]
    assert [p.name for p in select(some, Query(words="REV pilot"), 0).rows] == ["review"]
    assert [p.principal for p in select(some, Query(words="bea"), 0).rows] == ["Bea"]
    assert select(some, Query(words="nobody"), 0).rows == []


@pytest.mark.parametrize(
    "name", ["process", "state", "model", "owner", "class", "progress", "age", "took"]
)
def test_every_column_sorts(name: str) -> None:
    some = [_process(2, progress=0.5), _process(1), _process(3, "waiting", nice=5)]
    up = select(some, Query(sort=name), 10 * NS).rows
    down = select(some, Query(sort=name, descending=True), 10 * NS).rows
    assert {p.process_id for p in up} == {p.process_id for p in down}
    assert up[0] != up[-1]


def test_a_query_turns_pages_and_begins_anew() -> None:
    query = Query(number=3)
    assert query.turned(-5).number == 0
    assert query.with_words("x").number == 0
    assert query.with_group("all").number == 0
    assert query.sorted_by("age", True).number == 0
    assert short("req_01a22762350c79f195de9f8b87a7fc34") == "req_…87a7fc34"
    assert short("job_1") == "job_1"


def test_a_story_is_told_as_stays_without_gaps() -> None:
    info = _process(1, "finished", created_ns=100 * NS, ended_ns=110 * NS)
    story = ProcessStory(
        info,
        [
            Decided(101 * NS, "waiting", "queued <b>"),
            Decided(102 * NS, "waiting", "still"),
            Decided(104 * NS, "running", "a row"),
            Decided(110 * NS, "finished", "stop"),
        ],
    )
    made = stays(story, 500 * NS)
    assert [(s.state, s.begin_s, s.length_s) for s in made] == [
        ("waiting", 0.0, 4.0),
        ("running", 4.0, 6.0),
        ("finished", 10.0, 0.0),
    ]
    assert len(made[0].reasons) == 2
    drawn = timeline(made, str.upper)
    assert "queued &lt;b&gt;" in drawn
    assert "WAITING" in drawn
    assert timeline([], str) == '<div class="life" aria-hidden="true"></div><ol class="stays"></ol>'


def test_a_live_story_lasts_until_now() -> None:
    story = ProcessStory(_process(1, created_ns=0), [Decided(0, "running", "")])
    assert stays(story, 7 * NS)[0].length_s == 7.0


def _status(**fields: Any) -> StatusInfo:
    base = {
        "ready": True,
        "problems": [],
        "version": "1",
        "epoch": 1,
        "started_ns": 0,
        "num_queued": 0,
        "num_running": 0,
        "memory_total_bytes": 100,
        "memory_budget_bytes": 80,
        "memory_reserved_bytes": 8,
    }
    return StatusInfo(**base | fields)


def _replica(state: str = "ready", **fields: Any) -> ReplicaInfo:
    base = {
        "replica_id": "rep_1",
        "model": "m:1",
        "driver": "native",
        "state": state,
        "worker_id": None,
        "num_slots": 4,
        "num_running": 0,
        "num_waiting": 0,
        "reserved_bytes": 1,
        "memory": None,
        "dtype": "",
        "device": "",
        "deterministic": None,
        "since_ns": 0,
        "reason": "no file",
        "num_restarts": 0,
    }
    return ReplicaInfo(**base | fields)


def test_what_needs_somebody_is_told_worst_first() -> None:
    device = DeviceMemory("host", 100, 80, 79, None, [])
    memory = MemoryInfo([device], [LackOfRoom("big:1", 1 << 30, 3.0, "no room")], 0, 0, 1 << 20)
    replicas = [_replica("failed"), _replica(num_restarts=2, warnings=["slow"])]
    found = overview.alerts(_status(ready=False, problems=["no disk"]), memory, replicas)
    assert [a.key.partition(".")[2] for a in found] == [
        *("problem", "failed", "disk"),
        *("restarted", "slow", "lacking", "full"),
    ]
    assert [a.level for a in found] == ["bad"] * 3 + ["warn"] * 4
    assert overview.alerts(_status(), None, [_replica()]) == []


def test_speed_is_between_two_looks_of_one_server() -> None:
    log = overview.SpeedLog()
    assert log.look(_status(num_tokens=10), 1.0) is None
    assert log.look(_status(num_tokens=30), 3.0) == 10.0
    assert log.look(_status(num_tokens=0, epoch=2), 4.0) is None
    assert log.look(_status(num_tokens=5, epoch=2), 5.0) == 5.0
    assert list(log.points) == [(3.0, 10.0), (5.0, 5.0)]


def test_a_ledger_adds_up_to_its_budget() -> None:
    held = [Holding(f"rep_{n}", "replica", f"m{n}", n) for n in range(10)]
    parts = overview.ledger(DeviceMemory("host", 200, 100, 45, None, held), "free", "others")
    assert sum(part.amount for part in parts) == 100
    assert [part.name for part in parts[-2:]] == ["others", "free"]
    assert parts[0].name == "m9 · replica"
    bar = charts.stacked_bar(parts, 100, "<x>")
    assert "&lt;x&gt;" in bar
    assert bar.count("<i ") == len(parts)
    assert charts.part_list(parts).count("<li>") == len(parts)


@pytest.mark.parametrize(
    ("span", "step"), [(1, 0.25), (10, 2.5), (3, 1), (1e-6, 2.5e-7), (0, 1), (float("inf"), 1)]
)
def test_axes_have_round_steps(span: float, step: float) -> None:
    assert charts.nice_step(span) == pytest.approx(step)


def test_lines_are_drawn_and_what_is_no_number_is_left_out() -> None:
    nan = float("nan")
    line = charts.Line("loss", [(0, 1.0), (1, nan), (2, 0.5), (3, float("inf"))])
    drawn = charts.line_chart(
        [line, charts.Line("one", [(1, 2.0)]), charts.Line("none", [])], "<t>"
    )
    assert drawn.count('class="line') == 1
    assert drawn.count("<circle") == 1
    assert "nan" not in drawn
    assert "inf" not in drawn
    assert 'aria-label="&lt;t&gt;"' in drawn
    assert "<path" not in charts.line_chart([], "x")
    flat = charts.line_chart([charts.Line("x", [(0, 5.0), (1, 5.0)])], "x", from_zero=False)
    assert 'class="line' in flat
    assert "&lt;b&gt;" in charts.legend(["<b>"])
    assert "&lt;b&gt;" in charts.bars([("<b>", 2)], "x")


def _model(name: str, version: str = "1", **fields: Any) -> ModelVersion:
    base = {
        "model_id": f"mdl_{name}",
        "name": name,
        "version": version,
        "driver": "native",
        "format": "safetensors",
        "folder": "/",
        "digest": "sha256:0",
        "size_bytes": 10,
        "context_length": 1024,
        "vocab_size": 1,
        "prepare": "",
        "source": "hf:a/b@main",
        "created_ns": int(version),
    }
    return ModelVersion(**base | fields)


def test_models_that_talk_come_first() -> None:
    found = talk.speakers(
        [
            _model("echo", driver="echo"),
            _model("bert", kinds=["text-classification"]),
            _model("vit", kinds=["image-classification"]),
            _model("a"),
            _model("pilot", "1"),
            _model("pilot", "2", kinds=["generate", "embeddings"]),
        ]
    )
    assert list(found) == ["pilot", "a", "bert", "vit", "echo"]
    assert found["pilot"].talks
    assert found["vit"].looks
    assert not found["bert"].looks


def test_parameters_that_were_filled_in_are_sent() -> None:
    given = {"temperature": 0.5, "max_tokens": 7.0, "seed": None, "class": "batch", "tools": ""}
    assert talk.sampling(given) == {
        "temperature": 0.5,
        "max_tokens": 7,
        "llmos": {"class": "batch"},
    }
    assert talk.sampling({"class": "default"}) == {}
    tool = {"type": "function", "function": {"name": "f"}}
    assert talk.read_tools('{"name": "f"}') == [tool]
    assert talk.sampling({"tools": '[{"type": "function", "function": {"name": "f"}}]'}) == {
        "tools": [tool]
    }
    assert talk.conversation(" be kind ", [{"role": "user", "content": "x"}])[0] == {
        "role": "system",
        "content": "be kind",
    }
    assert talk.conversation("  ", []) == []


@pytest.mark.parametrize("text", ["{", "[1]", '"x"', "[" * 5000])
def test_bad_tools_are_refused(text: str) -> None:
    with pytest.raises(InvalidRequest):
        talk.read_tools(text)


def test_findings_are_bars_or_what_they_are() -> None:
    labels = talk.finding([{"label": "<b>", "score": 0.25}, {"label": "y", "score": 0.75}])
    assert labels.index("0.750") < labels.index("0.250")
    assert "&lt;b&gt;" in labels
    assert "0.900" in talk.finding({"label": "x", "score": 0.9})
    assert "0.400" in talk.finding({"labels": {"x": 0.4}})
    assert "20 numbers" in talk.finding([0.1] * 20)
    assert "&lt;script&gt;" in talk.finding({"text": "<script>"})


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("hf:a/b", "hf:a/b"),
        ("a/b", "hf:a/b"),
        (" openai:https://x/v1#m ", "openai:https://x/v1#m"),
        (search(["smollm2"])[0].name, search(["smollm2"])[0].source),
    ],
)
def test_what_to_pull_is_understood(text: str, source: str) -> None:
    assert models.source_of(text) == source


@pytest.mark.parametrize(
    "text", ["", " ", "file:/etc/passwd", "/etc", "~/x", "./x", "upload:upl_1"]
)
def test_files_of_the_servers_machine_are_not_pulled(text: str) -> None:
    with pytest.raises(InvalidRequest):
        models.source_of(text)


def test_a_card_leaves_out_what_nobody_knows() -> None:
    facts = dict(models.card(_model("x", license="mit", num_parameters=2_177_088)))
    assert facts["license"] == "mit"
    assert facts["params"] == "2.18 M"
    assert "architecture" not in facts
    states = models.states([_replica("starting"), _replica("ready"), _replica("failed")])
    assert states == {"m:1": "ready"}
    assert models.share(PullProgress("download", "f", 5, 10)) == 0.5
    assert models.share(PullProgress("check", "", 0, 0)) is None
    assert models.progress_words(PullProgress("download", "f", 2048, 0)) == "f · 2 KiB"
    here = [_model("smollm2-135m"), _model("b")]
    rows = models.known(search([]), here)
    assert rows
    assert "smollm2-135m" not in [row["id"] for row in rows]
    assert [m.ref for m in models.ordered([_model("b"), _model("a"), _model("a", "2")])] == [
        "a:2",
        "a:1",
        "b:1",
    ]
    chip = {"chip": "ready", "tone": "good"}
    assert models.row(_model("x"), "ready", chip)["cells"]["state"] == chip


def _job(state: str = "running", **fields: Any) -> JobRecord:
    spec = JobSpec(program="task", inputs={"task": {"kind": "classify", "model": "m:1"}})
    base = {
        "job_id": "job_1",
        "principal": Principal("prn_1", "ten_1", "ann"),
        "spec": spec,
        "state": JobState(state),
        "created_ns": 0,
        "epoch": 1,
    }
    return JobRecord(**base | fields)


def test_a_task_is_declared_as_it_was_filled_in() -> None:
    given = {
        "type": "classify",
        "labels": "好评，差评\n x ",
        "column": " review ",
        "to": "",
        "name": "n",
    }
    made = tasks.declaration(given, "file-1")
    assert made["input"] == {"file": "file-1", "column": "review"}
    assert made["labels"] == ["好评", "差评", "x"]
    assert made["model"] == "auto"
    assert made["name"] == "n"
    assert "to" not in made
    assert tasks.declaration({"type": "embed", "items": "a\n\n b"}, None)["input"] == {
        "items": ["a", " b"]
    }
    with pytest.raises(InvalidRequest):
        tasks.declaration({"type": "embed", "items": " \n"}, None)


def test_a_task_tells_how_far_it_is_and_what_came_of_it() -> None:
    running = _job(progress=JobProgress(1, 4, counts={"completed": 1}))
    assert tasks.done_share(running) == 0.25
    assert tasks.done_share(_job()) is None
    outputs = {
        "counts": {"total": 3, "completed": 2, "failed": 1},
        "usage": {"prompt_tokens": 5, "completion_tokens": 1},
        "labels": {"a": 1, "b": 2},
        "rows_per_s": 12.0,
        "files": {"raw:csv": "file-2", "raw:jsonl": "file-1", "rows": "file-3", "errors": None},
    }
    done = _job("succeeded", outputs=outputs, started_ns=0, ended_ns=NS)
    facts = dict(tasks.facts(JobReply(done)))
    assert (facts["completed"], facts["failed"], facts["tokens"]) == ("2", "1", "6")
    assert tasks.labels_of(done) == [("b", 2), ("a", 1)]
    assert tasks.files_of(done) == ["jsonl", "csv", "rows"]
    assert tasks.files_of(_job(outputs={"files": 7})) == []
    row = tasks.row(done, {"chip": "x"}, "classify", 9 * NS)
    assert row["cells"]["progress"]["text"] == "100 %"
    assert row["cells"]["took"] == "1.0 s"


def test_a_preview_shows_whole_lines_only() -> None:
    data = (
        b'{"text": "a", "n": 1}\n[1]\n{"text": "'
        + b"x" * 500
        + b'", "more": {"k": 1}}\n{"text": "cut'
    )
    columns, rows = tasks.preview(data)
    assert columns == ["text", "n", "more"]
    assert len(rows) == 2
    assert rows[0]["cells"] == {"text": "a", "n": "1", "more": "–"}
    assert len(rows[1]["cells"]["text"]) == tasks.MAX_CELL_CHARS
    assert len(tasks.preview(b'{"a": 1}\n' * 500)[1]) == tasks.MAX_ROWS


def _event(number: int, kind: str, **value: Any) -> JobEvent:
    return JobEvent("job_1", number, 0, kind, value)


def test_a_run_log_makes_curves_and_samples() -> None:
    log = curves.RunLog()
    assert log.feed(
        [
            _event(1, "metric", step=1, loss=2.0, epoch=0.1, name="x", ok=True),
            _event(2, "metric", step=2, loss=1.0, learning_rate=0.1),
            _event(3, "metric", step=2, split="validation", loss=1.5),
            _event(4, "output", step=2, text="hi", label="a"),
            _event(5, "log", text="no"),
            _event(6, "metric", pressure=1),
        ]
    )
    assert log.after == 6
    assert log.curves["loss"] == [(1.0, 2.0), (2.0, 1.0)]
    assert log.curves["validation loss"] == [(2.0, 1.5)]
    assert log.curves["pressure"] == [(0.0, 1.0)]
    assert curves.names_of([log])[:2] == ["loss", "validation loss"]
    assert runs.sample_text(log.samples[0][1]) == "text: hi  ·  label: a"
    assert not log.feed([])
    assert "loss 1" in runs.last_values(log)
    assert [
        line.name for line in curves.lines_of("loss", [("r", log), ("s", curves.RunLog())])
    ] == [
        "r",
        "s",
    ]


def test_long_curves_are_thinned_and_keep_their_spikes() -> None:
    points = [(float(x), 1.0) for x in range(100_000)]
    points[54_321] = (54_321.0, 99.0)
    kept = curves.thinned(points)
    assert len(kept) <= curves.MAX_POINTS + 1
    assert (54_321.0, 99.0) in kept
    assert kept[-1] == points[-1]
    assert kept == sorted(kept)


def test_settings_are_narrowed() -> None:
    some = [
        SettingInfo("api.port", 8400, "default", "TCP port"),
        SettingInfo("preload", ["a", "b"], "flag", "Models"),
        SettingInfo("home", "/x", "/etc/llmos.toml", "State"),
        SettingInfo("console.enabled", True, "environment", ""),
    ]

    def keys(words: str, origin: str) -> list[str]:
        return [row["id"] for row in settings.rows(some, words, origin, lambda key, default: key)]

    assert keys("", "all") == [one.key for one in some]
    assert keys("tcp", "all") == ["api.port"]
    assert keys("", "set") == ["preload", "home", "console.enabled"]
    assert keys("", "default") == ["api.port"]
    rows = settings.rows(some, "", "all", lambda key, default: default)
    assert [row["cells"]["value"] for row in rows] == ["8400", "a, b", "/x", "true"]


def test_a_dear_page_looks_less_often() -> None:
    from llmos.console.live import MAX_PERIOD_S, Pace

    pace = Pace(ConsoleConfig(refresh_s=1.0, max_core_share=0.01))
    assert pace.after(0.001) == 1.0
    for _ in range(30):
        period_s = pace.after(0.05)
    assert period_s == pytest.approx(5.0, rel=0.01)
    for _ in range(30):
        period_s = pace.after(10.0)
    assert period_s == MAX_PERIOD_S
