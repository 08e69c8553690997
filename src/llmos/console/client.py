"""The sdk over the API of this very process, with the key of whoever looks."""

from __future__ import annotations

from starlette.types import ASGIApp

from llmos.console.transport import InProcess
from llmos.sdk.client import AsyncClient

URL = "http://console"


def open_client(api: ASGIApp, key: str) -> AsyncClient:
    """A client whose calls pass the same gate, with the same rights, as the key's owner has."""
    return AsyncClient(URL, key, transport=InProcess(api))
