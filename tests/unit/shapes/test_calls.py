"""A body without its request: the inference it asks for and the answer written about it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmos.abi.events import Finished, FinishReason, ItemOutput, Outputs, Served
from llmos.abi.inference import ChatPrompt, TextPrompt, TokensPrompt, Usage
from llmos.abi.principal import ServiceClass
from llmos.abi.program import Answer
from llmos.abi.syscall import Infer, Syscall
from llmos.errors import InvalidRequest, ModelNotFound, QueueFull
from llmos.shapes.answers import ChatAnswer, CompletionAnswer, ErrorAnswer
from llmos.shapes.calls import (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    Limits,
    answer_body,
    error_body,
    infer_of,
    remembered,
)
from llmos.shapes.response_object import ResponseObject
from tests.unit.api.fake_gate import CREATED_NS, FakeGate, edge, tokens

HI = [{"role": "user", "content": "你好 👋"}]


def _body(url: str, **fields: Any) -> dict[str, Any]:
    prompt = {"messages": HI} if url == CHAT else {"prompt": "你好"}
    return {"model": "echo", **prompt, **fields}


def test_a_chat_body() -> None:
    wish = infer_of(CHAT, _body(CHAT, max_tokens=9, service_tier="flex", temperature=0))
    assert wish.prompt == ChatPrompt(HI)
    assert (wish.model, wish.route) == ("echo", "chat")
    assert (wish.sampling.max_tokens, wish.sampling.temperature) == (9, 0)
    assert wish.options.service_class is ServiceClass.BATCH


def test_completion_bodies() -> None:
    assert infer_of(COMPLETIONS, _body(COMPLETIONS)).prompt == TextPrompt("你好")
    wish = infer_of(COMPLETIONS, _body(COMPLETIONS, prompt=[1, 2]))
    assert wish.prompt == TokensPrompt([1, 2])
    assert wish.sampling.max_tokens == 16
    assert wish.route == "completions"


@pytest.mark.parametrize(
    ("url", "body", "param"),
    [
        (CHAT, _body(CHAT, stream=True), "stream"),
        (CHAT, {"model": "echo"}, "messages"),
        (CHAT, _body(CHAT, max_tokens=0), "max_tokens"),
        (CHAT, _body(CHAT, messages=HI * 3), "messages"),
        (COMPLETIONS, _body(COMPLETIONS, prompt=["a", "b"]), "prompt"),
        (COMPLETIONS, _body(COMPLETIONS, prompt=[1, 2, 3]), "prompt"),
        (COMPLETIONS, _body(COMPLETIONS, tempreature=1), "tempreature"),
        ("/v1/models", {}, "url"),
    ],
)
def test_a_bad_body_names_its_field(url: str, body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        infer_of(url, body, Limits(max_messages=2, max_prompt_tokens=2))
    assert caught.value.param == param


@pytest.mark.parametrize("url", [CHAT, COMPLETIONS])
@pytest.mark.parametrize("with_ids", [False, True])
def test_the_answer_is_the_live_one_but_for_timing(url: str, with_ids: bool) -> None:
    """One kernel's outcome, once through the route, once through `answer_body`."""
    end = Finished(
        "r", FinishReason.STOP, Usage(3, 2, 1), "x", True, Served(0.5, 2, ServiceClass.BATCH)
    )

    async def infer(gate: FakeGate, call: Syscall) -> None:
        assert isinstance(call.body, Infer)
        gate.accept(call)
        gate.emit(call, *tokens("你", "好"), end)

    body = _body(url, return_token_ids=with_ids)

    async def scene() -> Any:
        async with edge({Infer: infer}) as e:
            return (await e.post(url, body)).json()

    live = asyncio.run(scene())
    made = answer_body(
        url,
        body,
        Answer(
            live["llmos"]["request_id"], "echo:1", "你好", [ord("你"), ord("好")], "stop", "x",
            end.usage, CREATED_NS, int(ServiceClass.INTERACTIVE), True, end.served,
        ),
    )  # fmt: skip
    assert live["llmos"]["class"] == "batch"  # given another one meanwhile
    assert live["llmos"].pop("timing")
    assert made["llmos"].pop("timing") is None
    assert made == live
    made["llmos"]["timing"] = None
    (ChatAnswer if url == CHAT else CompletionAnswer).model_validate(made)


