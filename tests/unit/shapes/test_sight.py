"""Chats about an image: which image and which text are read, and what is refused by name."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from llmos.abi.blob import BlobRef
from llmos.abi.events import Failed, Finished, FinishReason, ItemOutput, Outputs, Tokens
from llmos.abi.inference import ChatPrompt, ItemsPrompt, Usage
from llmos.abi.program import Generate
from llmos.errors import InvalidRequest, LLMOSError, PayloadTooLarge, UnsupportedParameter
from llmos.shapes import calls
from llmos.shapes.inputs import read_chat
from llmos.shapes.items import read_items
from llmos.shapes.responses import read_response
from llmos.shapes.sight import (
    CHAT,
    KIND,
    RESPONSES,
    Heard,
    in_words_of,
    is_captioner,
    read_sight,
)

URL = "data:image/png;base64,AAAA"
BLOB = BlobRef("sha256:0", 4, "/b")
IMAGE = {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def read(*messages: Any, **fields: Any) -> Any:
    body = read_chat({"model": "m", "messages": list(messages), **fields}, 100)
    assert body.has_images
    return read_sight(body, filed(body.to_generate()))


def filed(wish: Generate) -> Generate:
    """As `api.media` does."""
    prompt = wish.prompt
    assert isinstance(prompt, ChatPrompt)
    for message in prompt.messages:
        for part in message["content"] if isinstance(message["content"], list) else ():
            if part["type"] == "image_url" and part["image_url"]["url"] == URL:
                part |= {"type": "image", "blob": 0}
    return msgspec.structs.replace(wish, prompt=msgspec.structs.replace(prompt, blobs=[BLOB]))


def respond(*parts: Any, **fields: Any) -> Any:
    """A response's body, read likewise."""
    asked = {"model": "m", "input": [{"role": "user", "content": list(parts)}], **fields}
    body = read_response(asked, 100)
    items = read_items(body.input, lambda: "msg_1")
    return read_sight(body, filed(body.to_generate(items)))


def refused(*messages: Any, **fields: Any) -> tuple[str, str | None]:
    with pytest.raises(InvalidRequest) as caught:
        read(*messages, **fields)
    return caught.value.code, caught.value.param


def test_the_last_message_of_the_user_is_read() -> None:
    earlier = [{"role": "system", "content": "be brief"}, user(IMAGE), user(text("so?"))]
    said = [{"role": "assistant", "content": "a cat"}, user(text("a"), IMAGE, text("b"))]
    sight = read(*earlier, *said, max_tokens=9, max_completion_tokens=7, temperature=0, seed=3)
    prompt = sight.wish.prompt
    params = {"max_new_tokens": 7}
    assert prompt == ItemsPrompt(KIND, [{"blob": 0, "text": "a\nb"}], params, [BLOB])
    assert (sight.where, sight.wish.route) == ("messages.4.content.1", "chat")


def test_an_image_needs_no_text() -> None:
    assert read(user(IMAGE)).wish.prompt == ItemsPrompt(KIND, [{"blob": 0}], {}, [BLOB])


def test_parts_of_text_alone_are_one_text() -> None:
    body = read_chat({"model": "m", "messages": [user(text("a"), text("b"))]}, 100)
    assert not body.has_images
    assert body.messages[0].content == "a\nb"


@pytest.mark.parametrize(
    ("part", "code", "at"),
    [
        ({}, "invalid_request", ".image_url"),
        ({"image_url": URL}, "invalid_request", ".image_url"),
        ({"image_url": {"url": 7}}, "invalid_request", ".image_url.url"),
        ({"image_url": {"url": "data:text/plain;base64,AA"}}, "invalid_request", ".image_url.url"),
        ({"image_url": {"url": "file:///etc/passwd"}}, "invalid_request", ".image_url.url"),
        ({"image_url": {"url": "http://a/b.png"}}, "unsupported_parameter", ".image_url.url"),
        ({"image_url": {"url": "HTTPS://a/b.png"}}, "unsupported_parameter", ".image_url.url"),
        ({"image_url": {"url": URL, "detail": "x"}}, "invalid_request", ".image_url.detail"),
        ({"image_url": {"url": URL, "size": 1}}, "invalid_request", ".image_url.size"),
        ({"image_url": {"url": URL}, "text": "a"}, "invalid_request", ".text"),
    ],
)
def test_what_is_no_image(part: dict[str, Any], code: str, at: str) -> None:
    made = user(text("a"), {"type": "image_url", **part})
    assert refused(made) == (code, f"messages.0.content.1{at}")


@pytest.mark.parametrize("kind", [[], {}, None, 7, "image"], ids=str)
def test_a_part_of_no_known_type(kind: Any) -> None:
    assert refused(user({"type": kind})) == ("invalid_request", "messages.0.content.0.type")


