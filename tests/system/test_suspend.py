"""The context switch on real workers: suspended by hand, moved, killed, restarted, and damaged."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.models import Shape, make
from tests.system.server import Server
from tests.system.test_faults import until

NUM_TOKENS = 240

ROUTE = "/v1/completions"


SLOW = Shape(
    "LlamaConfig",
    "float32",
    {
        "vocab_size": 2048,
        "hidden_size": 512,
        "intermediate_size": 1536,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
    },
)
"""A few milliseconds a token: time to do something to an answer before it has ended."""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a model."""
    folder = tmp_path_factory.mktemp("slow")
    make(SLOW, folder)
    return folder


@pytest.fixture(scope="module")
def answered(
    tmp_path_factory: pytest.TempPathFactory, slow: Path
) -> Iterator[tuple[Server, list[int]]]:
    """A server with the model in it, and what it answers when nobody disturbs it."""
    server = Server(tmp_path_factory.mktemp("answered") / "home").start()
    try:
        pulled = server.cli("pull", f"file:{slow}", "--name", "s")
        assert pulled.returncode == 0, pulled.stderr
        with server.client() as client:
            whole = client.post(ROUTE, json=body()).json()
        yield server, whole["choices"][0]["token_ids"]
        assert server.stop() == 0, server.log
    finally:
        server.kill()


def body(**llmos: Any) -> dict[str, Any]:
    """Exact, sampled, the same every time."""
    return {
        "model": "s",
        "prompt": [1],
        "max_tokens": NUM_TOKENS,
        "temperature": 0.8,
        "seed": 11,
        "ignore_eos": True,
        "return_token_ids": True,
        "llmos": {"deterministic": True, **llmos},
    }


