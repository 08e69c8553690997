"""simonw/llm as its users run it, with our server as an OpenAI-compatible model. Run by
`tools.clients` in an environment of its own.

The echo says what it is told, so a prompt that is a call makes the model call; the bundled model
writes what a schema demands.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CALL = '<tool_call>\n{"name": "multiply", "arguments": {"a": 6, "b": 7}}\n</tool_call>'
FUNCTION = '''
def multiply(a: int, b: int) -> int:
    """Two numbers, multiplied."""
    return a * b
'''
TIMEOUT_S = 120


class Llm:
    """Its command, with a configuration of its own."""

    def __init__(self, folder: Path) -> None:
        base = os.environ["LLMOS_TEST_URL"]
        common = {
            "api_base": base,
            "api_key_name": "ours",
            "supports_schema": True,
            "supports_tools": True,
        }
        models = [
            {"model_id": f"our-{name}{way}", "model_name": name, **common, **fields}
            for name in ("echo", "pilot")
            for way, fields in (
                ("", {}),
                ("-text", {"completion": True}),
                ("-responses", {"responses": True}),
            )
        ]
        (folder / "extra-openai-models.yaml").write_text(json.dumps(models))
        (folder / "keys.json").write_text(json.dumps({"ours": os.environ["LLMOS_TEST_KEY"]}))
        self._env = {
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LLM_USER_PATH": str(folder),
        }

    def __call__(self, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llm", *arguments],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.rstrip("\n")


@pytest.fixture
def llm(tmp_path: Path) -> Llm:
    return Llm(tmp_path)


@pytest.mark.parametrize("way", ["", "-responses"])
@pytest.mark.parametrize("more", [[], ["--no-stream"]], ids=["stream", "whole"])
class TestChat:
    def test_prompt(self, llm: Llm, way: str, more: list[str]) -> None:
        assert llm("-m", f"our-echo{way}", "hello there, 你好", *more) == "hello there, 你好"

    def test_system_and_options(self, llm: Llm, way: str, more: list[str]) -> None:
        options = ["-o", "temperature", "0", "-o", "max_tokens", "16", "-s", "Be short."]
        said = llm("-m", f"our-pilot{way}", "What is LLMOS?", *options, *more)
        assert said
        assert said == llm("-m", f"our-pilot{way}", "What is LLMOS?", *options, *more)

    def test_conversation(self, llm: Llm, way: str, more: list[str]) -> None:
        llm("-m", f"our-echo{way}", "first", *more)
        assert llm("-c", "second", *more) == "second"

    def test_schema(self, llm: Llm, way: str, more: list[str]) -> None:
        schema = {
            "type": "object",
            "properties": {"is_good": {"type": "boolean"}, "kind": {"enum": ["cat", "dog"]}},
            "required": ["is_good", "kind"],
            "additionalProperties": False,
        }
        said = json.loads(
            llm("-m", f"our-pilot{way}", "a dog", "--schema", json.dumps(schema), *more)
        )
        assert set(said) == {"is_good", "kind"}
        assert isinstance(said["is_good"], bool)
        assert said["kind"] in {"cat", "dog"}

    def test_functions(self, llm: Llm, way: str, more: list[str]) -> None:
        """It calls, llm runs the function and asks again, and the echo says what came of it."""
        asked = ["-m", f"our-echo{way}", CALL, "--functions", FUNCTION, *more]
        assert llm(*asked).splitlines()[-1] == "42"

    def test_functions_that_are_not_called(self, llm: Llm, way: str, more: list[str]) -> None:
        asked = ["-m", f"our-echo{way}", "just text", "--functions", FUNCTION, *more]
        assert llm(*asked) == "just text"


@pytest.mark.parametrize("more", [[], ["--no-stream"]], ids=["stream", "whole"])
def test_text_completion(llm: Llm, more: list[str]) -> None:
    assert llm("-m", "our-echo-text", "abc", *more) == "abc"


def test_usage_and_logs(llm: Llm) -> None:
    llm("-m", "our-echo", "hello", "--no-stream")
    (entry,) = json.loads(llm("logs", "--json"))
    assert (entry["response"], entry["input_tokens"], entry["output_tokens"]) == ("hello", 5, 5)


def test_usage_of_a_stream(llm: Llm) -> None:
    llm("-m", "our-echo", "hello")
    (entry,) = json.loads(llm("logs", "--json"))
    assert (entry["input_tokens"], entry["output_tokens"]) == (5, 5)
