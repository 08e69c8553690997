"""Finds the server: explicit arguments, then the environment, then the home's own socket.

The only module of the sdk that reads the environment (`LLMOS_URL`, `LLMOS_API_KEY`, `LLMOS_HOME`).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

DEFAULT_HOME = "~/.llmos"
SOCKET_NAME = "api.sock"
TOKEN_NAME = "token"  # noqa: S105 - a file name
SERVER_FILE_NAME = "server.json"


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server is. With `socket` the bytes go over that unix socket and `url` is nominal.

    `home` is set when the server is the one of a home on this machine.
    """

    url: str
    api_key: str | None = dataclasses.field(default=None, repr=False)
    socket: Path | None = None
    home: Path | None = None

    @property
    def where(self) -> str:
        """For messages: the address a person would recognise."""
        return str(self.socket) if self.socket else self.url


class ServerFile(msgspec.Struct, frozen=True):
    """`$LLMOS_HOME/server.json`: what the running server says of itself."""

    url: str
    pid: int
    started_ns: int = 0
    version: str = ""


def find_home(home: str | Path | None = None, environ: Mapping[str, str] | None = None) -> Path:
    """The home in force, absolute: the argument, `LLMOS_HOME`, or `~/.llmos`."""
    environ = os.environ if environ is None else environ
    return Path(home or environ.get("LLMOS_HOME") or DEFAULT_HOME).expanduser().absolute()


def find_server_file(home: Path) -> ServerFile | None:
    """What `server.json` says, or None when there is none that can be read."""
    try:
        return msgspec.json.decode((home / SERVER_FILE_NAME).read_bytes(), type=ServerFile)
    except (OSError, msgspec.DecodeError):
        return None


def find_token(home: Path) -> str | None:
    """The home's admin token, or None when it is absent or not ours to read."""
    try:
        return (home / TOKEN_NAME).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def locate(
    url: str | None = None,
    api_key: str | None = None,
    home: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Endpoint:
    """The endpoint to talk to; nothing is contacted.

    A URL, given or in `LLMOS_URL`, wins over a home unless a home is given in the call. The home's
    token is only ever sent to the home's own server.
    """
    environ = os.environ if environ is None else environ
    api_key = api_key or environ.get("LLMOS_API_KEY") or None
    if url is None and home is None:
        url = environ.get("LLMOS_URL") or None
    if url is not None:
        return Endpoint(url.rstrip("/"), api_key)
    folder = find_home(home, environ)
    api_key = api_key or find_token(folder)
    socket = folder / SOCKET_NAME
    if not socket.exists() and (server := find_server_file(folder)) is not None:
        return Endpoint(server.url.rstrip("/"), api_key, home=folder)
    return Endpoint("http://localhost", api_key, socket, folder)
