"""The program `task`: every row once, whatever is wrong with some of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmos.abi.inference import ChatPrompt, TextPrompt, Usage
from llmos.abi.program import Answer, Generate, Yielded
from llmos.abi.tasks import Policy, Prices, TaskKind, TaskSpec
from llmos.errors import (
    EngineFailed,
    InvalidRequest,
    LLMOSError,
    ModelNotFound,
    PluginError,
    QueueFull,
    ShuttingDown,
    UnsupportedParameter,
)
from llmos.programs.task import rounds
from llmos.programs.task.program import TaskProgram
from tests.unit.programs.fake_context import FakeContext, echo

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}
TEXTS = ["一 行", "two 🙂", 'three, "quoted"', "four\nlines"]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rounds, "PAUSES_S", (0.0,))


def spec(kind: str = "generate", **fields: Any) -> TaskSpec:
    fields.setdefault("items", TEXTS)
    return TaskSpec(kind=TaskKind(kind), model="m:1", **fields)


def context(tmp_path: Path, task: TaskSpec, **how: Any) -> FakeContext:
    return FakeContext(tmp_path, {"task": msgspec.to_builtins(task)}, **how)


def rows(ctx: FakeContext, stream: str = "rows") -> list[Any]:
    return [json.loads(line) for line in ctx.lines(stream)]


def said(text: str) -> Callable[[Generate], Answer]:
    return lambda request: Answer(model="m:1", text=text, usage=Usage(3, 2), finish_reason="stop")


def test_every_row_has_its_result_and_what_it_took(tmp_path: Path) -> None:
    ctx = context(tmp_path, spec())
    outputs = TaskProgram().run(ctx)
    assert [row["value"] for row in rows(ctx)] == [text.strip() for text in TEXTS]
    assert [row["row"] for row in rows(ctx)] == [0, 1, 2, 3]
    first = rows(ctx)[0]
    assert first["model"] == "m:1"
    assert first["request_id"] == "req_0123"
    assert (first["prompt_tokens"], first["completion_tokens"]) == (3, 2)
    assert outputs["status"] == "completed"
    assert outputs["counts"] == {"total": 4, "completed": 4, "failed": 0}
    assert outputs["usage"] == {"prompt_tokens": 12, "completion_tokens": 8}
    assert outputs["cost"] is None
    assert outputs["models"] == {"m:1": 4}
    assert [json.loads(line) for line in ctx.lines("raw:jsonl")[0].splitlines()] == [
        {"text": text, "output": text.strip(), "error": None} for text in TEXTS
    ]


def test_rows_of_an_earlier_attempt_are_not_asked_again(tmp_path: Path) -> None:
    first = context(tmp_path, spec(policy=Policy(window=1)))

    def stop_early(number: int) -> None:
        if number == 2:
            first.should_yield = True

    first.on_answer = stop_early
    with pytest.raises(Yielded):
        TaskProgram().run(first)
    again = context(tmp_path, spec(), rows=first.rows, attempt=2)
    outputs = TaskProgram().run(again)
    assert first.num_asked == 2
    assert again.num_asked == 2
    assert outputs["counts"] == {"total": 4, "completed": 4, "failed": 0}
    assert len(again.lines("raw:jsonl")[0].splitlines()) == 4


def test_an_attempt_that_dies_while_it_writes_leaves_pieces_that_fit(tmp_path: Path) -> None:
    """What is written twice is the same, so that whichever pieces are kept make one file."""
    task = spec(outputs=["jsonl", "html", "md", "csv", "json", "txt"])
    first = context(tmp_path, task)
    TaskProgram().run(first)
    kept = {key: row for key, row in first.rows.items() if not key[0].startswith("raw:")}
    again = context(tmp_path, task, rows=dict(kept), attempt=2)
    TaskProgram().run(again)
    assert again.num_asked == 0
    assert again.rows == first.rows


def test_a_cancelled_task_keeps_what_is_done(tmp_path: Path) -> None:
    ctx = context(tmp_path, spec(policy=Policy(window=1)))
    ctx.on_answer = lambda number: ctx.stop() if number == 2 else None
    outputs = TaskProgram().run(ctx)
    assert outputs == {"status": "cancelled", "counts": {"total": 4, "completed": 2, "failed": 0}}
    assert not ctx.lines("raw:jsonl"), "half a file is none"


def test_what_fails_fails_alone(tmp_path: Path) -> None:
    def answer(request: Generate) -> Answer:
        assert isinstance(request.prompt, ChatPrompt)
        if "two" in request.prompt.messages[0]["content"]:
            return Answer(request_id="req_2", error=EngineFailed("boom").to_info())
        return echo(request)

    ctx = context(tmp_path, spec(policy=Policy(retries=2)), answer=answer)
    outputs = TaskProgram().run(ctx)
    assert outputs["counts"] == {"total": 4, "completed": 3, "failed": 1}
    assert outputs["errors"] == {"engine_failed": 1}
    (failed,) = rows(ctx, "errors")
    assert failed["row"] == 1
    assert failed["error"] == {"code": "engine_failed", "message": "boom"}
    assert ctx.num_asked == 4 + 2, "one that may pass is tried again, so often as was said"
    line = json.loads(ctx.lines("raw:jsonl")[0].splitlines()[1])
    assert line == {"text": "two 🙂", "output": None, "error": "engine_failed: boom"}


def test_what_passes_is_tried_until_it_does(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    def answer(request: Generate) -> Answer:
        assert isinstance(request.prompt, ChatPrompt)
        text = request.prompt.messages[0]["content"]
        seen[text] = seen.get(text, 0) + 1
        if seen[text] < 3:
            return Answer(error=QueueFull("busy").to_info())
        return echo(request)

    ctx = context(tmp_path, spec(), answer=answer)
    assert TaskProgram().run(ctx)["counts"]["completed"] == 4


def test_what_the_caller_must_change_is_not_tried_again(tmp_path: Path) -> None:
    ctx = context(
        tmp_path, spec(), answer=lambda _: Answer(error=ModelNotFound("no m:1").to_info())
    )
    assert TaskProgram().run(ctx)["errors"] == {"model_not_found": 4}
    assert ctx.num_asked == 4


def test_a_server_that_stops_is_no_fault_of_a_row(tmp_path: Path) -> None:
    ctx = context(tmp_path, spec(), answer=lambda _: Answer(error=ShuttingDown("x").to_info()))
    with pytest.raises(ShuttingDown):
        TaskProgram().run(ctx)
    assert not ctx.rows


def test_rows_that_cannot_be_read_are_errors_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(
        '{"text": "好"}\nnot json\n\n{"text": null}\n{"other": 1}\n7\n{"text": "🙂"}\n'.encode()
    )
    ctx = context(tmp_path, spec(items=[]), files={"input": str(path)})
    outputs = TaskProgram().run(ctx)
    assert outputs["counts"] == {"total": 6, "completed": 2, "failed": 4}
    assert [row["row"] for row in rows(ctx)] == [0, 5]
    told = {row["row"]: row["error"]["message"] for row in rows(ctx, "errors")}
    assert set(told) == {1, 2, 3, 4}
    assert "not JSON" in told[1]
    assert "no 'text'" in told[2]
    assert "not int" in told[4]


def test_a_column_that_is_nowhere_is_the_tasks_error(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("review,stars\nnice,5\n")
    for columns, match in (
        ({}, "no column 'text'; it has 'review', 'stars'"),
        ({"text": "reviw"}, "did you mean 'review'"),
    ):
        task = spec(items=[], format="csv", columns=columns)
        ctx = context(tmp_path, task, files={"input": str(path)})
        with pytest.raises(InvalidRequest, match=match) as caught:
            TaskProgram().run(ctx)
        assert caught.value.param == "columns.text"
        assert ctx.num_asked == 0


def test_the_only_column_is_the_text(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("评论\n很好\n")
    task = spec(items=[], format="csv")
    ctx = context(tmp_path, task, files={"input": str(path)})
    TaskProgram().run(ctx)
    assert rows(ctx)[0]["value"] == "很好"


def test_a_prompt_reads_columns(tmp_path: Path) -> None:
    items = [{"name": "Ada", "n": 2}, {"name": "李", "n": 3}]
    task = spec(items=items, prompt="{% for _ in range(n) %}{{ name }} {% endfor %}")
    ctx = context(tmp_path, task)
    TaskProgram().run(ctx)
    assert [row["value"] for row in rows(ctx)] == ["Ada Ada", "李 李 李"]


@pytest.mark.parametrize(
    ("prompt", "match"),
    [
        ("{{ nam }}", "no column 'nam'; did you mean 'name'"),
        ("{% for %}", "cannot be read"),
        ("{{ name.__class__.__mro__ }}", ""),
    ],
)
def test_a_prompt_that_cannot_be_used(tmp_path: Path, prompt: str, match: str) -> None:
    ctx = context(tmp_path, spec(items=[{"name": "x"}], prompt=prompt))
    if match:
        with pytest.raises(InvalidRequest, match=match):
            TaskProgram().run(ctx)
    else:
        assert TaskProgram().run(ctx)["errors"] == {"invalid_request": 1}
        assert "unsafe" in rows(ctx, "errors")[0]["error"]["message"]


def test_messages_or_plain_text_as_the_model_wants_it(tmp_path: Path) -> None:
    asked: list[Generate] = []

    def answer(request: Generate) -> Answer:
        asked.append(request)
        return echo(request)

    task = spec(items=["hi"], system="Be brief.")
    TaskProgram().run(context(tmp_path, task, answer=answer))
    plain = msgspec.structs.replace(task, is_chat=False)
    TaskProgram().run(context(tmp_path, plain, answer=answer))
    assert asked[0].prompt == ChatPrompt(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    )
    assert asked[1].prompt == TextPrompt("Be brief.\nhi")


@pytest.mark.parametrize(
    ("text", "label"),
    [("positive", "positive"), (" Positive.", "positive"), ("It is negative!", "negative")],
)
def test_a_label_is_found_in_what_a_model_says(tmp_path: Path, text: str, label: str) -> None:
    task = spec("classify", items=["x"], labels=["positive", "negative"])
    ctx = context(tmp_path, task, answer=said(text))
    outputs = TaskProgram().run(ctx)
    assert rows(ctx)[0]["value"] == {"label": label}
    assert outputs["labels"] == {label: 1}


@pytest.mark.parametrize("text", ["", "neutral", "positive or negative", "unpositive"])
def test_an_answer_that_is_no_label_is_refused(tmp_path: Path, text: str) -> None:
    task = spec("classify", items=["x"], labels=["positive", "negative"])
    ctx = context(tmp_path, task, answer=said(text))
    assert TaskProgram().run(ctx)["errors"] == {"answer_rejected": 1}


def test_chinese_labels_need_no_spaces(tmp_path: Path) -> None:
    task = spec("classify", items=["x"], labels=["好评", "差评"])
    ctx = context(tmp_path, task, answer=said("这是好评。"))
    TaskProgram().run(ctx)
    assert rows(ctx)[0]["value"] == {"label": "好评"}


PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name"],
    "additionalProperties": False,
}


def test_json_by_a_schema_becomes_columns(tmp_path: Path) -> None:
    task = spec("extract", items=["x"], schema=PERSON, outputs=["csv"])
    ctx = context(tmp_path, task, answer=said('```json\n{"name": "李 🙂", "age": 3}\n```'))
    TaskProgram().run(ctx)
    assert ctx.lines("raw:csv")[0].decode() == "text,name,age,error\r\nx,李 🙂,3,\r\n"


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"age": 1}', '{"name": "x", "age": -1}', '{"name": "x", "z": 1}', "null"]
)
def test_json_that_does_not_fit_is_refused(tmp_path: Path, text: str) -> None:
    ctx = context(tmp_path, spec("extract", items=["x"], schema=PERSON), answer=said(text))
    assert TaskProgram().run(ctx)["errors"] == {"answer_rejected": 1}


def grammars_of(ctx: FakeContext, answer: Callable[[Generate], Answer]) -> list[Any]:
    """What each call was bound by."""
    asked: list[Any] = []

    def note(request: Generate) -> Answer:
        asked.append(request.sampling.grammar)
        return answer(request)

    ctx.answer = note
    TaskProgram().run(ctx)
    return asked


def test_an_answer_is_bound_by_what_it_has_to_be(tmp_path: Path) -> None:
    by_schema = context(tmp_path, spec(schema=SCHEMA, items=["x"]))
    (grammar,) = grammars_of(by_schema, said('{"name": "Ada"}'))
    assert (grammar.kind, json.loads(grammar.text)) == ("json_schema", SCHEMA)
    by_label = context(tmp_path, spec("classify", labels=["good", 'the "bad"', "差"], items=["x"]))
    (grammar,) = grammars_of(by_label, said("good"))
    assert (grammar.kind, grammar.text) == ("lark", r'start: "good" | "the \"bad\"" | "差"')
    own_words = spec("classify", labels=["a"], prompt="Think aloud: {{ text }}", items=["x"])
    assert grammars_of(context(tmp_path, own_words), said("a")) == [None]


@pytest.mark.parametrize(
    "error",
    [
        UnsupportedParameter("the driver has no grammar", param="grammar"),
        PluginError("structured output needs an extra"),
    ],
)
def test_who_cannot_be_bound_is_asked_in_words(tmp_path: Path, error: LLMOSError) -> None:
    """The calls that it refused are made again, and are no failures of their rows."""

    def refuse(request: Generate) -> Answer:
        if request.sampling.grammar is None:
            return said("good")(request)
        return Answer(error=error.to_info())

    ctx = context(tmp_path, spec("classify", labels=["good", "bad"], policy=Policy(retries=0)))
    asked = grammars_of(ctx, refuse)
    assert [row["value"] for row in rows(ctx)] == [{"label": "good"}] * 4
    assert not rows(ctx, "errors")
    assert asked[0] is not None
    assert asked[-4:] == [None] * 4


def test_who_refuses_a_grammar_for_ever_is_not_asked_for_ever(tmp_path: Path) -> None:
    ctx = context(tmp_path, spec(schema=SCHEMA, items=["x"]))
    error = UnsupportedParameter("no grammar here", param="grammar").to_info()
    assert len(grammars_of(ctx, lambda _: Answer(error=error))) == 2
    assert rows(ctx, "errors")[0]["error"]["code"] == "unsupported_parameter"


def test_a_refused_answer_has_cost_what_it_cost(tmp_path: Path) -> None:
    policy = Policy(prices=Prices(1.0, 10.0))
    ctx = context(tmp_path, spec(schema=SCHEMA, items=["x", "y"], policy=policy))
    outputs = TaskProgram().run(FakeContext(tmp_path, ctx.inputs, answer=said("no JSON")))
    assert outputs["usage"] == {"prompt_tokens": 6, "completion_tokens": 4}
    assert outputs["cost"] == pytest.approx(2 * (3 * 1.0 + 2 * 10.0) / 1e6)
    assert outputs["first_error"]["row"] == 0
    assert outputs["first_error"]["code"] == "answer_rejected"
    assert "not JSON" in outputs["first_error"]["message"]


def test_an_answer_that_was_cut_says_so(tmp_path: Path) -> None:
    cut = Answer(text='{"name": "A', finish_reason="length", usage=Usage(3, 2))
    ctx = context(tmp_path, spec(schema=SCHEMA, items=["x"]), answer=lambda _: cut)
    TaskProgram().run(ctx)
    assert "cut at max_tokens" in rows(ctx, "errors")[0]["error"]["message"]


def test_a_schema_that_cannot_be_obeyed_is_refused_at_the_start(tmp_path: Path) -> None:
    for schema in ({"type": "object", "$ref": "#"}, {"type": "thing"}, {"items": 3}):
        ctx = context(tmp_path, spec("extract", schema=schema))
        with pytest.raises(InvalidRequest, match="schema"):
            TaskProgram().run(ctx)
        assert ctx.num_asked == 0


@pytest.mark.parametrize(
    ("task", "match"),
    [
        (spec("classify"), "labels"),
        (spec("translate"), "language"),
        (spec("embed"), "embed needs a model for it"),
        (spec("embed", work="embeddings", prompt="{{ text }}"), "does not"),
        (spec(items=[]), "no rows"),
        (spec(keep=["nope"]), "no column 'nope'"),
    ],
)
def test_a_task_that_makes_no_sense(tmp_path: Path, task: TaskSpec, match: str) -> None:
    with pytest.raises(InvalidRequest, match=match):
        TaskProgram().run(context(tmp_path, task))


def test_inputs_that_are_no_task(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="task: "):
        TaskProgram().run(FakeContext(tmp_path, {"task": {"kind": "dance", "model": "m"}}))


# policy


def test_a_budget_of_tokens_ends_the_rest(tmp_path: Path) -> None:
    task = spec(policy=Policy(max_tokens=10, window=1))
    ctx = context(tmp_path, task)
    outputs = TaskProgram().run(ctx)
    assert outputs["counts"] == {"total": 4, "completed": 2, "failed": 2}
    assert outputs["errors"] == {"quota_exceeded": 2}


def test_a_budget_counts_what_earlier_attempts_spent(tmp_path: Path) -> None:
    task = spec(policy=Policy(max_tokens=10, window=1))
    first = context(tmp_path, task)
    first.on_answer = lambda number: setattr(first, "should_yield", True)
    with pytest.raises(Yielded):
        TaskProgram().run(first)
    again = context(tmp_path, task, rows=first.rows, attempt=2)
    assert TaskProgram().run(again)["counts"]["completed"] == 2
    assert again.num_asked == 1


def test_cost_by_the_tasks_prices_and_its_budget(tmp_path: Path) -> None:
    prices = Prices(prompt=100_000, completion=50_000)  # 0.4 for an answer of 3 and 2 tokens
    ctx = context(tmp_path, spec(policy=Policy(prices=prices, max_cost=0.7, window=1)))
    outputs = TaskProgram().run(ctx)
    assert rows(ctx)[0]["cost"] == pytest.approx(0.4)
    assert outputs["cost"] == pytest.approx(0.8)
    assert outputs["counts"]["completed"] == 2


def test_a_task_whose_time_is_over_ends_with_what_it_has(tmp_path: Path) -> None:
    ctx = context(tmp_path, spec(policy=Policy(expires_at=time.time() - 1)))
    outputs = TaskProgram().run(ctx)
    assert ctx.num_asked == 0
    assert outputs["status"] == "expired"
    assert outputs["errors"] == {"deadline_exceeded": 4}


@pytest.mark.parametrize(
    ("policy", "least", "most"),
    [
        (Policy(), None, None),
        (Policy(timeout_s=2), 2000, 2000),
        (Policy(expires_at=5.0), 1, 5000),
        (Policy(expires_at=5.0, timeout_s=1), 1000, 1000),
        (Policy(expires_at=5000.0), None, None),
    ],
)
def test_no_call_outlasts_its_task(
    tmp_path: Path, policy: Policy, least: int | None, most: int | None
) -> None:
    asked: list[Generate] = []

    def answer(request: Generate) -> Answer:
        asked.append(request)
        return echo(request)

    if policy.expires_at is not None:
        policy = msgspec.structs.replace(policy, expires_at=time.time() + policy.expires_at)
    TaskProgram().run(context(tmp_path, spec(items=["x"], policy=policy), answer=answer))
    found = asked[0].options.deadline_ms
    if least is None or most is None:
        assert found is None
    else:
        assert found is not None
        assert least <= found <= most


def test_told_to_stop_before_the_first_row(tmp_path: Path) -> None:
    ctx = context(tmp_path, spec(items=["x"] * 300))
    ctx.stop()
    assert TaskProgram().run(ctx)["status"] == "cancelled"
    assert ctx.num_asked == 0
