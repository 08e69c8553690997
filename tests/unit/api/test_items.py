"""Routes of work that is answered item by item: bodies in, answers out, errors in their place."""

from __future__ import annotations

import asyncio
import base64
from array import array
from typing import Any

import pytest

from llmos.abi.events import Finished, FinishReason, ItemOutput, Outputs
from llmos.abi.inference import ItemsPrompt, Usage
from llmos.abi.syscall import Infer, Syscall
from llmos.errors import InvalidRequest, ModelNotFound
from llmos.shapes.embeddings import EmbeddingsAnswer
from llmos.shapes.kinds import InferAnswer
from llmos.shapes.moderations import ModerationsAnswer
from llmos.shapes.rerank import RerankAnswer
from tests.unit.api.fake_gate import FakeGate, edge

BAD = InvalidRequest("no", param="input").to_info()
LABELS = [{"label": "toxic", "score": 0.8}, {"label": "SAFE", "score": 0.2}]


def _output(index: int, item: Any, kind: str) -> ItemOutput:
    if item == "bad":
        return ItemOutput(index, error=BAD)
    note = "cut" if item == "long" else ""
    if kind == "embeddings":
        return ItemOutput(index, data=array("f", [index, 0.5]).tobytes(), note=note)
    if kind == "rerank":
        return ItemOutput(index, {"score": len(item["text"]) / 10}, note=note)
    return ItemOutput(index, LABELS, note=note)


async def _answers(gate: FakeGate, call: Syscall) -> None:
    """In two messages, the last item first."""
    assert isinstance(call.body, Infer)
    prompt = call.body.prompt
    assert isinstance(prompt, ItemsPrompt)
    if call.body.model == "moderation":
        raise ModelNotFound("no model 'moderation'", param="model")
    gate.accept(call)
    made = [_output(i, item, prompt.kind) for i, item in enumerate(prompt.items)]
    gate.emit(call, Outputs("r", made[1:][::-1]), Outputs("r", made[:1]))
    gate.emit(call, Finished("r", FinishReason.STOP, Usage(7)))


def _ask(path: str, body: dict[str, Any]) -> tuple[int, Any, ItemsPrompt | None]:
    """Status, answer, and what the gate was asked for."""

    async def scene() -> tuple[int, Any, ItemsPrompt | None]:
        async with edge({Infer: _answers}) as e:
            response = await e.post(path, body)
            asked = [b for b in e.gate.bodies if isinstance(b, Infer)]
            prompt = asked[0].prompt if asked else None
            assert prompt is None or isinstance(prompt, ItemsPrompt)
            return response.status_code, response.json(), prompt

    return asyncio.run(scene())


@pytest.mark.parametrize(
    ("given", "items"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2]], [[1], [2]])],
)
def test_every_form_of_input(given: Any, items: list[Any]) -> None:
    status, answer, prompt = _ask("/v1/embeddings", {"model": "m", "input": given})
    assert status == 200, answer
    read = EmbeddingsAnswer.model_validate(answer)
    assert prompt is not None
    assert (prompt.kind, prompt.items, prompt.params) == ("embeddings", items, {})
    assert [d.embedding for d in read.data] == [[float(i), 0.5] for i in range(len(items))]
    assert (read.usage.prompt_tokens, read.usage.total_tokens) == (7, 7)


def test_vectors_in_base64_are_little_endian_floats() -> None:
    body = {"model": "m", "input": ["a", "long"], "encoding_format": "base64", "dimensions": 2}
    _, answer, prompt = _ask("/v1/embeddings", body)
    read = EmbeddingsAnswer.model_validate(answer)
    packed = read.data[1].embedding
    assert isinstance(packed, str)
    assert array("f", base64.b64decode(packed)).tolist() == [1.0, 0.5]
    assert read.llmos.notes == {"1": "cut"}
    assert prompt is not None
    assert prompt.params == {"dimensions": 2}


def test_one_bad_input_of_embeddings_is_named() -> None:
    status, answer, _ = _ask("/v1/embeddings", {"model": "m", "input": ["a", "bad"]})
    assert status == 400
    assert answer["error"]["param"] == "input.1"


def test_what_to_do_with_long_texts_is_an_option_of_ours() -> None:
    options = {"overflow": "refuse", "stride": 3, "class": "batch"}
    _, _, prompt = _ask("/v1/embeddings", {"model": "m", "input": "a", "llmos": options})
    assert prompt is not None
    assert prompt.params == {"overflow": "refuse", "stride": 3}


def test_documents_come_back_best_first() -> None:
    body = {"model": "m", "query": "q", "documents": ["a", {"text": "abc"}, "ab", "abc"]}
    _, answer, prompt = _ask("/v1/rerank", body | {"top_n": 3, "return_documents": True})
    read = RerankAnswer.model_validate(answer)
    assert [(r.index, r.relevance_score) for r in read.results] == [(1, 0.3), (3, 0.3), (2, 0.2)]
    assert read.results[0].document is not None
    assert read.results[0].document.text == "abc"
    assert prompt is not None
    assert prompt.items[1] == {"query": "q", "text": "abc"}


