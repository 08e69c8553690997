"""Memory on real workers: parked and back, pinned, refused, learned, asked for a hundred times."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from benchmarks.models import Shape, make
from tests.system.server import Server
from tests.system.test_faults import until

ROUTE = "/v1/completions"
GB = 10**9

SHAPE = Shape(
    "LlamaConfig",
    "bfloat16",
    {
        "vocab_size": 2048,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 16,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "max_position_embeddings": 4096,
        "tie_word_embeddings": True,
    },
)
"""Little to load, and 16 KiB of keys and values a token: 1 GiB for 16 rows of 4096."""

ONE_FITS = ("--set", f"kernel.memory_budget_bytes={22 * GB // 10}")


@pytest.fixture(scope="session")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose rows take a gigabyte."""
    folder = tmp_path_factory.mktemp("wide")
    make(SHAPE, folder)
    return folder


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory, wide: Path) -> Iterator[Server]:
    """A server with three such models and room for one that is loaded and one that is parked; it
    keeps a spare, as shipped, which is in nobody's way."""
    home = tmp_path_factory.mktemp("crowded") / "home"
    server = Server(home, *ONE_FITS, "--set", "kernel.patience_s=0.1", spares=True).start()
    try:
        for name in ("a", "b", "c"):
            pulled = server.cli("pull", f"file:{wide}", "--name", name)
            assert pulled.returncode == 0, pulled.stderr
        yield server
        assert server.stop() == 0, server.log
    finally:
        server.kill()


def ask(client: httpx.Client, model: str, **changes: Any) -> httpx.Response:
    wish = {"model": model, "prompt": [5] * 8, "max_tokens": 4, "temperature": 0}
    return client.post(ROUTE, json={**wish, "ignore_eos": True, **changes})


def text_of(answer: httpx.Response) -> str:
    assert answer.status_code == 200, answer.text
    return str(answer.json()["choices"][0]["text"])


def states(client: httpx.Client) -> dict[str, str]:
    replicas = client.get("/os/v1/replicas").json()["replicas"]
    return {r["model"].split(":")[0]: r["state"] for r in replicas}


def host(client: httpx.Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/os/v1/memory").json()["devices"][0]
    return found


def test_two_models_that_do_not_fit_together_take_turns(crowded: Server) -> None:
    with crowded.client() as client:
        first = {name: text_of(ask(client, name)) for name in "ab"}
        for _ in range(2):
            for name in "ab":
                assert text_of(ask(client, name)) == first[name]
                assert states(client)[name] == "ready"
        assert sorted(states(client).values()) == ["parked", "ready"]
        ledger = host(client)
        assert ledger["reserved_bytes"] <= ledger["budget_bytes"]
        assert sum(h["reserved_bytes"] for h in ledger["holdings"]) == ledger["reserved_bytes"]
        assert ledger["available_bytes"] > 0
        metrics = client.get("/metrics").text
    assert 'llmos:model_switches_total{what="unpark"}' in metrics
    shown = crowded.cli("ps", "--memory").stdout
    assert "parked" in shown
    assert "budget 2.2 GB" in shown


def test_more_models_than_memory_and_nobody_is_forgotten(crowded: Server) -> None:
    with ThreadPoolExecutor(12) as pool, crowded.client(timeout=120.0) as client:
        answers = list(pool.map(lambda name: ask(client, name, max_tokens=16), "abcabcabcabc"))
        assert [a.status_code for a in answers] == [200] * 12, [a.text for a in answers]
        waited = [a.json()["llmos"]["request_id"] for a in answers]
        stories = [client.get(f"/os/v1/processes/{r}").text for r in waited]
    assert any("make room" in story for story in stories)


def test_a_pinned_model_is_nobodys_room(crowded: Server) -> None:
    assert crowded.cli("pin", "a").returncode == 0
    with crowded.client() as client:
        refused = ask(client, "b")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "model_too_large")
        assert "a:1 being kept loaded" in refused.json()["error"]["message"]
        assert crowded.cli("pin", "a", "--off").returncode == 0
        text_of(ask(client, "b"))


