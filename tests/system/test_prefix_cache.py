"""A prompt that begins alike: what everybody is told of it, and who never shares."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.system.server import Server
from tests.system.test_faults import data_of, until
from tests.system.test_tenants import user

PAGE = 16
NUM_PAGES = 256


@pytest.fixture(scope="module")
def caching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose echo has a prefix cache, as an option of the version says."""
    home = tmp_path_factory.mktemp("caching") / "home"
    server = Server(home, "--set", "kernel.probe_interval_s=0.2").start()
    try:
        assert server.stop() == 0, server.log
        give_pages(home)
        server.options = (*server.options, "--preload", "echo")
        server.start()
        yield server
        assert server.stop() == 0, server.log
    finally:
        server.kill()


def give_pages(home: Path) -> None:
    raw = sqlite3.connect(home / "db" / "llmos.db")
    options = json.dumps({"kv_pages": NUM_PAGES, "page_tokens": PAGE})
    with raw:
        changed = raw.execute(
            "UPDATE models SET record = json_set(record, '$.options', json(?)) WHERE name = 'echo'",
            (options,),
        )
    raw.close()
    assert changed.rowcount == 1


def wish(prompt: str, salt: str | None = None, **more: Any) -> dict[str, Any]:
    llmos = {} if salt is None else {"cache_salt": salt}
    return {"model": "echo", "prompt": prompt, "max_tokens": 4, "llmos": llmos, **more}


def ask(client: httpx.Client, prompt: str, salt: str | None = None) -> int:
    """How many tokens were cached."""
    answer = client.post("/v1/completions", json=wish(prompt, salt))
    assert answer.status_code == 200, answer.text
    return int(answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"])


def metric(client: httpx.Client, name: str) -> float:
    line = rf'^{name}{{model_name="echo:1"}} (\S+)$'
    found = re.search(line, client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


def test_every_route_tells_how_much_of_the_prompt_was_cached(caching: Server) -> None:
    prompt = "every route " * 4  # 48 tokens: two pages, and the one before the last token
    with caching.client() as client:
        assert ask(client, prompt) == 0
        assert ask(client, prompt) == 32
        assert ask(client, prompt + "!") == 48
        messages = [{"role": "user", "content": prompt}]
        chat = client.post("/v1/chat/completions", json={"model": "echo", "messages": messages})
        assert chat.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 32}
        made = client.post("/v1/responses", json={"model": "echo", "input": prompt, "store": False})
        assert made.json()["usage"]["input_tokens_details"]["cached_tokens"] == 32
        body = wish(prompt, stream=True, stream_options={"include_usage": True})
        with client.stream("POST", "/v1/completions", json=body) as stream:
            *_, last = data_of(stream.iter_lines())
        assert last["usage"]["prompt_tokens_details"] == {"cached_tokens": 32}
        both = client.post("/v1/completions", json={**wish(prompt), "prompt": [prompt, prompt]})
        assert both.json()["usage"]["prompt_tokens_details"] == {"cached_tokens": 64}


def test_records_metrics_and_processes_tell_it(caching: Server) -> None:
    prompt = "records and metrics " * 4  # 80 tokens
    with caching.client() as client:
        queries, hits = (
            metric(client, f"vllm:prefix_cache_{name}_total") for name in ("queries", "hits")
        )
        assert [ask(client, prompt), ask(client, prompt)] == [0, 64]
        assert metric(client, "vllm:prefix_cache_queries_total") - queries == 160
        assert metric(client, "vllm:prefix_cache_hits_total") - hits == 64
        until(lambda: metric(client, "llmos:kv_cached_bytes") > 0)
        assert metric(client, "vllm:kv_cache_usage_perc") == 0.0
        listed = client.get("/os/v1/processes", params={"state": "ended"}).json()["processes"]
        newest = max(listed, key=lambda process: process["created_ns"])
        assert (newest["prompt_tokens"], newest["cached_tokens"]) == (80, 64)
        (replica,) = client.get("/os/v1/replicas").json()["replicas"]
        until(lambda: recorded(caching.home, newest["process_id"]) == (80, 64))
    told = caching.cli("why", newest["process_id"]).stdout
    assert "80 tokens of prompt (64 of them cached), 4 of answer" in told
    assert "KV CACHED" in caching.cli("ps", "--memory", "--wide").stdout
    assert replica["memory"]["kv_reserved_bytes"] == NUM_PAGES * PAGE * 4


def recorded(home: Path, request_id: str) -> tuple[int, int] | None:
    raw = sqlite3.connect(home / "db" / "llmos.db")
    try:
        row: tuple[int, int] | None = raw.execute(
            "SELECT prompt_tokens, cached_tokens FROM requests WHERE request_id = ?", (request_id,)
        ).fetchone()
    finally:
        raw.close()
    return row


def test_tenants_never_share_and_a_salt_parts_a_tenant_further(caching: Server) -> None:
    prompt = "a secret of one tenant " * 3  # 69 tokens
    with (
        user(caching, "alice", "one") as alice,
        user(caching, "carol", "one") as carol,
        user(caching, "bob", "two") as bob,
    ):
        assert ask(alice, prompt) == 0
        assert ask(bob, prompt) == 0
        assert ask(carol, prompt) == 64  # of alice's tenant
        assert ask(alice, prompt, "mine") == 0
        assert ask(carol, prompt, "mine") == 64
        assert ask(carol, prompt, "other") == 0
        assert ask(bob, prompt, "mine") == 0


def test_no_salt_reaches_another_tenant(caching: Server) -> None:
    """Whatever of another tenant one knows: its id, its salt, both together."""
    prompt = "what a thief would probe for " * 2  # 58 tokens
    with user(caching, "victim", "three") as victim, user(caching, "thief", "four") as thief:
        assert [ask(victim, prompt), ask(victim, prompt, "salt")] == [0, 0]
        with caching.client() as admin:
            listed = admin.get("/os/v1/processes", params={"state": "ended"}).json()["processes"]
        (tenant_id,) = {p["tenant_id"] for p in listed if p["principal"] == "victim"}
        for salt in (tenant_id, "salt", f"{tenant_id}/salt", f"../{tenant_id}", f"/{tenant_id}"):
            assert ask(thief, prompt, salt) == 0, salt
        assert [ask(victim, prompt), ask(victim, prompt, "salt")] == [48, 48]
