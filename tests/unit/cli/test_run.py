"""`run`: one shot, pipes, the conversation, and what is pulled first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.cli import chat
from llmos.cli.answer import Answer
from llmos.sdk import Chunk
from tests.unit.cli.conftest import Run
from tests.unit.sdk.fake import MODEL, Pieces, Server, refusal, sse
from tests.unit.sdk.test_inference import CHAT, TEXT, USAGE, delta

HELLO = sse(
    delta("Hi\x1b[31m "),
    delta("🙂"),
    delta(finish="stop"),
    {"choices": [], "usage": USAGE},
    "[DONE]",
)
RAW = sse(
    {"choices": [{"index": 0, "text": " upon", "finish_reason": "length"}]},
    {"choices": [], "usage": USAGE},
    "[DONE]",
)


@pytest.fixture(autouse=True)
def models(server: Server) -> Server:
    plain = {**MODEL, "name": "raw", "has_chat_template": False}
    server.routes |= {
        "GET /os/v1/models/pilot": httpx.Response(200, json=MODEL),
        "GET /os/v1/models/raw": httpx.Response(200, json=plain),
        CHAT: lambda _: httpx.Response(200, stream=Pieces(HELLO[:60], HELLO[60:])),
        TEXT: lambda _: httpx.Response(200, content=RAW),
    }
    return server


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def test_one_shot_prints_the_answer_made_harmless(llmos: Run, server: Server) -> None:
    done = llmos("run", "pilot", "hello", "--system", "be", "--temperature", "0", "--seed", "7")
    assert (done.code, done.out, done.err) == (0, "Hi\\x1b[31m 🙂\n", "")
    body = server.body()
    assert body["model"] == "pilot:1"
    assert body["messages"] == [{"role": "system", "content": "be"}, user("hello")]
    assert (body["temperature"], body["seed"]) == (0.0, 7)
    assert "max_tokens" not in body


def test_json_is_a_line_per_piece_exact(llmos: Run) -> None:
    *pieces, last = llmos("run", "pilot", "hello", "--json").lines
    assert pieces == [{"text": "Hi\x1b[31m "}, {"text": "🙂"}]
    assert last["finish_reason"] == "stop"
    counts = {"prompt_tokens": 4, "completion_tokens": 2, "cached_tokens": 1}
    assert last["usage"] == counts | {"cost": None}


@pytest.mark.parametrize(
    ("args", "piped", "asked"),
    [
        ((), "from a pipe\n", "from a pipe"),
        (("first",), "then this\n", "first\nthen this"),
        (("only",), "", "only"),
        (("only",), "\n", "only"),
        ((), "你好\n🙂", "你好\n🙂"),
    ],
)
def test_a_pipe_is_the_prompt_or_follows_it(
    llmos: Run, server: Server, args: tuple[str, ...], piped: str, asked: str
) -> None:
    assert llmos("run", "pilot", *args, stdin=piped).code == 0
    assert server.body()["messages"] == [user(asked)]


def test_a_pipe_that_is_no_prompt_is_refused(llmos: Run, server: Server) -> None:
    assert llmos("run", "pilot").code == 2
    assert llmos("run", "pilot", "--json", is_tty=True).code == 2
    done = llmos("run", "pilot", stdin=b"\xff\xfe")
    assert done.code == 1
    assert "UTF-8" in done.err
    assert server.requests == []


def test_a_model_without_a_template_continues_text(llmos: Run, server: Server) -> None:
    assert llmos("run", "raw", "Once").out == " upon\n"
    assert server.body()["prompt"] == "Once"
    assert server.body()["max_tokens"] == 256
    assert llmos("run", "pilot", "Once", "--raw", "--max-tokens", "5").out == " upon\n"
    assert server.body()["max_tokens"] == 5


@pytest.mark.parametrize(
    ("prompt", "asked"), [("a", 256), ("a" * 300, 196), ("好" * 150, 46), ("a" * 490, None)]
)
def test_a_text_is_never_continued_beyond_the_context(
    llmos: Run, server: Server, prompt: str, asked: int | None
) -> None:
    assert llmos("run", "raw", prompt).code == 0
    assert server.body().get("max_tokens") == asked


def test_a_failure_in_mid_answer_keeps_what_came(llmos: Run, server: Server) -> None:
    error = {"error": {"message": "gone", "code": "worker_lost"}}
    server.routes[CHAT] = httpx.Response(200, content=sse(delta("Hal"), error))
    done = llmos("run", "pilot", "x")
    assert (done.code, done.out) == (1, "Hal\n")
    assert "error: gone (worker_lost)" in done.err


def test_an_unknown_model_is_not_taken_for_a_source(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/models/nope"] = refusal(404, "model_not_found")
    done = llmos("run", "nope", "x")
    assert done.code == 1
    assert "model_not_found" in done.err


def test_a_source_is_pulled_unless_it_was_before(llmos: Run, server: Server) -> None:
    server.routes["GET /os/v1/models"] = httpx.Response(200, json={"models": [MODEL]})
    server.routes["POST /os/v1/models"] = httpx.Response(200, content=sse(MODEL, event="done"))
    assert llmos("run", "hf:org/pilot", "x").code == 0
    assert "POST /os/v1/models" not in {f"{r.method} {r.url.path}" for r in server.requests}
    assert llmos("run", "hf:org/other", "x").code == 0
    pulls = [r for r in server.requests if r.url.path == "/os/v1/models" and r.method == "POST"]
    assert len(pulls) == 1


def test_a_path_is_pulled_and_a_name_is_a_name_first(
    llmos: Run, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pilot").mkdir()
    monkeypatch.chdir(tmp_path)
    server.routes["POST /os/v1/models"] = httpx.Response(200, content=sse(MODEL, event="done"))

    assert llmos("run", "pilot", "x").code == 0  # a model of this name is here
    assert all(r.url.path != "/os/v1/models" for r in server.requests)
    assert llmos("run", "./pilot", "x").code == 0
    pull = next(i for i, r in enumerate(server.requests) if r.url.path == "/os/v1/models")
    assert server.body(pull) == {"source": f"file:{tmp_path}/pilot"}


class Typist:
    """Stands in for `input`: types lines, presses Ctrl-C for None, Ctrl-D at the end."""

    def __init__(self, *lines: str | None) -> None:
        self._lines = iter(lines)

    def __call__(self, prompt: str = "") -> str:
        try:
            line = next(self._lines)
        except StopIteration:
            raise EOFError from None
        if line is None:
            raise KeyboardInterrupt
        return line


@pytest.fixture
def talk(llmos: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    def run(*lines: str | None) -> Any:
        monkeypatch.setattr("builtins.input", Typist(*lines))
        monkeypatch.setattr(chat, "_is_pasting", lambda: False)
        return llmos("run", "pilot", is_tty=True)

    return run


def asked(server: Server) -> list[Any]:
    import json

    bodies = [json.loads(r.content) for r in server.requests if r.url.path.startswith("/v1/")]
    return [body["messages"] for body in bodies]


def test_a_conversation_remembers_and_forgets(talk: Any, server: Server) -> None:
    done = talk("one", "", "two", "/system be kind", "/clear", "three", "/what", "/exit", "four")
    assert done.code == 0
    answer = {"role": "assistant", "content": "Hi\x1b[31m 🙂"}
    assert asked(server) == [
        [user("one")],
        [user("one"), answer, user("two")],
        [{"role": "system", "content": "be kind"}, user("three")],
    ]
    assert "there is no /what" in done.err


def test_ctrl_c_at_the_prompt_drops_the_line_and_ctrl_d_leaves(talk: Any, server: Server) -> None:
    assert talk(None, "one").code == 0
    assert asked(server) == [[user("one")]]


def test_a_quoted_message_has_several_lines(talk: Any, server: Server) -> None:
    talk('"""', "a", "b", '"""', '"""c', 'd"""')
    assert [messages[-1] for messages in asked(server)] == [user("a\nb"), user("c\nd")]


def test_pasted_lines_are_one_message(
    talk: Any, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = iter([True, True, False, False])
    monkeypatch.setattr("builtins.input", Typist("a", "b", "c"))
    monkeypatch.setattr(chat, "_is_pasting", lambda: next(more))
    assert chat.read_message() == "a\nb\nc"
    assert chat.read_message() is None


def test_ctrl_c_stops_the_answer_not_the_program(talk: Any, server: Server) -> None:
    class Interrupted(Pieces):
        def __iter__(self) -> Iterator[bytes]:
            yield sse(delta("Par"))
            raise KeyboardInterrupt

    answers = iter([Interrupted(), Pieces(HELLO)])
    server.routes[CHAT] = lambda _: httpx.Response(200, stream=next(answers))
    done = talk("one", "two")
    assert done.code == 0
    assert "(stopped)" in done.err
    assert asked(server)[1] == [user("one"), {"role": "assistant", "content": "Par"}, user("two")]


def test_a_failed_answer_ends_the_turn_not_the_conversation(talk: Any, server: Server) -> None:
    answers = iter([refusal(429, "queue_full"), httpx.Response(200, content=HELLO)])
    server.routes[CHAT] = lambda _: next(answers)
    done = talk("one", "two")
    assert done.code == 0
    assert "queue_full" in done.err
    assert asked(server) == [[user("one")], [user("two")]]


def test_the_history_is_kept_for_its_owner_alone(talk: Any, home: Path) -> None:
    talk("/exit")
    assert (home / "history").stat().st_mode & 0o777 == 0o600


def test_the_speed_leaves_out_the_wait_for_the_first_token() -> None:
    answer = Answer()
    assert answer.speed_line() == "0 tokens"
    for i in range(11):
        answer.take(Chunk(str(i)), 100.0 + i / 10)
    assert answer.speed_line() == "11 tokens · 10.0 tok/s"
    assert answer.text == "012345678910"


def test_a_reader_that_leaves_is_no_error() -> None:
    """`llmos ... | head -1`: quiet, also at the interpreter's end."""
    shell = f"{sys.executable} -m llmos --help | true"
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stderr == ""