class Asked:
    """A request under way in a thread of its own, found among the live processes."""

    def __init__(self, server: Server, wish: dict[str, Any]) -> None:
        self._server = server
        self._answer: list[httpx.Response] = []
        known = {p["process_id"] for p in self.live()}
        self._thread = threading.Thread(target=self._ask, args=(wish,))
        self._thread.start()
        until(lambda: any(self._is_running(p, known) for p in self.live()))
        self.process_id = next(p for p in self.live() if self._is_running(p, known))["process_id"]

    def _ask(self, wish: dict[str, Any]) -> None:
        self._answer.append(self.post(ROUTE, wish))

    @staticmethod
    def _is_running(process: dict[str, Any], known: set[str]) -> bool:
        begun = process["state"] == "running" and process["completion_tokens"] > 3
        return begun and process["process_id"] not in known

    def post(self, path: str, wish: dict[str, Any] | None = None) -> httpx.Response:
        with self._server.client() as client:
            return client.post(path, json=wish)

    def get(self, path: str) -> Any:
        with self._server.client() as client:
            return client.get(path).json()

    def live(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/os/v1/processes?state=live")["processes"]
        return found

    def tell(self, verb: str) -> httpx.Response:
        return self.post(f"/os/v1/processes/{self.process_id}/{verb}")

    def suspend(self) -> None:
        answer = self.tell("suspend")
        assert answer.status_code == 200, answer.text

    def replica(self) -> dict[str, Any]:
        replicas = self.get("/os/v1/replicas")["replicas"]
        return next((r for r in replicas if r["model"] == "s:1"), {})

    def story(self) -> str:
        story = self.get(f"/os/v1/processes/{self.process_id}")
        return "\n".join(f"{d['state']} {d['reason']}" for d in story["decisions"])

    def answer(self) -> dict[str, Any]:
        self._thread.join(60)
        answer = self._answer[0]
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found


def is_whole(answer: dict[str, Any], expected: list[int], context: str = "snapshot") -> bool:
    choice = answer["choices"][0]
    assert answer["usage"]["completion_tokens"] == NUM_TOKENS
    assert answer["llmos"]["context"] == context
    return bool(choice["token_ids"] == expected)


def test_by_hand_by_the_command_line(answered: tuple[Server, list[int]]) -> None:
    server, _ = answered
    text = "字🙂" * 60  # a token each 30 ms: commands take a while to start
    wish: dict[str, Any] = {"model": "echo", "prompt": text, "max_tokens": 120}
    wish["llmos"] = {"driver": {"delay_ms": 30}}
    asked = Asked(server, wish)
    done = server.cli("suspend", asked.process_id)
    assert "is suspended" in done.stdout, done.stderr
    assert "suspended" in server.cli("ps").stdout
    assert "snapshot" in server.cli("ps", "--memory").stdout
    assert asked.tell("suspend").status_code == 409
    assert server.cli("resume", asked.process_id).returncode == 0
    answer = asked.answer()
    assert answer["choices"][0]["text"] == text
    assert answer["llmos"]["suspensions"] == 1
    assert answer["llmos"]["context"] == "snapshot"
    assert "from its snapshot" in asked.story()


def test_many_times_beside_others(answered: tuple[Server, list[int]]) -> None:
    server, expected = answered
    others = [Asked(server, {**body(), "seed": seed}) for seed in (1, 2)]
    asked = Asked(server, body())
    for _ in range(3):
        asked.suspend()
        assert asked.tell("resume").status_code == 200
        until(lambda: any(p["state"] == "running" for p in asked.live()))
    assert is_whole(asked.answer(), expected)
    for other in others:
        other.answer()


def test_while_its_model_is_unloaded(answered: tuple[Server, list[int]]) -> None:
    server, expected = answered
    asked = Asked(server, body())
    asked.suspend()
    assert asked.post("/os/v1/models/s/unload").status_code == 200
    until(lambda: not asked.replica())
    asked.tell("resume")
    assert is_whole(asked.answer(), expected)


def test_while_its_worker_dies(answered: tuple[Server, list[int]]) -> None:
    server, expected = answered
    asked = Asked(server, body())
    asked.suspend()
    worker_id = asked.replica()["worker_id"]
    workers = asked.get("/os/v1/workers")["workers"]
    os.kill(next(w["pid"] for w in workers if w["worker_id"] == worker_id), signal.SIGKILL)
    asked.tell("resume")
    assert is_whole(asked.answer(), expected)


@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_a_damaged_snapshot_is_computed_again_and_told(
    answered: tuple[Server, list[int]], damage: str
) -> None:
    server, expected = answered
    asked = Asked(server, body(resume_s=30))  # what outlives a server lies on the disk
    asked.suspend()
    (file,) = (server.home / "snapshots").glob("*.snap")
    content = bytearray(file.read_bytes())
    if damage == "gone":
        file.unlink()
    else:
        content = content[:-100] if damage == "cut" else content
        content[len(content) // 2] ^= damage == "flip"
        file.write_bytes(content)
    asked.tell("resume")
    answer = asked.answer()
    assert answer["llmos"]["context"] == "recomputed"
    # its engine gives equal bits to what is computed again
    assert answer["llmos"]["deterministic"] is True
    assert is_whole(answer, expected, "recomputed")
    assert "computed again" in asked.story()


def test_a_snapshot_of_another_request_is_refused(answered: tuple[Server, list[int]]) -> None:
    server, _ = answered
    one = Asked(server, body(resume_s=30))
    one.suspend()
    (of_one,) = (server.home / "snapshots").glob("*.snap")
    two = Asked(server, body(resume_s=30))
    two.suspend()
    (of_two,) = set((server.home / "snapshots").glob("*.snap")) - {of_one}
    of_two.write_bytes(of_one.read_bytes())  # another owner's, put in its place
    two.tell("resume")
    assert two.answer()["llmos"]["context"] == "recomputed"
    one.tell("resume")
    assert one.answer()["llmos"]["context"] == "snapshot"


def test_nobody_elses_request_is_suspended(answered: tuple[Server, list[int]]) -> None:
    server, _ = answered
    asked = Asked(server, body())
    key = asked.post("/os/v1/keys", {"name": "eve", "tenant": "eve"}).json()["secret"]
    with server.client(key) as eve:
        assert eve.post(f"/os/v1/processes/{asked.process_id}/suspend").status_code == 404
        assert eve.get("/os/v1/memory").status_code == 403
    asked.answer()
    assert asked.tell("suspend").status_code == 404  # it has ended
    assert asked.tell("resume").status_code == 404


def test_a_client_that_leaves_a_suspended_request_leaves_nothing(
    answered: tuple[Server, list[int]],
) -> None:
    server, _ = answered
    with server.client() as client, client.stream("POST", ROUTE, json=stream_of(body())) as answer:
        next(answer.iter_lines())
        (process,) = client.get("/os/v1/processes", params={"state": "live"}).json()["processes"]
        client.post(f"/os/v1/processes/{process['process_id']}/suspend")
    with server.client() as client:
        until(lambda: not client.get("/os/v1/processes?state=live").json()["processes"])
        holdings = client.get("/os/v1/memory").json()["devices"][0]["holdings"]
    assert not [h for h in holdings if h["kind"] == "snapshot"]
    assert not list((server.home / "snapshots").iterdir())


def stream_of(wish: dict[str, Any]) -> dict[str, Any]:
    return {**wish, "stream": True}


def read(
    client: httpx.Client, wish: dict[str, Any], last_id: str = "", events: int = 1 << 30
) -> tuple[list[int], str, bool]:
    """(token ids, the last event's id, whether it came to its end)."""
    ids, event_id = [], last_id
    headers = {"Last-Event-ID": last_id} if last_id else {}
    with client.stream("POST", ROUTE, json=wish, headers=headers) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("id: "):
                event_id = line.removeprefix("id: ")
            elif line == "data: [DONE]":
                return ids, event_id, True
            elif line.startswith("data: "):
                choices = json.loads(line.removeprefix("data: ")).get("choices") or [{}]
                ids += choices[0].get("token_ids", [])
                if len(ids) >= events:
                    break
    return ids, event_id, False


@pytest.mark.parametrize("how", [pytest.param("stopped", marks=pytest.mark.deep), "killed"])
def test_a_restart_of_the_server_changes_no_token(own_server: Server, slow: Path, how: str) -> None:
    server, wish = own_server.start(), stream_of(body(resume_s=60))
    server.cli("pull", f"file:{slow}", "--name", "s")
    with server.client() as client:
        expected = client.post(ROUTE, json=body()).json()["choices"][0]["token_ids"]
        ids, last_id, _ = read(client, wish, events=50)
        process_id = last_id.split(":")[0]
        if how == "killed":
            assert client.post(f"/os/v1/processes/{process_id}/suspend").status_code == 200
            until(lambda: list((server.home / "snapshots").glob("*.req")))
    if how == "killed":
        server.kill()
    else:
        assert server.stop() == 0, server.log
    server.start()
    with server.client() as client:
        if how == "killed":
            assert "suspended" in server.cli("ps").stdout
            assert client.post(f"/os/v1/processes/{process_id}/resume").status_code == 200
        more, _, is_over = read(client, wish, last_id)
    assert is_over
    assert ids + more[-(NUM_TOKENS - len(ids)) :] == expected
    until(lambda: not list((server.home / "snapshots").iterdir()))


def test_a_full_disk_refuses_to_suspend_and_the_request_goes_on(
    own_server: Server, slow: Path
) -> None:
    full = ("--set", "kernel.max_snapshot_memory_bytes=0", "--set", "storage.max_snapshot_bytes=1")
    own_server.options = full
    server = own_server.start()
    server.cli("pull", f"file:{slow}", "--name", "s")
    asked = Asked(server, body())
    refused = asked.tell("suspend")
    assert (refused.status_code, refused.json()["error"]["code"]) == (507, "disk_full")
    assert asked.answer()["llmos"]["context"] == "kept"
