"""The batch program over a context in memory: every line once, whatever happens on the way."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.abi.inference import ChatPrompt
from llmos.abi.program import Answer, Generate, Yielded
from llmos.errors import (
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    LLMOSError,
    ModelNotFound,
    QueueFull,
    ShuttingDown,
)
from llmos.programs.batch import program as batch
from llmos.programs.batch.program import BatchProgram
from tests.unit.programs.fake_context import FakeContext, Rows, echo

CHAT = "/v1/chat/completions"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "PAUSES_S", (0.0,))


def line(custom_id: str, content: str = "hi", url: str = CHAT, **body: Any) -> str:
    asked = {"model": "echo", **body}
    if url == CHAT:
        asked.setdefault("messages", [{"role": "user", "content": content}])
    elif url == "/v1/responses":
        asked.setdefault("input", content)
    else:
        asked.setdefault("prompt", content)
    made = {"custom_id": custom_id, "method": "POST", "url": url, "body": asked}
    return json.dumps(made, ensure_ascii=False)


def context(folder: Path, lines: list[str] | bytes, url: str = CHAT, **options: Any) -> FakeContext:
    path = folder / "input.jsonl"
    path.write_bytes(lines if isinstance(lines, bytes) else "\n".join(lines).encode())
    inputs = {"endpoint": url, **options.pop("inputs", {})}
    return FakeContext(folder, inputs, {"input": str(path)}, **options)


def run(ctx: FakeContext) -> dict[str, Any]:
    return dict(BatchProgram().run(ctx))


def failing(code: Callable[[str], LLMOSError | None]) -> Callable[[Generate], Answer]:
    """Echo, but for contents that `code` has an error for."""

    def answer(request: Generate) -> Answer:
        assert isinstance(request.prompt, ChatPrompt)
        error = code(request.prompt.messages[-1]["content"])
        return echo(request) if error is None else Answer(error=error.to_info())

    return answer


def test_every_line_is_answered_in_openai_s_shape(tmp_path: Path) -> None:
    ctx = context(tmp_path, [line("a", "你好\u2028🎉"), line("b", "two")])
    assert run(ctx) == {
        "status": "completed",
        "request_counts": {"total": 2, "completed": 2, "failed": 0},
        "model": "echo",
    }
    first, second = ctx.lines("output")
    assert b"\xe2\x80\xa8" not in first  # a reader may split lines there
    row = json.loads(first)
    assert row["id"] == "batch_req_7_1"
    assert (row["custom_id"], row["error"]) == ("a", None)
    assert row["response"]["status_code"] == 200
    assert row["response"]["request_id"] == "req_0123"
    body = row["response"]["body"]
    assert body["object"] == "chat.completion"
    assert body["choices"][0]["message"]["content"] == "你好\u2028🎉"
    assert body["usage"]["total_tokens"] == 5
    assert json.loads(second)["custom_id"] == "b"
    assert not ctx.lines("error")


@pytest.mark.parametrize(
    ("url", "kind"), [("/v1/completions", "text_completion"), ("/v1/responses", "response")]
)
def test_other_routes_are_answered_in_their_shape(tmp_path: Path, url: str, kind: str) -> None:
    ctx = context(tmp_path, [line("a", "once", url=url)], url=url)
    assert run(ctx)["status"] == "completed"
    [row] = ctx.lines("output")
    body = json.loads(row)["response"]["body"]
    assert body["object"] == kind
    assert "once" in json.dumps(body)


def test_token_ids_are_given_to_those_who_asked(tmp_path: Path) -> None:
    ctx = context(tmp_path, [line("a", return_token_ids=True), line("b")])
    run(ctx)
    bodies = [json.loads(row)["response"]["body"] for row in ctx.lines("output")]
    assert [body["choices"][0].get("token_ids") for body in bodies] == [[1, 2], None]


def test_what_a_line_asks_wrongly_is_its_error_alone(tmp_path: Path) -> None:
    def no_model(content: str) -> LLMOSError | None:
        return ModelNotFound("no model is called gone") if content == "gone" else None

    duplicate = '{"custom_id":"d","method":"POST","url":"%s","body":{"model":"m","model":"n"}}'
    lines = [
        line("good"),
        line("field", frobnicate=1),
        line("streamed", stream=True),
        line("no-model", "gone"),
        line("hot", temperature=9),
        duplicate % CHAT,
        line("null", "a\0b"),
    ]
    ctx = context(tmp_path, lines, answer=failing(no_model))
    assert run(ctx)["request_counts"] == {"total": 7, "completed": 1, "failed": 6}
    rows = {row["custom_id"]: row for row in map(json.loads, ctx.lines("error"))}
    assert {key: row["response"]["status_code"] for key, row in rows.items()} == {
        "field": 400,
        "streamed": 400,
        "no-model": 404,
        "hot": 400,
        "d": 400,
        "null": 400,
    }
    error = rows["field"]["response"]["body"]["error"]
    assert (error["code"], error["param"]) == ("unknown_parameter", "frobnicate")
    assert rows["no-model"]["response"]["body"]["error"]["code"] == "model_not_found"
    assert all(row["error"] is None for row in rows.values())
    assert ctx.num_asked == 2


@pytest.mark.parametrize("kind", [[], {}, [["text"]]], ids=str)
def test_a_part_of_no_type_is_its_line_s_error(tmp_path: Path, kind: Any) -> None:
    messages = [{"role": "user", "content": [{"type": kind}]}]
    ctx = context(tmp_path, [line("bad", messages=messages), line("good")])
    assert run(ctx)["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    (row,) = map(json.loads, ctx.lines("error"))
    assert row["response"]["status_code"] == 400
    assert row["response"]["body"]["error"]["param"] == "messages.0.content.0.type"


def test_what_may_pass_is_tried_again_in_a_later_round(tmp_path: Path) -> None:
    seen: Counter[str] = Counter()

    def twice(content: str) -> LLMOSError | None:
        seen[content] += 1
        return EngineFailed("broken") if content == "odd" and seen[content] < 3 else None

    ctx = context(tmp_path, [line("a"), line("b", "odd"), line("c")], answer=failing(twice))
    assert run(ctx)["request_counts"] == {"total": 3, "completed": 3, "failed": 0}
    assert seen["odd"] == 3


def test_what_never_passes_fails_after_a_bounded_number_of_tries(tmp_path: Path) -> None:
    def never(content: str) -> LLMOSError | None:
        return EngineFailed("broken") if content == "odd" else None

    ctx = context(tmp_path, [line("a"), line("b", "odd")], answer=failing(never))
    assert run(ctx)["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    assert ctx.num_asked == 1 + 1 + batch.MAX_VAIN_ROUNDS
    [row] = map(json.loads, ctx.lines("error"))
    assert row["response"]["status_code"] == 502


def test_calls_are_put_off_after_failures_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    monkeypatch.setattr(batch, "time", clock)
    monkeypatch.setattr(batch, "PAUSES_S", (0.25, 10.0))
    full = QueueFull("full", retry_after_s=7.0)
    ctx = context(tmp_path, [line("a")], answer=failing(lambda content: full))
    run(ctx)
    assert clock.now_s >= 7.0 * batch.MAX_VAIN_ROUNDS


class FakeTime:
    """A clock that moves when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.utc_s = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return self.utc_s + self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def test_the_server_s_end_is_no_line_s_fault(tmp_path: Path) -> None:
    def drain(content: str) -> LLMOSError | None:
        return ShuttingDown("draining") if content == "late" else None

    ctx = context(tmp_path, [line("a", "late"), line("b")], answer=failing(drain))
    with pytest.raises(ShuttingDown) as caught:
        run(ctx)
    assert caught.value.retryable
    assert not ctx.lines("error")


