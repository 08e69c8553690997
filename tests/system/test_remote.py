"""A model served by another LLMOS: chat, stream, price, failure and fail-over."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.system.server import Server
from tests.unit.drivers.encoder.folders import make_folder

Start = Callable[..., Server]
ASK = [{"role": "user", "content": "What is LLMOS?"}]


@pytest.fixture(scope="module")
def start(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Start]:
    started: list[Server] = []

    def one(*options: str, env: dict[str, str] | None = None) -> Server:
        home = tmp_path_factory.mktemp("server") / "home"
        started.append(Server(home, *options, env=env))
        return started[-1].start()

    failed_before = request.session.testsfailed
    yield one
    for server in started:
        if request.session.testsfailed > failed_before:
            print(f"server log of {server.home}:\n{server.log[-4000:]}")
        server.kill()


@pytest.fixture(scope="module")
def far(start: Start) -> Server:
    """Where the model is."""
    return start("--preload", "echo")


@pytest.fixture(scope="module")
def near(start: Start, far: Server) -> Server:
    """Who serves it here: its key is a variable of this server's environment."""
    server = start(env={"FAR_API_KEY": far.token})
    source = f"openai:{far.url}/v1#echo"
    done = server.cli("pull", source, "--name", "far", "--key-env", "FAR_API_KEY", "--json")
    assert done.returncode == 0, done.stderr
    return server


def register(server: Server, name: str, remote: dict[str, Any]) -> None:
    """A remote model, over HTTP."""
    source = "openai:{url}#{model}".format(**remote["endpoints"][0])
    with server.client() as client:
        body = {"source": source, "name": name, "remote": remote}
        assert "event: done" in client.post("/os/v1/models", json=body).text


def ask(server: Server, model: str) -> tuple[str, openai.types.CompletionUsage | None]:
    with server.openai() as client:
        answer = client.chat.completions.create(
            model=model, messages=ASK, temperature=0, max_tokens=24
        )
    return answer.choices[0].message.content or "", answer.usage


def listen(server: Server, model: str, num_tokens: int, heard: list[str]) -> str:
    """The text's pieces into `heard`. Returns why it ended, or the code of the error."""
    with server.openai() as client:
        try:
            stream = client.chat.completions.create(
                model=model, messages=ASK, temperature=0, max_tokens=num_tokens, stream=True
            )
            reason = ""
            for chunk in stream:
                for choice in chunk.choices:
                    heard.append(choice.delta.content or "")
                    reason = choice.finish_reason or reason
        except openai.APIError as error:
            return str(error.code)
    return reason


def test_chat_is_the_remotes(near: Server, far: Server) -> None:
    text, usage = ask(near, "far")
    expected, counted = ask(far, "echo")
    assert text == expected
    assert text
    assert usage is not None
    assert counted is not None
    assert usage.completion_tokens == counted.completion_tokens
    assert usage.prompt_tokens == counted.prompt_tokens


def test_a_stream_is_the_remotes(near: Server, far: Server) -> None:
    """Passed on as it comes: not at the end."""
    slow = {"llmos": {"driver": {"delay_ms": 50}}}
    endpoint = {"url": f"{far.url}/v1", "model": "echo", "key": "FAR_API_KEY", "extra": slow}
    register(near, "slow", {"endpoints": [endpoint]})
    heard: list[str] = []
    expected: list[str] = []
    assert listen(near, "slow", 24, heard) == listen(far, "echo", 24, expected)
    assert "".join(heard) == "".join(expected)
    assert len([piece for piece in heard if piece]) > 3


def test_a_text_is_completed(near: Server, far: Server) -> None:
    with near.openai() as here, far.openai() as there:
        texts = [
            client.completions.create(
                model=model, prompt="An operating system", temperature=0, max_tokens=12
            )
            .choices[0]
            .text
            for client, model in ((here, "far"), (there, "echo"))
        ]
    assert texts[0] == texts[1] != ""


def test_what_is_wrong_is_said(near: Server) -> None:
    with near.openai() as client, pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="far", messages=ASK, extra_body={"top_k": 3})
    assert caught.value.code == "unsupported_parameter"
    assert "top_k" in caught.value.message


def test_the_key_is_nowhere(near: Server, far: Server) -> None:
    ask(near, "far")
    shown = near.cli("show", "far").stdout
    assert "FAR_API_KEY" in shown
    assert "behind OpenAI's API" in shown
    with near.client() as client:
        (newest, *_) = client.get("/os/v1/processes").json()["processes"]
    why = near.cli("why", newest["process_id"]).stdout
    assert "served by openai: it stays elsewhere" in why
    secret = far.token.encode()
    files = [path for path in near.home.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if secret in path.read_bytes()]
    assert secret not in near.log_path.read_bytes()


def test_egress_that_was_narrowed_holds_for_what_is_registered(
    start: Start, far: Server, tmp_path: Path
) -> None:
    front = start(env={"FAR_API_KEY": far.token})
    front.cli("pull", f"openai:{far.url}/v1#echo", "--name", "far", "--key-env", "FAR_API_KEY")
    assert ask(front, "far")[0]
    front.stop()
    front.options = ("--set", "registry.egress=api.example.com")
    front.start()
    with front.openai() as client, pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(model="far", messages=ASK)
    assert "registry.egress" in caught.value.message


def test_egress_is_an_admins(near: Server, far: Server) -> None:
    with near.client() as client:
        made = client.post("/os/v1/keys", json={"name": "somebody", "tenant": "others"})
    with near.client(made.json()["secret"]) as client:
        answer = client.post("/os/v1/models", json={"source": f"openai:{far.url}/v1#echo"})
    assert answer.status_code == 403