def test_moderation_is_what_a_classifier_says() -> None:
    status, answer, prompt = _ask("/v1/moderations", {"model": "judge", "input": ["a", "b"]})
    assert status == 200, answer
    read = ModerationsAnswer.model_validate(answer)
    assert [r.flagged for r in read.results] == [True, True]
    assert read.results[0].categories == {"toxic": True}
    assert read.results[0].category_scores == {"toxic": 0.8}
    assert prompt is not None
    assert prompt.params == {"top_k": None}


def test_moderation_without_a_classifier_is_not_found() -> None:
    status, answer, _ = _ask("/v1/moderations", {"input": "a"})
    assert (status, answer["error"]["code"]) == (404, "model_not_found")


def test_a_classifier_of_something_else_is_no_judge(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [{"label": "large", "score": 0.7}, {"label": "small", "score": 0.3}]
    monkeypatch.setattr("tests.unit.api.test_items.LABELS", sizes)
    status, answer, _ = _ask("/v1/moderations", {"model": "judge", "input": "a"})
    assert status == 400
    assert "no judge" in answer["error"]["message"]


def test_any_kind_answers_item_by_item() -> None:
    body = {"model": "m", "inputs": ["a", "bad", "long"], "params": {"top_k": 2}}
    status, answer, prompt = _ask("/os/v1/infer", body)
    assert status == 200, answer
    read = InferAnswer.model_validate(answer)
    assert [d.output for d in read.data] == [LABELS, None, LABELS]
    assert read.data[1].error is not None
    assert read.data[1].error.code == "invalid_request"
    assert [d.note for d in read.data] == [None, None, "cut"]
    assert prompt is not None
    assert (prompt.kind, prompt.params) == ("", {"top_k": 2})


def test_images_in_json_become_files() -> None:
    url = "data:image/png;base64," + base64.b64encode(b"png").decode()
    body = {"model": "m", "inputs": [{"image": url}, {"audio": "d2F2"}, {"image": "x", "y": 1}]}
    status, answer, prompt = _ask("/os/v1/infer", body)
    assert status == 200, answer
    assert prompt is not None
    assert prompt.items == [{"blob": 0}, {"blob": 1}, {"image": "x", "y": 1}]
    assert [blob.size_bytes for blob in prompt.blobs] == [3, 3]


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/embeddings", {"model": "m"}, "input"),
        ("/v1/embeddings", {"model": "m", "input": []}, "input"),
        ("/v1/embeddings", {"model": "m", "input": ["a"] * 2049}, "input"),
        ("/v1/embeddings", {"model": "m", "input": ["a", 1]}, "input.1"),
        ("/v1/embeddings", {"model": "m", "input": "a", "dimension": 3}, "dimension"),
        ("/v1/embeddings", {"model": "m", "input": "a", "llmos": {"over": 1}}, "llmos.over"),
        ("/v1/rerank", {"model": "m", "query": "q", "documents": []}, "documents"),
        ("/v1/rerank", {"model": "m", "query": "q", "documents": [1]}, "documents.0"),
        ("/v1/moderations", {"input": [{"type": "image_url"}]}, "input.0.type"),
        ("/os/v1/infer", {"model": "m", "inputs": []}, "inputs"),
        ("/os/v1/infer", {"model": "m", "inputs": [{"blob": 0}]}, "inputs.0.blob"),
        ("/os/v1/infer", {"model": "m", "inputs": [{"image": "!!"}]}, "inputs.0.image"),
        ("/os/v1/infer", {"model": "m", "inputs": [1 << 64]}, "inputs"),
        ("/os/v1/infer", {"model": "m", "inputs": [{"text": [-(1 << 70)]}]}, "inputs"),
        ("/os/v1/infer", {"model": "m", "inputs": ["a"], "params": {"stride": 1}}, "params.stride"),
    ],
)
def test_bad_bodies_name_the_field(path: str, body: dict[str, Any], param: str) -> None:
    status, answer, prompt = _ask(path, body)
    assert (status, prompt) == (400, None)
    assert answer["error"]["param"] == param


async def _hears(gate: FakeGate, call: Syscall) -> None:
    assert isinstance(call.body, Infer)
    prompt = call.body.prompt
    assert isinstance(prompt, ItemsPrompt)
    gate.accept(call)
    if prompt.blobs[0].size_bytes == 4:
        gate.emit(call, Outputs("r", [ItemOutput(0, error=BAD)]))
    else:
        gate.emit(call, Outputs("r", [ItemOutput(0, {"text": f"{prompt.params}"})]))
    gate.emit(call, Finished("r", FinishReason.STOP, Usage(50)))


def test_a_recording_comes_as_a_form() -> None:
    async def scene() -> None:
        async with edge({Infer: _hears}) as e:

            async def post(data: bytes, **fields: str) -> Any:
                files = {"file": ("a.wav", data, "audio/wav")}
                return await e.client.post(
                    "/v1/audio/transcriptions", data={"model": "m", **fields}, files=files
                )

            said = await post(b"a recording", language="fr")
            assert said.status_code == 200, said.text
            assert said.json()["text"] == "{'language': 'fr'}"
            plain = await post(b"a recording", response_format="text")
            assert plain.text == "{}\n"
            bad = await post(b"junk")
            assert (bad.status_code, bad.json()["error"]["param"]) == (400, "file")
            for field, value in (("temperature", "0.7"), ("stream", "true"), ("langage", "fr")):
                refused = await post(b"a recording", **{field: value})
                assert refused.json()["error"]["param"] == field

    asyncio.run(scene())
