"""A server that answers from a table, for both clients, through httpx's own mock transport."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from llmos.sdk import AsyncClient, Client

Answer = Callable[[httpx.Request], httpx.Response]

MODEL: dict[str, Any] = {
    "model_id": "mdl_1",
    "name": "pilot",
    "version": "1",
    "driver": "native",
    "format": "safetensors",
    "folder": "/models/pilot",
    "digest": "sha256:" + "0" * 64,
    "size_bytes": 1_250_000,
    "context_length": 512,
    "vocab_size": 512,
    "prepare": "llmos.drivers.text:make",
    "source": "hf:org/pilot@abc",
    "created_ns": 1_700_000_000_000_000_000,
    "architecture": "LlamaForCausalLM",
    "has_chat_template": True,
}

KEY: dict[str, Any] = {
    "key_id": "key_1",
    "name": "alice",
    "tenant_id": "ten_1",
    "principal_id": "prn_1",
    "role": "user",
    "max_class": "batch",
    "weight": 2.0,
    "created_ns": 1_700_000_000_000_000_000,
    "revoked_ns": None,
}

PROCESS: dict[str, Any] = {
    "process_id": "req_1",
    "kind": "request",
    "state": "running",
    "model": "pilot:1",
    "tenant_id": "ten_1",
    "principal": "alice",
    "service_class": "interactive",
    "nice": 0,
    "prompt_tokens": 3,
    "completion_tokens": 5,
    "cached_tokens": 0,
    "driver": "",
    "created_ns": 1_700_000_000_000_000_000,
    "started_ns": None,
    "ended_ns": None,
    "reason": "admitted",
    "eta_s": None,
    "name": "",
    "parent_id": None,
    "progress": None,
    "spent": None,
}

STORY: dict[str, Any] = {
    "info": PROCESS,
    "decisions": [
        {
            "at_ns": 1_700_000_000_000_000_000,
            "state": "waiting",
            "reason": "accepted, queued behind 2: a row in about 0.40 s, then 1.20 s",
        },
        {
            "at_ns": 1_700_000_000_500_000_000,
            "state": "running",
            "reason": "runs on rep_1: row 2 of 4 after 500 ms",
        },
    ],
}

STATUS: dict[str, Any] = {
    "ready": False,
    "problems": ["no worker"],
    "version": "0.1.0",
    "epoch": 3,
    "started_ns": 1_700_000_000_000_000_000,
    "num_queued": 1,
    "num_running": 2,
    "memory_total_bytes": 8_000_000_000,
    "memory_budget_bytes": 6_000_000_000,
    "memory_reserved_bytes": 1_000_000_000,
    "policy": "fair",
    "waiting": {"batch": 1},
    "num_tokens": 100,
}

MEMORY: dict[str, Any] = {
    "devices": [
        {
            "device": "cpu",
            "total_bytes": 8_000_000_000,
            "budget_bytes": 6_000_000_000,
            "reserved_bytes": 3_100_000_000,
            "available_bytes": 4_200_000_000,
            "holdings": [
                {
                    "owner": "req_0193aaaaaaaaaaaaaaaaaaaaaaaa00000001",
                    "kind": "snapshot",
                    "what": "pilot:1",
                    "reserved_bytes": 100_000_000,
                    "measured_bytes": None,
                    "state": "suspended",
                },
                {
                    "owner": "rep_1",
                    "kind": "replica",
                    "what": "pilot:1",
                    "reserved_bytes": 3_000_000_000,
                    "measured_bytes": 2_900_000_000,
                    "state": "ready",
                },
            ],
        },
        {
            "device": "cuda:0",
            "total_bytes": 150_000_000_000,
            "budget_bytes": 140_000_000_000,
            "reserved_bytes": 0,
            "available_bytes": None,
            "holdings": [],
        },
    ],
    "lacking": [
        {
            "model": "other:1",
            "need_bytes": 4_000_000_000,
            "waited_s": 12.0,
            "reason": "pilot:1 serves until its minimum residency",
        }
    ],
    "num_snapshots": 2,
    "disk_snapshot_bytes": 250_000_000,
    "disk_free_bytes": 40_000_000_000,
}

DISK: dict[str, Any] = {
    "total_bytes": 1_000_000_000,
    "free_bytes": 400_000_000,
    "floor_bytes": 256_000_000,
    "num_blobs": 3,
    "blob_bytes": 12_000_000,
    "by_use": {"models": 10_000_000, "files": 2_000_000, "held": 0},
    "database_bytes": 300_000,
    "snapshot_bytes": 7_000_000,
    "unused_bytes": 0,
    "freed_bytes": 5_000_000,
    "num_missing": 0,
    "missing": [],
}

BACKUP: dict[str, Any] = {
    "path": "/media/backup",
    "num_files": 4,
    "size_bytes": 12_000_000,
    "took_s": 1.25,
    "notes": [],
    "missing": [],
}


def sse(*datas: object, event: str | None = None) -> bytes:
    """Events as the server writes them; strings go as they are."""
    name = f"event: {event}\n" if event else ""
    texts = [d if isinstance(d, str) else json.dumps(d, ensure_ascii=False) for d in datas]
    return "".join(f"{name}data: {text}\n\n" for text in texts).encode()


def refusal(status: int, code: str, **fields: object) -> httpx.Response:
    """An error envelope."""
    error = {"message": f"it is {code}", "type": "x", "param": None, "code": code, **fields}
    return httpx.Response(status, json={"error": error})


class Pieces(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that arrives in the given pieces; an exception among them is raised in its place."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces
        self.num_sent = 0
        self.is_closed = False

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            self.num_sent += 1
            yield piece

    async def __aiter__(self):  # type: ignore[no-untyped-def]
        for piece in self:
            yield piece

    def close(self) -> None:
        self.is_closed = True

    async def aclose(self) -> None:
        self.is_closed = True


class Server:
    """`routes` maps `METHOD /path` to an answer; `requests` are those that came."""

    def __init__(self, routes: dict[str, Answer | httpx.Response]) -> None:
        self.routes = routes
        self.requests: list[httpx.Request] = []

    def handle(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests.append(request)
        answer = self.routes[f"{request.method} {request.url.path}"]
        return answer(request) if callable(answer) else answer

    async def handle_async(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        return self.handle(request)

    def client(self, **options: Any) -> Client:
        options.setdefault("url", "http://server.test")
        return Client(transport=httpx.MockTransport(self.handle), **options)

    def async_client(self, **options: Any) -> AsyncClient:
        options.setdefault("url", "http://server.test")
        return AsyncClient(transport=httpx.MockTransport(self.handle_async), **options)

    def body(self, index: int = -1) -> Any:
        return json.loads(self.requests[index].content)