def test_a_key_that_is_not_set(near: Server, far: Server) -> None:
    (near.home / "secrets").mkdir(mode=0o700)
    done = near.cli("pull", f"openai:{far.url}/v1#echo", "--name", "late", "--key-env", "late_key")
    assert done.returncode == 0, done.stderr
    with near.openai() as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="late", messages=ASK)
    assert "late_key is not set" in caught.value.message
    path = near.home / "secrets" / "late_key"
    path.touch(mode=0o600)
    path.write_text(far.token + "\n")
    again = f"openai:{far.url}/v1#echo"  # under another name: what was refused cools down first
    assert near.cli("pull", again, "--name", "later", "--key-env", "late_key").returncode == 0
    assert ask(near, "later")[0]


def test_a_refused_key_is_not_told(near: Server, far: Server) -> None:
    path = near.home / "secrets" / "wrong_key"
    path.parent.mkdir(mode=0o700, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text("llmos-wrong-0123456789")
    near.cli("pull", f"openai:{far.url}/v1#echo", "--name", "wrong", "--key-env", "wrong_key")
    with near.openai() as client, pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="wrong", messages=ASK)
    assert caught.value.status_code == 502
    assert caught.value.code == "remote_failed"
    assert "0123456789" not in caught.value.response.text


def test_fail_over_loses_no_request(start: Start, tmp_path: Path) -> None:
    """The first of two remotes is killed with requests in mid-answer and in its queue. Who has
    heard nothing yet is answered by the second one; who has, is told what happened."""
    few = {"LLMOS_KERNEL__NUM_SLOTS": "2"}
    first, second = (start("--preload", "echo", env=few) for _ in range(2))
    keys = {"FIRST_API_KEY": first.token, "SECOND_API_KEY": second.token}
    front = start(env=keys)
    spec = {
        "endpoints": [
            {
                "url": f"{server.url}/v1",
                "model": "echo",
                "key": key,
                "price": {"input": 1.0, "output": 4.0},
                "extra": {"llmos": {"driver": {"tokens": 30, "delay_ms": 20}}},
            }
            for server, key in ((first, "FIRST_API_KEY"), (second, "SECOND_API_KEY"))
        ]
    }
    file = tmp_path / "both.yaml"
    file.write_text(json.dumps(spec))
    done = front.cli("pull", f"openai:{file}", "--name", "both")
    assert done.returncode == 0, done.stderr
    assert front.cli("load", "both").returncode == 0

    num, ends, begun = 12, [""] * 12, threading.Event()

    class Heard(list[str]):
        def append(self, piece: str) -> None:
            super().append(piece)
            if piece:
                begun.set()

    heard = [Heard() for _ in range(num)]

    def one(number: int) -> None:
        ends[number] = listen(front, "both", 30, heard[number])

    threads = [threading.Thread(target=one, args=(n,)) for n in range(num)]
    for thread in threads:
        thread.start()
    assert begun.wait(60)
    first.kill()
    for thread in threads:
        thread.join(100)
    assert not any(thread.is_alive() for thread in threads)
    assert set(ends) <= {"stop", "length", "remote_failed"}, ends
    lost = [n for n in range(num) if ends[n] == "remote_failed"]
    assert len(lost) <= 2  # as many as had a row there
    assert all("".join(heard[n]) for n in lost)  # each was in mid-answer
    whole = {"".join(heard[n]) for n in range(num) if n not in lost}
    assert len(whole) == 1
    with front.client() as client:
        assert ask(front, "both")[0]
        assert client.get("/readyz").status_code == 200
    check_records(front, num)


def check_records(front: Server, num: int) -> None:
    """Each request has its row, with what it cost, once the log is flushed at the end."""
    assert front.stop() == 0
    with sqlite3.connect(front.home / "db" / "llmos.db") as connection:
        rows = connection.execute(
            "SELECT outcome, prompt_tokens, completion_tokens, cached_tokens, cost FROM requests"
        ).fetchall()
    assert len(rows) == num + 1
    for outcome, prompt, completion, _, cost in rows:
        if outcome != "failed":
            assert cost == pytest.approx((prompt * 1.0 + completion * 4.0) / 1e6)
        else:
            assert cost > 0


def test_vectors_are_the_remotes(near: Server, far: Server, tmp_path: Path) -> None:
    make_folder(tmp_path, "BertModel")
    assert far.cli("pull", str(tmp_path), "--name", "bert").returncode == 0
    body = {
        "endpoints": [{"url": f"{far.url}/v1", "model": "bert", "key": "FAR_API_KEY"}],
        "kinds": ["embeddings"],
    }
    register(near, "bert", body)
    texts = ["the cat sat", "it is good"]
    with near.openai() as here, far.openai() as there:
        found = here.embeddings.create(model="bert", input=texts)
        expected = there.embeddings.create(model="bert", input=texts)
    assert len(found.data) == 2
    for mine, theirs in zip(found.data, expected.data, strict=True):
        assert mine.embedding == pytest.approx(theirs.embedding, abs=1e-6)
    assert found.data[0].embedding != found.data[1].embedding
    assert found.usage.prompt_tokens == expected.usage.prompt_tokens


def test_nobody_there(start: Start) -> None:
    front = start()
    body = {"endpoints": [{"url": "http://127.0.0.1:9/v1", "model": "x"}], "retries": {"rounds": 1}}
    register(front, "v", body)
    with front.openai() as asking, pytest.raises(openai.APIStatusError) as caught:
        asking.chat.completions.create(model="v", messages=ASK)
    assert (caught.value.status_code, caught.value.code) == (502, "remote_failed")
    assert "cannot be reached" in caught.value.message