def test_a_stream_goes_on_while_its_model_is_unloaded_by_hand(crowded: Server) -> None:
    with crowded.client() as client:
        whole = text_of(ask(client, "a", max_tokens=60))
        wish: dict[str, Any] = {"model": "a", "prompt": [5] * 8, "max_tokens": 400}
        wish |= {"temperature": 1, "stream": True, "ignore_eos": True}
        with client.stream("POST", ROUTE, json=wish) as answer:
            lines = answer.iter_lines()
            next(lines)
            assert client.post("/os/v1/models/a/unload").status_code == 200
            assert states(client)["a"] == "draining"
            num_chunks = sum(line.startswith("data: {") for line in lines)
        assert num_chunks > 30
        until(lambda: "a" not in states(client))
        assert text_of(ask(client, "a", max_tokens=60)) == whole


def test_what_is_larger_than_the_machine_is_refused_with_the_arithmetic(
    own_server: Server, wide: Path
) -> None:
    own_server.options = ("--set", f"kernel.memory_budget_bytes={GB // 10}")
    server = own_server.start()
    server.cli("pull", f"file:{wide}", "--name", "a")
    with server.client() as client:
        answers = [ask(client, "a"), client.post("/os/v1/models/a/load")]
    for answer in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (503, "model_too_large")
        assert "retry-after" not in answer.headers
        for word in ("weights", "keys and values", "its worker", "the budget", "would fit"):
            assert word in error["message"], error["message"]
    assert "would fit" in server.cli("load", "a").stderr


def test_what_was_measured_is_known_to_the_next_server(own_server: Server, wide: Path) -> None:
    server = own_server.start()
    server.cli("pull", f"file:{wide}", "--name", "a")
    with server.client() as client:
        assert client.post("/os/v1/models/a/load").status_code == 200
        (held,) = [h for h in host(client)["holdings"] if h["kind"] == "replica"]
    assert server.stop() == 0
    estimate = held["reserved_bytes"] * 102 // 100 + (1 << 20)
    server.options = ("--set", f"kernel.memory_budget_bytes={estimate}")
    server.start()
    with server.client() as client:
        assert client.post("/os/v1/models/a/load").status_code == 200


def test_two_clients_ask_for_a_model_a_hundred_times_each(own_server: Server) -> None:
    server = own_server.start()
    barrier = threading.Barrier(2)

    def ask_often(_: int) -> list[int]:
        with server.client() as client, ThreadPoolExecutor(20) as pool:
            barrier.wait()
            loads = pool.map(lambda _: client.post("/os/v1/models/pilot/load"), range(100))
            return [answer.status_code for answer in loads]

    with ThreadPoolExecutor(2) as pool:
        assert [set(codes) for codes in pool.map(ask_often, range(2))] == [{200}, {200}]
    with server.client() as client:
        assert 'llmos:model_switches_total{what="start"} 1.0' in client.get("/metrics").text


def test_a_worker_killed_while_it_loads_costs_nobody_an_answer(own_server: Server) -> None:
    server = own_server.start()

    def loading(client: httpx.Client) -> list[int]:
        workers = client.get("/os/v1/workers").json()["workers"]
        return [
            w["pid"] for w in workers if w["replica_id"] and w["state"] != "serving" and w["pid"]
        ]

    with ThreadPoolExecutor(1) as pool, server.client() as client:
        asked = pool.submit(ask, client, "pilot")
        until(lambda: loading(client))
        os.kill(loading(client)[0], signal.SIGKILL)
        text_of(asked.result(60))
        assert host(client)["reserved_bytes"] == sum(
            h["reserved_bytes"] for h in host(client)["holdings"]
        )


def test_a_loaded_model_is_kept_for_as_long_as_was_asked(own_server: Server) -> None:
    server = own_server.start()
    assert server.cli("load", "echo", "--keep-alive", "1s").returncode == 0
    with server.client() as client:
        assert states(client) == {"echo": "ready"}
        until(lambda: not states(client))
