"""Tasks of models that answer item by item: many rows share a call."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from llmos.abi.events import ItemOutput
from llmos.abi.inference import ItemsPrompt, Usage
from llmos.abi.program import Answer, Generate
from llmos.errors import (
    InvalidRequest,
)
from llmos.programs.task.program import TaskProgram
from tests.unit.programs.test_task import _no_pauses, context, rows, spec

__all__ = ["_no_pauses"]  # fixtures


def _by_items(value: Callable[[Any], Any], data: bytes = b"") -> Callable[[Generate], Answer]:
    def answer(request: Generate) -> Answer:
        assert isinstance(request.prompt, ItemsPrompt)
        outputs = [
            made if isinstance(made := value(item), ItemOutput) else ItemOutput(index, made, data)
            for index, item in enumerate(request.prompt.items)
        ]
        numbered = [msgspec.structs.replace(o, index=i) for i, o in enumerate(outputs)]
        return Answer(model="enc:1", outputs=numbered[::-1], usage=Usage(64, 0))

    return answer


def test_many_rows_share_a_call_and_one_bad_one_fails_alone(tmp_path: Path) -> None:
    def value(item: Any) -> Any:
        if item == "text 40":
            error = InvalidRequest("too odd").to_info()
            return ItemOutput(0, error=error)
        return [{"label": "good" if int(item.split()[1]) % 2 else "bad", "score": 0.75}]

    items = [*(f"text {i}" for i in range(70)), "  "]
    task = spec("classify", work="text-classification", items=items, outputs=["csv"])
    ctx = context(tmp_path, task, answer=_by_items(value))
    outputs = TaskProgram().run(ctx)
    assert ctx.num_asked == 3
    assert outputs["counts"] == {"total": 71, "completed": 69, "failed": 2}
    assert outputs["labels"] == {"good": 35, "bad": 34}
    lines = ctx.lines("raw:csv")[0].decode().splitlines()
    assert lines[0] == "text,label,score,error"
    assert lines[2] == "text 1,good,0.75,"
    assert lines[41] == "text 40,,,invalid_request: too odd"
    assert "empty" in lines[71]


def test_the_tasks_labels_are_a_zero_shot_models_candidates(tmp_path: Path) -> None:
    asked: list[Generate] = []

    def answer(request: Generate) -> Answer:
        asked.append(request)
        return _by_items(lambda _: [{"label": "b", "score": 0.5}, {"label": "a", "score": 0.5}])(
            request
        )

    task = spec("classify", work="zero-shot-classification", items=["x"], labels=["a", "b"])
    ctx = context(tmp_path, task, answer=answer)
    TaskProgram().run(ctx)
    prompt = asked[0].prompt
    assert isinstance(prompt, ItemsPrompt)
    assert prompt.params == {"candidate_labels": ["a", "b"]}
    assert rows(ctx)[0]["value"]["label"] == "b"


def test_vectors(tmp_path: Path) -> None:
    data = array("f", [0.6, -0.8]).tobytes()
    task = spec("embed", work="embeddings", items=["x"], keep=[])
    ctx = context(tmp_path, task, answer=_by_items(lambda _: None, data))
    TaskProgram().run(ctx)
    assert json.loads(ctx.lines("raw:jsonl")[0]) == {"output": [0.6, -0.8], "error": None}


def test_documents_are_ordered_by_their_query(tmp_path: Path) -> None:
    items = [
        {"query": "q", "documents": ["a", "bbb", "cc"]},
        {"query": "q", "documents": []},
        {"query": "q", "documents": "a"},
    ]
    task = spec("rerank", work="rerank", items=items)
    ctx = context(
        tmp_path, task, answer=_by_items(lambda item: {"score": float(len(item["text"]))})
    )
    outputs = TaskProgram().run(ctx)
    assert [one["index"] for one in rows(ctx)[0]["value"]] == [1, 2, 0]
    assert outputs["counts"]["failed"] == 2


def test_answers_to_questions(tmp_path: Path) -> None:
    items = [{"q": "who?", "context": "the cat"}]
    task = spec("qa", work="question-answering", items=items, columns={"question": "q"})
    seen: list[Any] = []

    def value(item: Any) -> Any:
        seen.append(item)
        return [{"answer": "the cat", "score": 0.9, "start": 0, "end": 7}]

    ctx = context(tmp_path, task, answer=_by_items(value))
    TaskProgram().run(ctx)
    assert seen == [{"question": "who?", "context": "the cat"}]
    line = json.loads(ctx.lines("raw:jsonl")[0])
    assert (line["answer"], line["score"]) == ("the cat", 0.9)


def test_an_answer_of_another_shape_fails_its_row(tmp_path: Path) -> None:
    task = spec("classify", work="text-classification", items=["x"])
    ctx = context(tmp_path, task, answer=_by_items(lambda _: {"odd": 1}))
    assert TaskProgram().run(ctx)["errors"] == {"answer_rejected": 1}
