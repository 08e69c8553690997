"""The official client, unchanged."""

from __future__ import annotations

import openai
import pytest

from tests.system.server import Server

TEXT = "Hello, 世界! 👩‍👩‍👧 — done."


def test_chat(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": TEXT}]
    )
    assert answer.choices[0].message.content == TEXT
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage
    assert answer.usage.completion_tokens == len(TEXT)


def test_stream(openai_client: openai.OpenAI) -> None:
    stream = openai_client.chat.completions.create(
        model="echo",
        messages=[{"role": "user", "content": TEXT}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    deltas = [c.choices[0].delta for c in chunks if c.choices]
    assert deltas[0].role == "assistant"
    assert "".join(delta.content or "" for delta in deltas) == TEXT
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert chunks[-1].usage
    assert chunks[-1].usage.total_tokens == 2 * len(TEXT)


def test_completions_of_text_and_of_tokens(openai_client: openai.OpenAI) -> None:
    answer = openai_client.completions.create(model="echo", prompt=["ab", "cd"], max_tokens=1)
    assert [choice.text for choice in answer.choices] == ["a", "c"]
    answer = openai_client.completions.create(model="echo", prompt=[0x4F60, 0x597D])
    assert answer.choices[0].text == "你好"


def test_models(openai_client: openai.OpenAI) -> None:
    names = {model.id for model in openai_client.models.list()}
    assert {"echo:1", "pilot:1"} <= {name if ":" in name else f"{name}:1" for name in names}
    assert openai_client.models.retrieve("echo").object == "model"


def test_the_bundled_model_answers(openai_client: openai.OpenAI) -> None:
    answer = openai_client.chat.completions.create(
        model="pilot",
        messages=[{"role": "user", "content": "What is LLMOS?"}],
        temperature=0,
        max_tokens=80,
    )
    assert "LLMOS" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"


def test_error_classes(server: Server, openai_client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "x"}]
    create = openai_client.chat.completions.create
    with pytest.raises(openai.NotFoundError, match="echo"):
        create(model="ecco", messages=messages)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="temperature"):
        create(model="echo", messages=messages, temperature=-1)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="tempreature"):
        create(model="echo", messages=messages, extra_body={"tempreature": 1})  # type: ignore[arg-type]
    with server.openai(token="llmos_wrong") as stranger, pytest.raises(openai.AuthenticationError):
        stranger.models.list()
    with pytest.raises(openai.APIError):
        create(
            model="echo",
            messages=messages,  # type: ignore[arg-type]
            extra_body={"llmos": {"driver": {"fail_after": 0}}},
        )
