"""Listening: one uvicorn server on a TCP port and on the unix socket at once."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import importlib.util
import logging
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import uvicorn
from starlette.types import ASGIApp

from llmos.api.config import ApiConfig
from llmos.api.protocol import EdgeProtocol
from llmos.errors import ConfigError

log = logging.getLogger(__name__)

BACKLOG = 2048
LAST_WORDS_S = 1.0
POLL_PERIOD_S = 0.01
DATE_PERIOD_S = 1.0
SWEEP_PERIOD_S = 0.5
MAX_FRAME_BYTES = 4 * 1024 * 1024
"""One message of a websocket, which only pages of the console open."""
MAX_SOCKET_PATH_BYTES = 107
"""sun_path of unix(7), without its final null."""


async def serve(
    app: ASGIApp,
    config: ApiConfig,
    uds_path: Path | None,
    on_started: Callable[[str], None],
    stop: asyncio.Event | None = None,
) -> None:
    """Listen until `stop` is set, then wait for answers under way (`graceful_timeout_s`).

    `on_started` gets the URL that reaches the TCP port. Signals are the caller's business.
    Raises ConfigError when an address is in use or cannot be had.
    """
    sockets = [bind_tcp(config.host, config.port)]
    try:
        if uds_path is not None:
            sockets.append(bind_unix(uds_path))
    except ConfigError:
        sockets[0].close()
        raise
    if not _is_loopback(sockets[0]):
        log.warning("listening on %s: every machine that reaches it can try keys", config.host)
    url = _url(config.host, sockets[0])
    server = _Server(
        _uvicorn_config(app, config), stop or asyncio.Event(), config.graceful_timeout_s
    )
    try:
        await server.run_on(sockets, lambda: on_started(url))
    finally:
        for sock in sockets:
            sock.close()
        if uds_path is not None:
            _remove(uds_path)


def bind_tcp(host: str, port: int) -> socket.socket:
    """A bound, not yet listening socket. Raises ConfigError."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        sock = socket.socket(family, kind, proto)
    except OSError as e:
        raise ConfigError(f"cannot listen on {host!r}: {e.strerror or e}", param="host") from None
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    _keep_alive(sock)
    try:
        sock.bind(address)
    except OSError as e:
        sock.close()
        busy = e.errno == errno.EADDRINUSE
        reason = "another program listens there" if busy else str(e.strerror or e)
        raise ConfigError(f"cannot listen on {host}:{port}: {reason}", param="port") from None
    return sock


def _keep_alive(sock: socket.socket) -> None:
    """Connections inherit it: a client whose machine is gone is noticed within a minute."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):  # seconds, seconds, probes: tcp(7)
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def bind_unix(path: Path) -> socket.socket:
    """A bound socket of mode 0600; one left over by a dead server is replaced. Raises ConfigError.

    Nobody can connect before it listens, so there is no moment with a wider mode.
    """
    if len(bytes(path)) > MAX_SOCKET_PATH_BYTES:
        raise ConfigError(
            f"the path of the socket is over {MAX_SOCKET_PATH_BYTES} bytes: {path}", param="home"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket() and not _is_answered(path):
            path.unlink()
        sock.bind(str(path))
        path.chmod(0o600)
    except OSError as e:
        sock.close()
        raise ConfigError(f"cannot listen on {path}: {e.strerror or e}", param="home") from None
    return sock


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
        return True


def _is_loopback(sock: socket.socket) -> bool:
    host: str = sock.getsockname()[0]
    return host.startswith("127.") or host == "::1"


def _url(host: str, sock: socket.socket) -> str:
    name = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://[{name}]:{_port(sock)}" if ":" in name else f"http://{name}:{_port(sock)}"


def _port(sock: socket.socket) -> int:
    port: int = sock.getsockname()[1]
    return port


def _uvicorn_config(app: ASGIApp, config: ApiConfig) -> uvicorn.Config:
    protocol = type("BoundEdgeProtocol", (EdgeProtocol,), {"limits": config})
    return uvicorn.Config(
        app,
        http=protocol,
        loop="none",
        ws=_websockets(),
        ws_max_size=MAX_FRAME_BYTES,
        ws_per_message_deflate=False,  # pages are near or behind a proxy; it costs on every update
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # X-Forwarded-For must not name a uid
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=int(config.keepalive_timeout_s) + 1,
    )


def _websockets() -> Literal["websockets-sansio", "none"]:
    """The console's pages need them and bring the library; the API has none."""
    return "websockets-sansio" if importlib.util.find_spec("websockets") else "none"


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers, stopped by an event, sweeping as it runs."""

    def __init__(self, config: uvicorn.Config, stop: asyncio.Event, graceful_s: float) -> None:
        super().__init__(config)
        self._stop = stop
        self._graceful_s = graceful_s
        self._on_started: Callable[[], None] = lambda: None

    async def run_on(self, sockets: list[socket.socket], on_started: Callable[[], None]) -> None:
        self._on_started = on_started
        sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="api-sweep")
        try:
            await self._serve(sockets)
        finally:
            sweeping.cancel()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def main_loop(self) -> None:
        self._on_started()
        while not self._stop.is_set():
            await self.on_tick(0)  # renews the date header
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), DATE_PERIOD_S)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listeners and idle connections, wait for answers under way, cut off the rest.

        uvicorn's own waits in steps of 0.1 s and leaves connections that outlive its patience.
        """
        state = self.server_state
        for server in self.servers:
            server.close()
        for connection in self._open():
            connection.shutdown()
        try:
            async with asyncio.timeout(self._graceful_s):
                while state.tasks or state.connections:  # noqa: ASYNC110 - they give no event
                    await asyncio.sleep(POLL_PERIOD_S)
        except TimeoutError:
            await self._cut_off()

    async def _cut_off(self) -> None:
        """Cancel what outlived the graceful time; its tasks say so to their clients."""
        tasks = set(self.server_state.tasks)
        log.warning("stopping with %d answers under way", len(tasks))
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=LAST_WORDS_S)
        for connection in self._open():
            connection.transport.close()
        await asyncio.sleep(POLL_PERIOD_S)
        for connection in self._open():
            connection.transport.abort()

    async def _sweep(self) -> None:
        """For ever: connections that keep us waiting are closed, also while we stop."""
        loop = asyncio.get_running_loop()
        while True:
            for connection in self._connections():
                connection.sweep(loop.time())
            await asyncio.sleep(SWEEP_PERIOD_S)

    def _open(self) -> list[Any]:
        """Every connection: those that speak HTTP, and websockets, which are of another class."""
        return list(self.server_state.connections)

    def _connections(self) -> list[EdgeProtocol]:
        return [c for c in self.server_state.connections if isinstance(c, EdgeProtocol)]
