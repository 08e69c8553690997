"""Both clients against a table of answers: what is sent, what is made of what comes back."""

from __future__ import annotations

import asyncio
import gc
import inspect
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmos.abi.principal import Role, ServiceClass
from llmos.errors import (
    ERRORS,
    InvalidRequest,
    LLMOSError,
    ModelNotFound,
    ProtocolViolation,
    QueueFull,
    ServerUnreachable,
)
from llmos.sdk import AsyncClient, Client
from llmos.sdk.config import ClientConfig
from llmos.sdk.wire import to_wire
from tests.unit.sdk.fake import (
    BACKUP,
    DISK,
    KEY,
    MEMORY,
    MODEL,
    PROCESS,
    STATUS,
    STORY,
    Pieces,
    Server,
    refusal,
)

Ask = Callable[[Any], Any]

REPLICA = {
    "replica_id": "rep_1",
    "model": "pilot:1",
    "driver": "native",
    "state": "ready",
    "worker_id": None,
    "num_slots": 4,
    "num_running": 0,
    "num_waiting": 0,
    "reserved_bytes": 10,
    "memory": {"rss_bytes": 5},
    "dtype": "float32",
    "device": "cpu",
    "deterministic": True,
    "since_ns": 1,
    "reason": "",
    "num_restarts": 0,
}
WORKER = {
    "worker_id": "wrk_1",
    "role": "replica",
    "pid": 7,
    "state": "ready",
    "replica_id": "rep_1",
    "started_ns": 1,
    "last_heard_ns": 2,
}

CASES: list[tuple[str, Any, Ask, Ask]] = [
    ("GET /os/v1/models", {"models": [MODEL]}, lambda c: c.models.list(), lambda r: r[0].ref),
    ("GET /os/v1/models/org/p:1", MODEL, lambda c: c.models.show("org/p:1"), lambda r: r.name),
    ("DELETE /os/v1/models/p:1", MODEL, lambda c: c.models.remove("p:1"), lambda r: r.version),
    ("POST /os/v1/models/p:1/load", {"done": "x"}, lambda c: c.models.load("p:1"), None),
    ("POST /os/v1/models/p/load", {"done": "x"}, lambda c: c.models.load("p", 0), None),
    ("POST /os/v1/models/p/load", {"done": "x"}, lambda c: c.models.load("p", None, "int4"), None),
    ("POST /os/v1/models/o/p:1/pin", {"done": "x"}, lambda c: c.models.pin("o/p:1"), None),
    ("DELETE /os/v1/models/p/pin", {"done": "x"}, lambda c: c.models.unpin("p"), None),
    ("POST /os/v1/models/p/unload", {"done": ""}, lambda c: c.models.unload("p"), None),
    ("GET /os/v1/replicas", {"replicas": [REPLICA]}, lambda c: c.replicas(), None),
    ("GET /os/v1/memory", MEMORY, lambda c: c.memory(), None),
    ("GET /os/v1/workers", {"workers": [WORKER]}, lambda c: c.workers(), None),
    ("GET /os/v1/processes", {"processes": [PROCESS]}, lambda c: c.processes.list(), None),
    ("GET /os/v1/processes/r", STORY, lambda c: c.processes.show("r"), None),
    ("GET /os/v1/processes/r/wait", STORY, lambda c: c.processes.wait("r", 0.5), None),
    ("POST /os/v1/processes/r/nice", {"done": "x"}, lambda c: c.processes.nice("r", -5), None),
    ("DELETE /os/v1/processes/r", {"done": ""}, lambda c: c.processes.kill("r"), None),
    ("GET /os/v1/status", STATUS, lambda c: c.status(), None),
    ("GET /os/v1/keys", {"keys": [KEY]}, lambda c: c.keys.list(), None),
    ("POST /os/v1/keys", {"key": KEY, "secret": "s"}, lambda c: c.keys.add("a", "t"), None),
    ("DELETE /os/v1/keys/alice", KEY, lambda c: c.keys.revoke("alice"), None),
    ("GET /os/v1/disk", DISK, lambda c: c.home.disk(), None),
    ("POST /os/v1/blobs/collect", DISK, lambda c: c.home.collect(), None),
    ("POST /os/v1/backup", BACKUP, lambda c: c.home.back_up("/b"), None),
    ("GET /healthz", {"ok": True}, lambda c: c.health(), None),
    ("GET /readyz", {"ready": True, "problems": []}, lambda c: c.ready(), None),
]