def test_images_belong_to_the_user() -> None:
    for role in ("system", "assistant", "tool"):
        message = {"role": role, "content": [text("a"), IMAGE]}
        message |= {"tool_call_id": "c"} if role == "tool" else {}
        assert refused(user(text("a")), message) == ("invalid_request", "messages.1.content.1")


def test_images_where_none_is_read() -> None:
    bad = "invalid_request"
    assert refused(user(IMAGE, text("a"), IMAGE)) == (bad, "messages.0.content.2")
    assert refused(user(IMAGE), user(text("a"))) == (bad, "messages.1.content")
    said = {"role": "assistant", "content": [IMAGE]}
    assert refused(user(IMAGE), said) == (bad, "messages.1.content.0")
    assert refused(said) == (bad, "messages.0.content.0")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"stop": "a"}, "stop"),
        ({"logprobs": True}, "logprobs"),
        ({"presence_penalty": 1.0}, "presence_penalty"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"llmos": {"regex": "a"}}, "llmos.regex"),
        ({"n": 2}, "n"),
        ({"return_token_ids": True}, "return_token_ids"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ],
)
def test_what_would_change_the_answer_is_refused(fields: dict[str, Any], param: str) -> None:
    assert refused(user(IMAGE), **fields) == ("unsupported_parameter", param)


def test_a_line_of_a_batch_has_no_images() -> None:
    with pytest.raises(UnsupportedParameter, match="no images"):
        calls.infer_of(calls.CHAT, {"model": "m", "messages": [user(IMAGE)]})


def test_errors_name_the_part() -> None:
    blind = InvalidRequest("is for captions", param="model", details={"kinds": [KIND]})
    assert is_captioner(blind)
    assert not is_captioner(InvalidRequest("no", param="model", details={"kinds": ["rerank"]}))
    for route, name in ((CHAT, "max_tokens"), (RESPONSES, "max_output_tokens")):
        assert in_words_of(route, InvalidRequest("too many", param="params")).param == name
        assert in_words_of(route, InvalidRequest("other", param="model")).param == "model"


INPUT = {"type": "input_image", "image_url": URL, "detail": "low"}
WORDS = {"type": "input_text", "text": "a"}


def test_a_response_is_asked_as_a_chat_is() -> None:
    sight = respond(WORDS, INPUT, max_output_tokens=7, top_p=0.5)
    asked = [{"blob": 0, "text": "a"}]
    assert sight.wish.prompt == ItemsPrompt(KIND, asked, {"max_new_tokens": 7}, [BLOB])
    assert (sight.where, sight.wish.route) == ("input.0.content.1", "responses")
    with pytest.raises(InvalidRequest, match="2 images") as caught:
        respond(INPUT, INPUT)
    assert caught.value.param == "input.0.content.1"
    with pytest.raises(InvalidRequest, match="no image") as caught:
        respond(WORDS)
    assert caught.value.param == "input"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": 0.7}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"text": {"format": {"type": "json_object"}}}, "text.format"),
        ({"tools": [{"type": "function", "name": "f", "parameters": {}}]}, "tools"),
    ],
)
def test_what_would_change_a_response_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(UnsupportedParameter) as caught:
        respond(INPUT, **fields)
    assert caught.value.param == param


def test_what_is_said_of_an_image_is_heard_as_text() -> None:
    heard = Heard("x.y")
    value = {"text": "a cat", "finish_reason": "length"}
    assert heard([Outputs("r", [ItemOutput(0, value)])]) == [Tokens("r", [], "a cat")]
    end = Finished("r", FinishReason.STOP, Usage(3, 2))
    assert heard([end]) == [Finished("r", FinishReason.LENGTH, Usage(3, 2))]
    failed = Failed("r", PayloadTooLarge("large").to_info())
    assert heard([failed]) == [failed]
    with pytest.raises(PayloadTooLarge) as caught:
        heard([Outputs("r", [ItemOutput(0, error=PayloadTooLarge("large").to_info())])])
    assert caught.value.param == "x.y"
    with pytest.raises(LLMOSError, match="No answer"):
        Heard("x.y")([end])


def test_parts_know_where_they_stand() -> None:
    detailed = {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}
    far = {"type": "image_url", "image_url": {"url": "https://a/b.png"}}
    sent = [user(text("a")), user(detailed, text("b"), far)]
    body = read_chat({"model": "m", "messages": sent}, 100)
    assert body.to_prompt().messages == [
        {"role": "user", "content": "a"},
        user(
            detailed | {"where": "messages.1.content.0"},
            text("b"),
            far | {"where": "messages.1.content.2"},
        ),
    ]
