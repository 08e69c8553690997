from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmos.abi.inference import ChatPrompt, Prompt, Sampling, TextPrompt, TokensPrompt
from llmos.abi.remote import Endpoint, RemoteSpec
from llmos.drivers.openai.body import make_body
from llmos.drivers.openai.prompt import decode, encode, estimate, unpack
from llmos.errors import InvalidRequest, UnsupportedParameter

CHAT = ChatPrompt(
    [{"role": "user", "content": "你好 🙂"}, {"role": "assistant", "content": None}],
    [{"type": "function", "function": {"name": "f"}}],
    {"enable_thinking": False},
)
SPEC = RemoteSpec([Endpoint("https://host/v1", "m")])
PLUS = RemoteSpec([Endpoint("https://host/v1", "m")], extensions=True)


@pytest.mark.parametrize("prompt", [CHAT, TextPrompt("a\0é🙂"), TokensPrompt([0, 5, 2**31 - 1])])
def test_there_and_back(prompt: Prompt) -> None:
    assert decode(encode(prompt)) == prompt
    assert estimate(prompt, 3.0) > 0


@given(st.text(min_size=1))
def test_any_text(text: str) -> None:
    packed = encode(TextPrompt(text))
    assert decode(packed) == TextPrompt(text)
    assert list(array("i", packed)) == list(map(ord, text))


@given(st.binary(max_size=40))
def test_any_bytes_are_a_prompt_or_refused(data: bytes) -> None:
    try:
        prompt = decode(data)
    except InvalidRequest:
        return
    assert decode(encode(prompt)) == prompt


@pytest.mark.parametrize(
    "prompt",
    [
        TextPrompt(""),
        TextPrompt("\ud83d"),
        TokensPrompt([]),
        TokensPrompt([-1]),
        TokensPrompt([2**31]),
        ChatPrompt([{"role": "user", "content": "\udc00"}]),
    ],
)
def test_what_is_none(prompt: Prompt) -> None:
    with pytest.raises(InvalidRequest):
        encode(prompt)


def test_estimates() -> None:
    assert estimate(TextPrompt("x" * 10), 3.0) == 4
    assert estimate(TokensPrompt([1] * 7), 3.0) == 7
    image = {"type": "image_url", "image_url": {"url": "data:,"}}
    small = ChatPrompt([{"role": "user", "content": "hello"}])
    large = ChatPrompt([{"role": "user", "content": [{"type": "text", "text": "hello"}, image]}])
    assert estimate(large, 1.0) - estimate(small, 1.0) == 1000


def test_neutral_values_are_not_sent() -> None:
    path, body = make_body(TextPrompt("a"), Sampling(), SPEC, "", 0)
    assert path == "/completions"
    assert body == {"prompt": "a", "stream": True, "stream_options": {"include_usage": True}}


def test_what_is_asked_for_is_sent() -> None:
    sampling = Sampling(temperature=0.0, top_p=0.5, seed=3, stop=["x"], presence_penalty=1.0)
    path, body = make_body(CHAT, sampling, PLUS, "", 9)
    assert path == "/chat/completions"
    assert body["messages"] == CHAT.messages
    assert body["tools"] == CHAT.tools
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    wanted = {"temperature": 0.0, "top_p": 0.5, "seed": 3, "stop": ["x"], "presence_penalty": 1.0}
    assert {name: body[name] for name in wanted} == wanted
    assert body["max_tokens"] == 9


@pytest.mark.parametrize("name", ["top_k", "min_p", "repetition_penalty", "ignore_eos"])
def test_extensions_only_where_they_are_known(name: str) -> None:
    sampling = Sampling(**{name: True if name == "ignore_eos" else 0.5})
    with pytest.raises(UnsupportedParameter, match=name):
        make_body(TextPrompt("a"), sampling, SPEC, "", 0)
    assert name in make_body(TextPrompt("a"), sampling, PLUS, "", 0)[1]


def test_it_goes_on_after_what_was_said() -> None:
    assert make_body(TextPrompt("a"), Sampling(), SPEC, "bc", 0)[1]["prompt"] == "abc"
    chat = ChatPrompt([{"role": "user", "content": "a"}])
    body = make_body(chat, Sampling(), PLUS, "bc", 0)[1]
    assert body["messages"][-1] == {"role": "assistant", "content": "bc"}
    assert body["continue_final_message"] is True
    with pytest.raises(UnsupportedParameter):
        make_body(TokensPrompt([1]), Sampling(), SPEC, "bc", 0)


def test_half_a_code_point_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        unpack(b"\1\0\0", "generated")