def test_a_cancelled_batch_keeps_what_is_done(tmp_path: Path) -> None:
    ctx = context(tmp_path, [line(str(i)) for i in range(10)], inputs={"window": 3})
    ctx.on_answer = lambda number: ctx.stop() if number == 4 else None
    outputs = run(ctx)
    assert outputs["status"] == "cancelled"
    assert outputs["request_counts"] == {"total": 10, "completed": 4, "failed": 0}
    assert len(ctx.lines("output")) == 4
    assert not ctx.lines("error")


def test_a_batch_stopped_after_its_last_line_is_complete(tmp_path: Path) -> None:
    ctx = context(tmp_path, [line(str(i)) for i in range(3)])
    ctx.on_answer = lambda number: ctx.stop() if number == 3 else None
    assert run(ctx)["status"] == "completed"


def test_asked_to_yield_it_puts_away_what_is_under_way(tmp_path: Path) -> None:
    rows: Rows = {}
    ctx = context(tmp_path, [line(str(i)) for i in range(10)], inputs={"window": 3}, rows=rows)

    def yield_at(number: int) -> None:
        ctx.should_yield = ctx.should_yield or number == 4

    ctx.on_answer = yield_at
    with pytest.raises(Yielded):
        run(ctx)
    assert 4 <= len(rows) <= 7
    again = context(tmp_path, [line(str(i)) for i in range(10)], rows=rows, attempt=2)
    assert run(again)["request_counts"]["completed"] == 10
    assert again.num_asked == 10 - ctx.num_asked


def test_what_is_left_when_it_expires_gets_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    monkeypatch.setattr(batch, "time", clock)
    deadlines: list[int | None] = []

    def slow(request: Generate) -> Answer:
        clock.sleep(30.0)
        deadlines.append(request.options.deadline_ms)
        return echo(request)

    inputs = {"expires_at": clock.time() + 1000.0, "window": 1, "completion_window": "24h"}
    ctx = context(tmp_path, [line(str(i)) for i in range(100)], answer=slow, inputs=inputs)
    outputs = run(ctx)
    assert outputs["status"] == "expired"
    assert outputs["request_counts"] == {"total": 100, "completed": 34, "failed": 66}
    row = json.loads(ctx.lines("error")[0])
    assert row["response"] is None
    assert row["error"]["code"] == "batch_expired"
    assert deadlines[0] is None  # far from the end
    assert deadlines[-1] == 10_000