@pytest.mark.parametrize(("route", "answer", "ask", "look"), CASES, ids=[c[0] for c in CASES])
def test_both_clients_ask_the_same_and_understand_the_same(
    route: str, answer: Any, ask: Ask, look: Ask | None
) -> None:
    def answers(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=answer)

    server = Server({route: answers})

    async def ask_async() -> Any:
        async with server.async_client(api_key="k") as client:
            return await ask(client)

    with server.client(api_key="k") as client:
        found = ask(client)
    assert asyncio.run(ask_async()) == found
    assert [r.headers["authorization"] for r in server.requests] == ["Bearer k"] * 2
    assert server.requests[0].content == server.requests[1].content
    if look is not None:
        assert look(found) in {"pilot:1", "pilot", "1"}


def test_the_two_clients_have_the_same_methods() -> None:
    def names(kind: type) -> set[str]:
        return {n for n, _ in inspect.getmembers(kind) if not n.startswith("_")} - {"close"}

    assert names(Client) == names(AsyncClient) - {"aclose"}
    with Client("http://x") as client:
        assert "Raises ModelNotFound" in (inspect.getdoc(client.models.show) or "")
        assert list(inspect.signature(client.models.show).parameters) == ["ref"]


def test_a_load_says_how_long_to_stay_only_when_asked() -> None:
    server = Server({"POST /os/v1/models/p/load": httpx.Response(200, json={"done": "x"})})
    with server.client() as client:
        client.models.load("p")
        assert server.requests[-1].content == b""
        client.models.load("p", keep_alive_s=0)
        assert server.body() == {"keep_alive_s": 0}
        with pytest.raises(InvalidRequest):
            client.models.load("p", float("inf"))
        client.models.load("p", dtype="int8")
        assert server.body() == {"dtype": "int8"}


def test_memory_is_read_whole() -> None:
    with Server({"GET /os/v1/memory": httpx.Response(200, json=MEMORY)}).client() as client:
        memory = client.memory()
    assert to_wire(memory) == MEMORY
    assert [len(device.holdings) for device in memory.devices] == [2, 0]
    assert memory.devices[1].available_bytes is None


def test_service_classes_cross_by_name_in_both_directions() -> None:
    server = Server({"POST /os/v1/keys": httpx.Response(200, json={"key": KEY, "secret": "s"})})
    with server.client() as client:
        new = client.keys.add("a", "t", role=Role.ADMIN, max_class=ServiceClass.BATCH, weight=2.0)
    body = {"name": "a", "tenant": "t", "role": "admin", "max_class": "batch", "weight": 2.0}
    assert server.body() == body
    assert new.key.max_class is ServiceClass.BATCH
    assert to_wire(new.key) == KEY


def test_processes_are_filtered_by_the_server() -> None:
    server = Server({"GET /os/v1/processes": httpx.Response(200, json={"processes": [PROCESS]})})
    with server.client() as client:
        (found,) = client.processes.list(
            state=["waiting", "paused"], model="org/p:1", tenant="t&x", mine=True
        )
        client.processes.list(state="live")
        client.processes.list()
    queries = [dict(request.url.params) for request in server.requests]
    assert queries == [
        {"state": "waiting,paused", "model": "org/p:1", "tenant": "t&x", "mine": "true"},
        {"state": "live"},
        {},
    ]
    assert found.service_class is ServiceClass.INTERACTIVE


def test_nice_sends_only_what_changes() -> None:
    server = Server({"POST /os/v1/processes/r/nice": httpx.Response(200, json={"done": "done"})})
    with server.client() as client:
        assert client.processes.nice("r", service_class=ServiceClass.BATCH).what == "done"
        assert server.body() == {"class": "batch"}
        client.processes.nice("r", 0)
        assert server.body() == {"nice": 0}


def test_a_wait_is_shorter_than_the_clients_own_patience() -> None:
    server = Server({"GET /os/v1/processes/r/wait": httpx.Response(200, json=STORY)})
    with server.client(config=ClientConfig(long_timeout_s=10.0)) as client:
        story = client.processes.wait("r", 9)
        assert (story.info.ended_ns, story.decisions[1].state) == (None, "running")
        assert server.requests[-1].extensions["timeout"]["read"] == 10.0
        with pytest.raises(InvalidRequest, match="timeout_s"):
            client.processes.wait("r", 10)


def test_not_ready_is_an_answer_and_a_refusal_is_not() -> None:
    report = {"ready": False, "problems": ["no model"]}
    with Server({"GET /readyz": httpx.Response(503, json=report)}).client() as client:
        assert client.ready().problems == ["no model"]
    server = Server({"GET /readyz": refusal(503, "shutting_down")})
    with server.client() as client, pytest.raises(ERRORS["shutting_down"]):
        client.ready()


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_every_error_arrives_as_the_class_it_was(code: str) -> None:
    answer = refusal(400, code, param="p", retry_after_s=2.5, details={"near": ["x"]})
    server = Server({"GET /os/v1/status": answer})
    with server.client() as client, pytest.raises(LLMOSError) as caught:
        client.status()
    error = caught.value
    assert type(error) is ERRORS[code]
    assert (error.message, error.param, error.retry_after_s) == (f"it is {code}", "p", 2.5)
    assert error.details == {"near": ["x"]}
    assert error.retryable is ERRORS[code].retryable