EACH: list[tuple[str, dict[str, Any], ItemOutput]] = [
    (
        "/v1/embeddings",
        {"model": "echo", "input": "a", "encoding_format": "base64"},
        ItemOutput(0, data=b"\0" * 8, note="cut"),
    ),
    (
        "/v1/rerank",
        {"model": "echo", "query": "q", "documents": ["a"], "return_documents": True},
        ItemOutput(0, {"score": 0.5}),
    ),
    (
        "/v1/moderations",
        {"model": "echo", "input": "a"},
        ItemOutput(0, [{"label": "bad", "score": 0.75}, {"label": "safe", "score": 0.25}]),
    ),
    ("/os/v1/infer", {"model": "echo", "inputs": ["a"]}, ItemOutput(0, {"text": "b"})),
]


@pytest.mark.parametrize(("url", "body", "output"), EACH, ids=[one[0] for one in EACH])
def test_items_of_a_line_are_answered_as_live(
    url: str, body: dict[str, Any], output: ItemOutput
) -> None:
    end = Finished("r", FinishReason.STOP, Usage(3), None, None, Served(0.5, 2, ServiceClass.BATCH))

    async def infer(gate: FakeGate, call: Syscall) -> None:
        assert isinstance(call.body, Infer)
        assert call.body.prompt == infer_of(url, body).prompt
        gate.accept(call)
        gate.emit(call, Outputs("r", [output]), end)

    async def scene() -> Any:
        async with edge({Infer: infer}) as e:
            return (await e.post(url, body)).json()

    live = asyncio.run(scene())
    answer = Answer(
        live["llmos"]["request_id"],
        "echo:1",
        usage=end.usage,
        deterministic=live["llmos"]["deterministic"],
        served=end.served,
        outputs=[output],
        kind=live.get("kind", ""),
    )
    made = answer_body(url, remembered(url, body), answer)
    assert live["llmos"].pop("timing")
    assert made["llmos"].pop("timing") is None
    assert made == live


@pytest.mark.parametrize("key", ["image", "audio", "blob"])
def test_a_line_has_no_files(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        infer_of("/os/v1/infer", {"model": "m", "inputs": ["a", {key: "x"}]})
    assert caught.value.param == "inputs.1"


def test_a_line_may_be_a_response() -> None:
    body = {"model": "echo", "input": "你好", "instructions": "x", "max_output_tokens": 5}
    wish = infer_of(RESPONSES, body)
    assert wish.prompt == ChatPrompt(
        [{"role": "system", "content": "x"}, {"role": "user", "content": "你好"}]
    )
    assert (wish.route, wish.sampling.max_tokens) == ("responses", 5)
    answer = Answer(
        "req_" + "7" * 32, "echo:1", "hi", [1], "stop", None, Usage(3, 2, 1), CREATED_NS
    )
    kept = remembered(RESPONSES, body)
    assert "你好" not in str(kept)
    made = ResponseObject.model_validate(answer_body(RESPONSES, kept, answer))
    assert (made.id, made.store, made.instructions) == ("resp_" + "7" * 32, False, "x")
    assert made.output[0]["content"][0]["text"] == "hi"


@pytest.mark.parametrize(
    ("field", "value"),
    [("store", True), ("background", True), ("previous_response_id", "resp_1"), ("stream", True)],
)
def test_a_line_is_no_place_for_what_lasts(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        infer_of(RESPONSES, {"model": "echo", "input": "x", field: value})
    assert caught.value.param == field


@pytest.mark.parametrize("url", [CHAT, COMPLETIONS])
def test_of_a_body_only_what_its_answer_needs_is_remembered(url: str) -> None:
    assert remembered(url, _body(url)) == {}
    assert remembered(url, _body(url, return_token_ids=True)) == {"return_token_ids": True}


def test_an_answer_with_an_error_raises_it() -> None:
    info = ModelNotFound("no model 'ecco'", details={"near": ["echo"]}).to_info()
    with pytest.raises(ModelNotFound, match="ecco"):
        answer_body(CHAT, _body(CHAT), Answer(error=info))
    status, envelope = error_body(info)
    assert status == 404
    error = ErrorAnswer.model_validate(envelope).error
    assert (error.code, error.details) == ("model_not_found", {"near": ["echo"]})
    assert error_body(QueueFull("full", retry_after_s=2).to_info())[0] == 429