def test_a_call_that_outlasts_the_batch_has_expired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    monkeypatch.setattr(batch, "time", clock)
    inputs = {"expires_at": clock.time() + 60.0}
    late = failing(lambda content: DeadlineExceeded("too late"))
    ctx = context(tmp_path, [line("a")], answer=late, inputs=inputs)
    assert run(ctx)["status"] == "expired"
    [row] = map(json.loads, ctx.lines("error"))
    assert row["error"]["code"] == "batch_expired"


def test_a_line_s_own_deadline_is_its_own_affair(tmp_path: Path) -> None:
    late = failing(lambda content: DeadlineExceeded("too late"))
    inputs = {"expires_at": time.time() + 60.0}
    ctx = context(tmp_path, [line("a", llmos={"deadline_ms": 5})], answer=late, inputs=inputs)
    assert run(ctx)["status"] == "completed"
    [row] = map(json.loads, ctx.lines("error"))
    assert row["response"]["status_code"] == 504


def test_stopped_when_it_expires_it_still_writes_the_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeTime()
    monkeypatch.setattr(batch, "time", clock)
    inputs = {"expires_at": clock.time() + 10.0, "window": 2}
    ctx = context(tmp_path, [line(str(i)) for i in range(5)], inputs=inputs)

    def stop(number: int) -> None:
        clock.sleep(20.0)
        ctx.stop()

    ctx.on_answer = stop
    assert run(ctx)["status"] == "expired"
    assert (len(ctx.lines("output")), len(ctx.lines("error"))) == (1, 4)


def test_progress_counts_and_phases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "PROGRESS_PERIOD_S", 0.0)
    ctx = context(tmp_path, [line("a"), line("b", frobnicate=1)])
    run(ctx)
    phases = [what for _, _, what, _ in ctx.told]
    assert phases[0] == "validating"
    assert "in_progress" in phases
    assert ctx.told[-1] == (2, 2, "finalizing", {"total": 2, "completed": 1, "failed": 1})


def test_a_long_check_is_not_made_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "LONG_CHECK_S", -1.0)
    rows: Rows = {}
    ctx = context(tmp_path, [line("a"), line("b")], rows=rows)
    run(ctx)
    [state] = ctx.checkpoints
    (tmp_path / "state").write_bytes(state)
    monkeypatch.setattr(batch, "check_file", None)
    resumed = str(tmp_path / "state")
    again = context(tmp_path, [line("a"), line("b")], rows=rows, resumed_from=resumed)
    assert run(again)["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
    assert again.num_asked == 0


@pytest.mark.parametrize(
    "inputs",
    [
        {"endpoint": "/v1/embeddings"},
        {"endpoint": CHAT, "window": 0},
        {"endpoint": CHAT, "typo": 1},
        {},
    ],
)
def test_inputs_that_are_wrong_are_refused(tmp_path: Path, inputs: dict[str, Any]) -> None:
    (tmp_path / "f").write_text(line("a"))
    with pytest.raises(InvalidRequest):
        BatchProgram().run(FakeContext(tmp_path, inputs, {"input": str(tmp_path / "f")}))


def test_a_batch_without_its_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="input"):
        BatchProgram().run(FakeContext(tmp_path, {"endpoint": CHAT}))


@given(
    st.lists(st.sampled_from(["ok", "fail", "bad"]), min_size=1, max_size=40),
    st.lists(st.integers(1, 25), max_size=6),
    st.integers(1, 9),
)
def test_each_line_has_one_row_however_often_it_is_stopped(
    tmp_path_factory: pytest.TempPathFactory, kinds: list[str], stops: list[int], window: int
) -> None:
    """Attempts end after some answers, the rows kept so far being all the next one knows."""
    folder = tmp_path_factory.mktemp("batch")
    lines = [
        line(f"id-{i}", kind, **({"n": 99} if kind == "bad" else {}))
        for i, kind in enumerate(kinds)
    ]
    answer = failing(lambda content: InvalidRequest("no") if content == "fail" else None)
    rows: Rows = {}
    num_asked = 0
    for attempt, stop in enumerate([*stops, 10**6], 1):
        ctx = context(
            folder, lines, answer=answer, rows=rows, attempt=attempt, inputs={"window": window}
        )
        # killed: what was asked has no row when it dies before the answer is kept
        ctx.on_answer = lambda number, ctx=ctx, stop=stop: ctx.stop() if number == stop else None
        outputs = run(ctx)
        num_asked += ctx.num_asked
    assert outputs["status"] == "completed"
    ids = [
        json.loads(body)["custom_id"] for name in ("output", "error") for body in ctx.lines(name)
    ]
    assert sorted(ids) == sorted(f"id-{i}" for i in range(len(kinds)))
    counts = Counter(kinds)
    assert outputs["request_counts"] == {
        "total": len(kinds),
        "completed": counts["ok"],
        "failed": counts["fail"] + counts["bad"],
    }
    assert num_asked == counts["ok"] + counts["fail"]
    assert ctx.most_open <= window