@pytest.mark.parametrize(
    ("answer", "kind", "says"),
    [
        (httpx.Response(502, text="<html>Bad gateway"), LLMOSError, "502: <html>Bad gateway"),
        (httpx.Response(429, headers={"Retry-After": "7"}), QueueFull, "429: no reason"),
        (httpx.Response(404, json={"error": "gone"}), LLMOSError, "no reason"),
        (httpx.Response(400, json=[1]), InvalidRequest, "no reason"),
        (httpx.Response(400, content=b"\xff\xfe"), InvalidRequest, "400"),
        (httpx.Response(200, text="not json"), ProtocolViolation, "cannot be read"),
        (httpx.Response(200, json={"ready": "maybe"}), ProtocolViolation, "cannot be read"),
    ],
)
def test_strange_answers_are_typed_errors(
    answer: httpx.Response, kind: type[LLMOSError], says: str
) -> None:
    server = Server({"GET /os/v1/status": answer})
    with server.client() as client, pytest.raises(kind, match=says) as caught:
        client.status()
    if answer.headers.get("Retry-After"):
        assert caught.value.retry_after_s == 7.0


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("slow"),
        httpx.ReadTimeout("silent"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("cut"),
    ],
)
def test_a_server_that_is_not_there_is_server_unreachable(failure: Exception) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    server = Server({"GET /healthz": fail})
    with server.client() as client, pytest.raises(ServerUnreachable, match=r"server\.test"):
        client.health()

    async def ask() -> None:
        async with server.async_client() as client:
            await client.health()

    with pytest.raises(ServerUnreachable):
        asyncio.run(ask())


def test_nobody_at_the_socket_is_server_unreachable(tmp_path: Path) -> None:
    with (
        Client(home=tmp_path) as client,
        pytest.raises(ServerUnreachable, match=f"no server runs for {tmp_path}"),
    ):
        client.status()


def test_a_socket_nobody_listens_at_is_server_unreachable(tmp_path: Path) -> None:
    """Left by a server that was killed; and nothing of ours stays open (warnings are errors)."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "api.sock"))

    async def ask() -> None:
        async with AsyncClient(home=tmp_path) as client:
            await client.status()

    with Client(home=tmp_path) as client, pytest.raises(ServerUnreachable, match=r"api\.sock"):
        client.status()
    with pytest.raises(ServerUnreachable, match=r"api\.sock"):
        asyncio.run(ask())
    gc.collect()


@pytest.mark.parametrize("url", ["nonsense", "ftp://x", "http://x:port"])
def test_a_url_that_is_none_is_an_invalid_request(url: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot be asked"), Client(url) as client:
        client.status()


def test_an_endless_answer_is_refused_within_its_bound() -> None:
    body = Pieces(*[b"x" * 100] * 1000)
    server = Server({"GET /metrics": httpx.Response(200, stream=body)})
    config = ClientConfig(max_answer_bytes=1000)
    with server.client(config=config) as client, pytest.raises(ProtocolViolation, match="1000"):
        client.metrics()
    assert body.num_sent == 11
    assert body.is_closed


def test_an_endless_refusal_is_not_read_to_its_end() -> None:
    body = Pieces(*[b"x" * 100] * 1000)
    server = Server({"GET /metrics": httpx.Response(500, stream=body)})
    config = ClientConfig(max_error_bytes=1000)
    with server.client(config=config) as client, pytest.raises(LLMOSError, match="500"):
        client.metrics()
    assert body.num_sent == 10
    assert body.is_closed


def test_paths_are_quoted_so_that_a_name_cannot_leave_its_route() -> None:
    server = Server({})
    with server.client() as client:
        for ask in (client.models.show, client.keys.revoke, client.processes.kill):
            with pytest.raises(KeyError):
                ask("a?b#c%2f/é")
            for name in ("", ".", ".."):
                with pytest.raises(InvalidRequest, match="is not a name"):
                    ask(name)
        with pytest.raises(InvalidRequest):
            client.models.remove("../keys/alice")
    raw = [request.url.raw_path for request in server.requests]
    assert raw == [
        b"/os/v1/models/a%3Fb%23c%252f/%C3%A9",
        b"/os/v1/keys/a%3Fb%23c%252f%2F%C3%A9",
        b"/os/v1/processes/a%3Fb%23c%252f%2F%C3%A9",
    ]


def test_an_unknown_model_names_its_neighbours() -> None:
    answer = refusal(404, "model_not_found", details={"near": ["pilot"]})
    server = Server({"GET /os/v1/models/pilo": answer})
    with server.client() as client, pytest.raises(ModelNotFound) as caught:
        client.models.show("pilo")
    assert caught.value.details["near"] == ["pilot"]
