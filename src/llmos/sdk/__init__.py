"""The client library: `Client` and `AsyncClient` over one sans-I/O core.

Knows abi and errors only. `calls`, `inference` and `pull` say what to send and how to read what
comes back; `transport` moves the bytes, once blocking and once not; `locate` finds the server.
Importing this package is light: httpx is loaded with the first client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos.sdk.client import AsyncClient, Client
    from llmos.sdk.results import Chunk, Completion
    from llmos.sdk.transport import AsyncStream, Stream

__all__ = ["AsyncClient", "AsyncStream", "Chunk", "Client", "Completion", "Stream"]

_WHERE = {
    "AsyncClient": "llmos.sdk.client",
    "AsyncStream": "llmos.sdk.transport",
    "Chunk": "llmos.sdk.results",
    "Client": "llmos.sdk.client",
    "Completion": "llmos.sdk.results",
    "Stream": "llmos.sdk.transport",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
