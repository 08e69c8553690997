"""LangChain's standard suites, for its OpenAI classes pointed at our server. Run by `tools.clients`
in an environment of their own; nothing of the suites is changed.

Three ways to a structured answer are three classes: by a schema, by a call of a tool, by the
responses API. The bundled model follows no instructions: a `logit_bias` makes it end the strings,
numbers and objects that a grammar has it begin. What asks for understanding is expected to fail,
and says so.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal

import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests

NO_CALL = "the bundled model calls no tool by itself, and this test does not demand one"
NO_KEYS = "json_mode demands an object, not these keys, and the bundled model does not know them"
NO_ARGUMENTS = (
    "the schema lets a call have arguments nobody named, and the bundled model makes some up"
)
NO_VALUE = "the suite wants the number of its question, and the bundled model says another one"
NO_NAME = "the bundled model does not copy a name that it is told"
BIAS = {'"': 8.0, "}": 14.0, "3": 9.0, "-": -100.0}
MOST_TOKENS = 200
"""The bundled model has a context of 1024."""

TOKENIZER = Path(os.environ["LLMOS_TEST_TOKENIZER"])
SERVER = {"base_url": os.environ["LLMOS_TEST_URL"], "api_key": os.environ["LLMOS_TEST_KEY"]}


def logit_bias() -> dict[str, float]:
    """By the ids of the bundled model."""
    ids = json.loads(TOKENIZER.read_text())["model"]["vocab"]
    return {str(ids[piece]): bias for piece, bias in BIAS.items()}


class TestChat(ChatModelIntegrationTests):
    """Structured answers by `response_format`."""

    method: Literal["json_schema", "function_calling"] = "json_schema"

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {**SERVER, "model": "pilot", "logit_bias": logit_bias(), "stream_usage": True}

    @property
    def standard_chat_model_params(self) -> dict[str, Any]:
        return {"temperature": 0, "max_tokens": MOST_TOKENS, "timeout": 60, "max_retries": 0}

    @property
    def structured_output_kwargs(self) -> dict[str, Any]:
        return {"method": self.method}

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def model_override_value(self) -> str:
        return "pilot:1"

    @pytest.mark.xfail(reason=NO_CALL)
    def test_agent_loop(self, model: Any) -> None:
        super().test_agent_loop(model)

    @pytest.mark.xfail(reason=NO_KEYS)
    def test_json_mode(self, model: Any) -> None:
        super().test_json_mode(model)

    @pytest.mark.xfail(reason=NO_VALUE)
    @pytest.mark.parametrize("model", [{}, {"output_version": "v1"}], indirect=True)
    def test_tool_calling(self, model: Any) -> None:
        super().test_tool_calling(model)

    @pytest.mark.xfail(reason=NO_VALUE)
    async def test_tool_calling_async(self, model: Any) -> None:
        await super().test_tool_calling_async(model)

    @pytest.mark.xfail(reason=NO_ARGUMENTS)
    def test_tool_calling_with_no_arguments(self, model: Any) -> None:
        super().test_tool_calling_with_no_arguments(model)

    @pytest.mark.xfail(reason=NO_NAME)
    def test_unicode_tool_call_integration(self, model: Any, **fields: Any) -> None:
        super().test_unicode_tool_call_integration(model, **fields)


class TestChatByCalls(TestChat):
    """Structured answers by a call of a tool."""

    method = "function_calling"


class TestResponses(TestChat):
    """The same through /v1/responses."""

    @property
    def chat_model_params(self) -> dict[str, Any]:
        bias = {"extra_body": {"logit_bias": logit_bias()}}
        return {**SERVER, "model": "pilot", "use_responses_api": True, **bias}


class TestEmbeddings(EmbeddingsIntegrationTests):
    """Texts are sent as token ids of OpenAI's own tokenizer unless that is switched off."""

    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {
            **SERVER,
            "model": os.environ["LLMOS_TEST_EMBEDDER"],
            "check_embedding_ctx_length": False,
        }
