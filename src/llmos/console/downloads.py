"""Files of the API for a browser: its own GET routes of bytes, with the session's key."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from llmos.console.session import find_session

PREFIX = "/console/get"
_ALLOWED = re.compile(
    r"/os/v1/tasks/[A-Za-z0-9_]{1,64}/result|/v1/files/[A-Za-z0-9_-]{1,64}/content"
)


def is_download(scope: Scope) -> bool:
    """Whether it is one of those routes, behind our prefix."""
    path = scope["path"]
    return (
        scope["method"] == "GET"
        and path.startswith(PREFIX)
        and _ALLOWED.fullmatch(path.removeprefix(PREFIX)) is not None
    )


async def download(api: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Ask the API as the session's owner. What comes is saved and never shown: a report is a page
    of its own, made of what models wrote."""
    session = find_session(scope)
    key = session.key if session is not None else ""
    path = scope["path"].removeprefix(PREFIX)
    asked = {
        **scope,
        "path": path,
        "raw_path": path.encode("ascii"),
        "headers": [(b"authorization", b"Bearer " + key.encode("ascii"))],
    }

    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [pair for pair in message["headers"] if pair[0] != b"content-disposition"]
            name = _name(scope)
            added = [
                (b"content-disposition", f'attachment; filename="{name}"'.encode("ascii")),
                (b"content-security-policy", b"sandbox"),
                (b"x-content-type-options", b"nosniff"),
            ]
            message = {**message, "headers": [*kept, *added]}
        await send(message)

    await api(asked, receive, forward)


def _name(scope: Scope) -> str:
    """What it is saved as: the id, and the format as its ending."""
    path = scope["path"].split("/")
    ending = re.search(rb"(?:^|&)format=([a-z]{1,8})(?:&|$)", scope["query_string"])
    tail = "." + ending[1].decode("ascii") if ending else ""
    return f"{path[-2]}{tail}"
