"""The client library: `Client` and `AsyncClient` over one sans-I/O core.

Knows abi and errors only. `calls`, `inference` and `pull` say what to send and how to read what
comes back; `transport` moves the bytes, once blocking and once not; `locate` finds the server.
What comes back is shown by `draw`: a line on a terminal, a table or a drawing in a notebook.
Importing this package is light: httpx is loaded with the first client.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llmos.sdk.answer import Answer
    from llmos.sdk.client import AsyncClient, Client
    from llmos.sdk.look import Beside, Evaluation, Run
    from llmos.sdk.results import Chunk, Completion
    from llmos.sdk.transport import AsyncStream, Stream

__all__ = [
    "Answer",
    "AsyncClient",
    "AsyncStream",
    "Beside",
    "Chunk",
    "Client",
    "Completion",
    "Evaluation",
    "Run",
    "Stream",
]

_WHERE = {
    "Answer": "llmos.sdk.answer",
    "AsyncClient": "llmos.sdk.client",
    "AsyncStream": "llmos.sdk.transport",
    "Beside": "llmos.sdk.look",
    "Chunk": "llmos.sdk.results",
    "Client": "llmos.sdk.client",
    "Completion": "llmos.sdk.results",
    "Evaluation": "llmos.sdk.look",
    "Run": "llmos.sdk.look",
    "Stream": "llmos.sdk.transport",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_WHERE[name]), name)
